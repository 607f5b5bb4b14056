"""A bounded local copy of a remote cache: chunks are fetched when they are first needed, and the longest unused go.

A fetched file is kept only after its size and sha256 are those of the metadata, and every later read hashes it again; a
damaged copy is fetched anew. Several processes may share the copy: what one of them removes, another fetches again, and
a file that is being read stays readable on the disk whoever removes its name. Time of last use is the file's own
modification time, so the order of eviction is shared as well.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.durable import TEMPORARY_PREFIX, make_directory, remove_file, write_bytes
from llm_training.storage.hashing import record_of
from llm_training.storage.reading import read_bytes
from llm_training.storage.remote import RemoteFolder

# A download that was killed leaves a temporary file; none takes this long.
_ABANDONED_SECONDS = 3600.0


class RemoteCopy:
    """Files of a remote cache, through a directory that holds at most ``limit_bytes`` of them.

    Args:
        remote: the cache.
        directory: of the copy; a local path under it stands for the object of the same relative name.
        limit_bytes: of fetched files; one that is larger than all of it is read and not kept.
    """

    def __init__(self, remote: RemoteFolder, directory: Path, limit_bytes: int) -> None:
        self.remote = remote
        self.directory = directory
        self._limit_bytes = limit_bytes
        self._sizes: dict[str, int] = {}
        self._in_use: Counter[Path] = Counter()
        self._lock = threading.Lock()
        self.fetched_bytes = 0

    def list_folder(self, folder: str) -> dict[str, int]:
        """Ask the store what is in a folder; `size` answers from what was listed. Raises StorageError."""
        found = self.remote.sizes(folder)
        self._sizes.update(found)
        return found

    def size(self, path: Path) -> int | None:
        """See `files.CacheFiles`."""
        return self._sizes.get(self._name(path))

    def read(self, path: Path, num_bytes: int, sha256: str) -> bytes:
        """See `files.CacheFiles`; from the copy, or fetched into it."""
        with self._using(path):
            data = _kept(path, num_bytes, sha256)
            if data is None:
                data = self._fetch(path, num_bytes, sha256)
            else:
                with suppress(OSError):  # gone meanwhile: another process needed the room
                    os.utime(path)
            return data

    def held_bytes(self) -> int:
        """Bytes of fetched files on the disk now."""
        return sum(size for _, size, _ in self._held())

    def _fetch(self, path: Path, num_bytes: int, sha256: str) -> bytes:
        name = self._name(path)
        data = self.remote.read(name, max_bytes=num_bytes)
        found = record_of(data)
        if (found.num_bytes, found.digest) != (num_bytes, sha256):
            what = f"fetched {found.num_bytes} bytes with hash {found.digest[:16]}, expected {num_bytes} with {sha256[:16]}"
            remedy = "run again (it may have been published anew meanwhile), or publish it again from a whole cache"
            raise IntegrityError(what, where=self.remote.where(name), remedy=remedy)
        with self._lock:
            self.fetched_bytes += num_bytes
            if num_bytes <= self._limit_bytes:
                self._make_room(num_bytes)
                make_directory(path.parent)
                write_bytes(path, data)
        return data

    def _make_room(self, num_bytes: int) -> None:
        """Remove the longest unused files until ``num_bytes`` more fit; what is in use stays."""
        held = sorted(self._held())
        total = sum(size for _, size, _ in held)
        for _, size, path in held:
            if total + num_bytes <= self._limit_bytes:
                return
            if not self._in_use[path]:
                remove_file(path)
                total -= size

    def _held(self) -> list[tuple[float, int, Path]]:
        """Time of last use, size and path of each fetched file. A temporary file of a dead process counts as never used."""
        found: list[tuple[float, int, Path]] = []
        for path in self.directory.rglob("*.arrow"):
            with suppress(OSError):
                status = path.lstat()
                is_temporary = path.name.startswith(TEMPORARY_PREFIX)
                if is_temporary and time.time() - status.st_mtime < _ABANDONED_SECONDS:
                    continue
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _name(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()

    @contextmanager
    def _using(self, path: Path) -> Generator[None]:
        with self._lock:
            self._in_use[path] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[path] -= 1
                if not self._in_use[path]:
                    del self._in_use[path]


def _kept(path: Path, num_bytes: int, sha256: str) -> bytes | None:
    """The copy of a file, if it is there and whole."""
    try:
        data = read_bytes(path, max_bytes=num_bytes)
    except (StorageError, IntegrityError):
        return None
    found = record_of(data)
    return data if (found.num_bytes, found.digest) == (num_bytes, sha256) else None
