"""Reading artefacts without trusting them: regular files only, links not followed, sizes bounded, no memory mapping.

A mapped file that is cut while it is read kills the process with SIGBUS; a read that comes up short is an error with a
name. Hashes are taken from the very bytes that are handed out, so what was verified is what is used.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from llm_training.errors import IntegrityError
from llm_training.storage.filesystem import READ_FLAGS, filesystem
from llm_training.storage.hashing import BLOCK_BYTES, DEFAULT_HASH, HASHES, FileRecord
from llm_training.storage.oserrors import storage_errors


class RegularFile:
    """A regular file that is hashed while it is read from start to end; a context manager.

    A planted link, FIFO or device is refused rather than followed or waited for. Raises StorageError.
    """

    def __init__(self, path: Path, algorithm: str = DEFAULT_HASH) -> None:
        self.path = path
        self._algorithm = algorithm
        self._hasher = HASHES[algorithm]()
        self._num_read = 0
        with storage_errors("read a file", path):
            self._descriptor = filesystem().open(path, READ_FLAGS)
            try:
                status = os.fstat(self._descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
            except OSError:
                filesystem().close(self._descriptor)
                raise
        self.num_bytes = status.st_size

    @property
    def record(self) -> FileRecord:
        """Size and hash of everything read so far."""
        return FileRecord(num_bytes=self._num_read, digest=self._hasher.hexdigest(), algorithm=self._algorithm)

    def read_some(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer``; returns the bytes read, 0 at the end of the file. Raises StorageError."""
        with storage_errors("read a file", self.path):
            count = filesystem().readinto(self._descriptor, buffer)
        self._hasher.update(buffer[:count])
        self._num_read += count
        return count

    def read_exactly(self, buffer: memoryview) -> None:
        """Fill the whole ``buffer``. Raises IntegrityError when the file ends before, StorageError."""
        done = 0
        while done < len(buffer):
            count = self.read_some(buffer[done : done + BLOCK_BYTES])
            if count == 0:
                raise IntegrityError(
                    f"the file ends after {self._num_read} bytes", where=str(self.path), remedy="restore it from a copy or build it again"
                )
            done += count

    def __enter__(self) -> RegularFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with storage_errors("close a file", self.path):
            filesystem().close(self._descriptor)


def read_blocks(path: Path) -> Iterator[memoryview]:
    """The content of a regular file in blocks; each is valid until the next is asked for. Raises StorageError."""
    with RegularFile(path) as file:
        buffer = memoryview(bytearray(min(BLOCK_BYTES, max(1, file.num_bytes))))
        while count := file.read_some(buffer):
            yield buffer[:count]


def hash_file(path: Path, algorithm: str = DEFAULT_HASH) -> FileRecord:
    """Size and hash of a file as it is now. Raises StorageError."""
    with RegularFile(path, algorithm) as file:
        buffer = memoryview(bytearray(min(BLOCK_BYTES, max(1, file.num_bytes))))
        while file.read_some(buffer):
            pass
    return file.record


def read_bytes(path: Path, *, max_bytes: int = 1 << 28) -> bytes:
    """The content of a regular file. Raises StorageError, and IntegrityError when it is larger than ``max_bytes``."""
    content = bytearray()
    for block in read_blocks(path):
        content += block
        if len(content) > max_bytes:
            raise IntegrityError(f"file is larger than the {max_bytes} bytes allowed", where=str(path), remedy="restore it from a copy")
    return bytes(content)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def parse_json(data: bytes, path: Path) -> Any:
    """JSON, strictly: UTF-8, no NaN, bounded depth. Raises IntegrityError naming ``path``."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"not valid JSON ({error})", where=str(path), remedy="restore the file from a copy or build it again"
        ) from error


def read_json(path: Path, *, max_bytes: int = 1 << 28) -> Any:
    """The value of a JSON file. Raises StorageError, IntegrityError."""
    return parse_json(read_bytes(path, max_bytes=max_bytes), path)
