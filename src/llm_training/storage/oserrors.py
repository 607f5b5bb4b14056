"""From an OSError to the one line a person can act on (`StorageError`, exit 5)."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from llm_training.errors import StorageError

# errno -> (what it means, what to do); others show the system's own text.
_CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("disk full", "free space and run again"),
    errno.EDQUOT: ("quota used up", "free space or raise the quota, then run again"),
    errno.EFBIG: ("the limit on file size is reached", "raise it (`ulimit -f`) and run again"),
    errno.EROFS: ("the file system is read-only", "choose a directory that can be written"),
    errno.EACCES: ("permission denied", "change the permissions or choose another directory"),
    errno.EPERM: ("operation not permitted", "change the owner or permissions, or choose another directory"),
    errno.EIO: ("input/output error", "check the disk, then run again"),
    errno.EINTR: ("interrupted", "run again"),
    errno.EMFILE: ("too many open files", "raise the limit (`ulimit -n`) and run again"),
    errno.ENFILE: ("too many open files on this machine", "close other programs and run again"),
    errno.ENOENT: ("no such file or directory", "check that it was not removed while the program ran"),
    errno.ENOTDIR: ("a part of the path is not a directory", "choose another path"),
    errno.EISDIR: ("a directory has that name", "move it away or choose another path"),
    errno.EEXIST: ("that name is taken", "move it away or choose another path"),
    errno.ENOTEMPTY: ("that directory is not empty", "move it away or choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("a symbolic link stands there", "remove the link or choose another path"),
}


def _text_of_size(num_bytes: int) -> str:
    """Bytes as a person reads them, in decimal units."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} bytes"


def free_bytes(path: Path) -> int | None:
    """Bytes free for this user on the file system of ``path`` (or of its nearest existing parent); None when unknown."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def to_storage_error(error: OSError, action: str, path: Path, needed_bytes: int = 0) -> StorageError:
    """The error to raise for a failed call.

    Args:
        error: what the system said.
        action: a verb with its object, as in ``write the manifest``.
        path: the file or directory meant.
        needed_bytes: size of the whole artefact when known; named when the disk is full.
    """
    cause, remedy = _CAUSES.get(error.errno or 0, (error.strerror or str(error), "check the path and the disk, then run again"))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(path)
        sizes = [f"{_text_of_size(free)} free"] if free is not None else []
        sizes += [f"{_text_of_size(needed_bytes)} needed"] if needed_bytes else []
        cause = f"{cause}: {', '.join(sizes)}" if sizes else cause
    return StorageError(f"cannot {action} ({cause})", where=str(path), remedy=remedy)


@contextmanager
def storage_errors(action: str, path: Path, needed_bytes: int = 0) -> Generator[None]:
    """Turn any OSError of the block into a `StorageError` about ``path``; see `to_storage_error`."""
    try:
        yield
    except OSError as error:
        raise to_storage_error(error, action, path, needed_bytes) from error


def require_free_space(path: Path, needed_bytes: int, purpose: str) -> None:
    """Refuse early when ``needed_bytes`` cannot fit on the file system of ``path``.

    A full disk is met anyway when it comes; this only says so before an hour of work rather than after.
    Raises StorageError naming both numbers.
    """
    free = free_bytes(path)
    if free is not None and free < needed_bytes:
        raise StorageError(
            f"not enough space for {purpose} (disk full: {_text_of_size(free)} free, {_text_of_size(needed_bytes)} needed)",
            where=str(path),
            remedy="free space, keep fewer checkpoints or choose another disk",
        )
