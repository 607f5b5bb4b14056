"""Names that point at a sibling: relative symbolic links, or small pointer files where the system has no links.

A pointer is a hint for people and tools, never the truth: readers verify what it names.
"""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from pathlib import Path

from llm_training.storage.durable import sync_directory, temporary_beside, write_bytes
from llm_training.storage.filesystem import READ_FLAGS, filesystem
from llm_training.storage.oserrors import storage_errors

# What systems and file systems without symbolic links answer (FAT, some network shares, Windows without the privilege).
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_WINDOWS_PRIVILEGE_NOT_HELD = 1314
_MAX_POINTER_BYTES = 256


def is_plain_name(name: str) -> bool:
    """True when ``name`` is one path component that stays where it is put: no separators, no ``..``, nothing unprintable."""
    return (
        bool(name)
        and name not in (".", "..")
        and len(name.encode("utf-8", "replace")) <= 255
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
    )


def replace_symlink(path: Path, target: str) -> None:
    """Make ``path`` point at its sibling ``target``, durably and atomically; a pointer file where links are impossible.

    Raises ValueError when ``target`` is not a plain name, StorageError when the disk refuses or a directory has that name.
    """
    if not is_plain_name(target):
        raise ValueError(f"a pointer names a sibling, not {target!r}")
    temporary = temporary_beside(path)
    with storage_errors(f"point {path.name} at {target}", path):
        try:
            filesystem().symlink(target, temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS and getattr(error, "winerror", None) != _WINDOWS_PRIVILEGE_NOT_HELD:
                raise
            write_bytes(path, f"{target}\n".encode())
            return
        try:
            filesystem().replace(temporary, path)
        except OSError:
            with suppress(OSError):
                filesystem().unlink(temporary)
            raise
    sync_directory(path.parent)


def read_pointer(path: Path) -> str | None:
    """The sibling that ``path`` names; None when it is missing, damaged, a directory, or points out of its directory."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = str(path.readlink())
        elif stat.S_ISREG(mode):
            target = _read_small(path)
        else:
            return None
    except (OSError, ValueError):
        return None
    return target if is_plain_name(target) else None


def _read_small(path: Path) -> str:
    descriptor = filesystem().open(path, READ_FLAGS)
    try:
        buffer = bytearray(_MAX_POINTER_BYTES)
        count = filesystem().readinto(descriptor, buffer)
    finally:
        filesystem().close(descriptor)
    return bytes(buffer[:count]).decode("ascii").removesuffix("\n")


def is_pointer(path: Path) -> bool:
    """True when ``path`` is a link or a pointer file, so that it may be replaced; false for directories and other files."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISLNK(mode) or read_pointer(path) is not None
