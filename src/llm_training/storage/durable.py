"""Single files and names that survive a crash.

The protocol of every write: a temporary name beside the target (``O_EXCL | O_NOFOLLOW``, mode 0600), write, fsync,
read back and compare the hash, rename over the target, fsync the directory. A reader sees the old file or the new one,
never a mixture, and a failure leaves the old one and no rubbish. The read-back goes through the page cache: it catches
a write that the system cut or a buffer that changed under our hands, not a disk that lies later (that is what the
manifest's hash is checked for at load).
Reading is in `reading`, directory artefacts in `directories`, logs in `append`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llm_training.errors import StorageError
from llm_training.storage.filesystem import CAN_SYNC_DIRECTORIES, CREATE_FLAGS, filesystem
from llm_training.storage.hashing import BLOCK_BYTES, DEFAULT_HASH, HASHES, FileRecord
from llm_training.storage.oserrors import storage_errors, to_storage_error
from llm_training.storage.reading import hash_file
from llm_training.storage.reading import read_bytes as read_bytes  # handed on: who writes a file mostly reads one too
from llm_training.storage.reading import read_json as read_json

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TEMPORARY_PREFIX = ".tmp-"


def temporary_beside(path: Path) -> Path:
    """An unguessable hidden name in the directory of ``path``, short enough for any file system."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name[:40]}")


class DurableFile(io.RawIOBase):
    """A new file that is hashed while it is written; also a plain binary sink for libraries such as pyarrow."""

    def __init__(self, path: Path, *, mode: int = 0o600, expected_bytes: int = 0) -> None:
        super().__init__()
        self.path = path
        self._expected_bytes = expected_bytes
        self._hasher = HASHES[DEFAULT_HASH]()
        self._num_bytes = 0
        with storage_errors("create a file", path, expected_bytes):
            self._descriptor: int | None = filesystem().open(path, CREATE_FLAGS, mode)

    @property
    def record(self) -> FileRecord:
        """Size and hash of everything written so far."""
        return FileRecord(num_bytes=self._num_bytes, digest=self._hasher.hexdigest())

    def writable(self) -> bool:
        """True: it is only written to."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._num_bytes

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of ``data`` (the system may take it in pieces). Raises StorageError."""
        if self._descriptor is None:
            raise ValueError(f"{self.path.name} is finished")
        view = memoryview(data).cast("B")
        with storage_errors("write a file", self.path, max(self._expected_bytes, self._num_bytes + len(view))):
            for start in range(0, len(view), BLOCK_BYTES):  # hashed and written while the block is in the CPU's cache
                block = view[start : start + BLOCK_BYTES]
                self._hasher.update(block)
                write_all(self._descriptor, block)
        self._num_bytes += len(view)
        return len(view)

    def finish(self) -> FileRecord:
        """Sync, close, read back and compare. Raises StorageError when what is on the disk is not what was written."""
        if self._descriptor is None:
            raise ValueError(f"{self.path.name} is finished")
        with storage_errors("sync a file", self.path, self._num_bytes):
            filesystem().fsync(self._descriptor)
        self.abandon()
        if hash_file(self.path) != self.record:
            raise StorageError(
                "a file reads back different from what was written",
                where=str(self.path),
                remedy="check the disk and the memory, then run again",
            )
        return self.record

    def abandon(self) -> None:
        """Close without syncing; nothing happens when already closed. Raises StorageError."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with storage_errors("close a file", self.path):
                filesystem().close(descriptor)


def write_all(descriptor: int, data: memoryview) -> None:
    """Write until nothing is left. Raises OSError."""
    done = 0
    while done < len(data):
        written = filesystem().write(descriptor, data[done:])
        if written <= 0:
            raise OSError(errno.EIO, "write took no bytes")
        done += written


@contextmanager
def write_stream(path: Path, *, mode: int = 0o600, expected_bytes: int = 0) -> Generator[DurableFile]:
    """A sink whose content becomes the file ``path`` when the block ends without an error, durably and at once.

    After the block its ``record`` is the size and hash of the file. When the block raises, ``path`` is as before.
    Raises StorageError.
    """
    temporary = temporary_beside(path)
    sink = DurableFile(temporary, mode=mode, expected_bytes=expected_bytes)
    try:
        yield sink
        sink.finish()
        with storage_errors("rename a file into place", path):
            filesystem().replace(temporary, path)
    except BaseException:
        with suppress(StorageError):
            sink.abandon()
        with suppress(OSError):
            filesystem().unlink(temporary)
        raise
    sync_directory(path.parent)


def write_bytes(path: Path, data: ReadableBuffer, *, mode: int = 0o600) -> FileRecord:
    """Make ``path`` hold exactly ``data``, durably and atomically. Raises StorageError."""
    with write_stream(path, mode=mode, expected_bytes=memoryview(data).nbytes) as sink:
        sink.write(data)
    return sink.record


def json_bytes(value: object) -> bytes:
    """``value`` as indented ASCII JSON. Raises ValueError for NaN and infinities, which JSON does not have."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("ascii")


def write_json(path: Path, value: object, *, mode: int = 0o600) -> FileRecord:
    """Make ``path`` hold ``value`` as JSON, durably and atomically. Raises StorageError; ValueError for NaN."""
    return write_bytes(path, json_bytes(value), mode=mode)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable. Raises StorageError."""
    if not CAN_SYNC_DIRECTORIES:
        return
    with storage_errors("sync a directory", path):
        descriptor = filesystem().open_directory(path)
        try:
            filesystem().fsync(descriptor)
        finally:
            filesystem().close(descriptor)


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make a directory and its missing parents, durably; an existing directory is left as it is. Raises StorageError."""
    with storage_errors("make a directory", path):
        missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        with storage_errors("make a directory", place), suppress(FileExistsError):
            filesystem().mkdir(place, mode)
        sync_directory(place.parent)
    if not path.is_dir():
        raise to_storage_error(NotADirectoryError(errno.ENOTDIR, "not a directory"), "make a directory", path)


def require_place(path: Path) -> None:
    """See, before long work, that a file can be written there: makes the missing directories. Raises StorageError."""
    make_directory(path.parent)
    with storage_errors("write", path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "permission denied")


def rename(source: Path, target: Path) -> None:
    """Give a file or directory a free name in the same directory, durably. Raises StorageError (also when it is taken)."""
    with storage_errors(f"rename to {target.name}", source):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists")
        filesystem().rename(source, target)
    sync_directory(target.parent)


def remove_file(path: Path) -> None:
    """Remove a file or link, durably; nothing happens when it is gone already. Raises StorageError."""
    with storage_errors("remove a file", path), suppress(FileNotFoundError):
        filesystem().unlink(path)
    sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, never following links; what is gone already is fine. Raises StorageError."""
    with storage_errors("remove a directory", path):
        _remove_entries(path)
    sync_directory(path.parent)


def _remove_entries(path: Path) -> None:
    """Depth first; the mode is opened up first so that our own read-only leftovers can go."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    removal: Callable[[Path], None] = filesystem().unlink
    if stat.S_ISDIR(mode):
        for entry in sorted(path.iterdir()):
            _remove_entries(entry)
        removal = filesystem().rmdir
    with suppress(FileNotFoundError):
        removal(path)
