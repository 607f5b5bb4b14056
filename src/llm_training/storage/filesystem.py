"""The operating system calls that artefacts are written with, one method each.

It is a seam, not an abstraction: tests install a subclass that records calls (crash states) or makes the n-th one fail
(fault sweep). Scanning and ``lstat`` are not here: a reader that only looks cannot damage anything.
The active object is process-wide rather than an argument, so that a test reaches the writers of every room and the
background threads they start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# Flags that exist only on some systems; 0 leaves the call as it is elsewhere.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
BINARY = getattr(os, "O_BINARY", 0)
NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO that someone planted must not hang

CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | CLOSE_ON_EXEC | BINARY
READ_FLAGS = os.O_RDONLY | NO_FOLLOW | CLOSE_ON_EXEC | BINARY | NON_BLOCKING
APPEND_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_FOLLOW | CLOSE_ON_EXEC | BINARY | NON_BLOCKING

CAN_SYNC_DIRECTORIES = sys.platform != "win32"  # Windows cannot open a directory; NTFS journals its entries itself


class FileSystem:
    """The real calls. Every method raises OSError as the system does; callers translate."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """Open a file and return its descriptor."""
        return os.open(path, flags, mode)

    def open_directory(self, path: Path) -> int:
        """Open a directory, for `fsync` only."""
        return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | CLOSE_ON_EXEC)

    def write(self, descriptor: int, data: ReadableBuffer) -> int:
        """Write some of ``data`` and return how many bytes went out, which may be fewer than given."""
        return os.write(descriptor, data)

    def readinto(self, descriptor: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` from the current offset; 0 means end of file."""
        if sys.platform == "win32":
            view = memoryview(buffer).cast("B")
            data = os.read(descriptor, len(view))
            view[: len(data)] = data
            return len(data)
        return os.readv(descriptor, [buffer])

    def fsync(self, descriptor: int) -> None:
        """Wait until the content of a file, or the entries of a directory, are on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to ``size`` bytes."""
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        """Give a descriptor back."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file or link over whatever file or link has the target's name, atomically."""
        source.replace(target)

    def rename(self, source: Path, target: Path) -> None:
        """Rename to a name that must be free (an empty directory counts as free)."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a file or a link."""
        path.unlink()

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        """Make one directory."""
        path.mkdir(mode)

    def rmdir(self, path: Path) -> None:
        """Remove one empty directory."""
        path.rmdir()

    def symlink(self, target: str, path: Path) -> None:
        """Make a symbolic link at ``path`` that holds ``target`` as its text."""
        path.symlink_to(target)


_REAL = FileSystem()
_active: FileSystem = _REAL


def filesystem() -> FileSystem:
    """The object every writer of this package uses now."""
    return _active


@contextmanager
def installed(replacement: FileSystem) -> Generator[FileSystem]:
    """Use ``replacement`` in the whole process while the block runs; for tests."""
    global _active
    previous = _active
    _active = replacement
    try:
        yield replacement
    finally:
        _active = previous
