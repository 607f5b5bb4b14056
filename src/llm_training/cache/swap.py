"""Exchanging a whole store for one that was built beside it, under readers.

    store/<dataset>                the store
    store/.<dataset>.rebuilding    a new one being built; whoever builds next goes on with it
    store/.<dataset>.replaced      what is on its way out: whenever there is a store, this may go

Where the system can exchange two names in one step, there is a store at every moment. Elsewhere two renames leave a moment
without one, in which (and after a crash in it) readers find the new store under its old name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from llm_training.storage.durable import remove_tree, rename, sync_directory
from llm_training.storage.faults import crash_point
from llm_training.storage.oserrors import storage_errors

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What a kernel or file system answers that has no exchange.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


def beside(directory: Path) -> Path:
    """Where a forced rebuild builds."""
    return directory.with_name(f".{directory.name}.rebuilding")


def replaced(directory: Path) -> Path:
    """Where a store goes to be removed."""
    return directory.with_name(f".{directory.name}.replaced")


def settled(directory: Path) -> Path:
    """Where the content of ``directory`` is now: under its own name, or in the middle of a swap under another."""
    if directory.exists() or not replaced(directory).exists():
        return directory
    # The swap began, so the new store was complete.
    return next((place for place in (beside(directory), replaced(directory)) if place.exists()), directory)


def mark_of(directory: Path) -> tuple[int, int] | None:
    """Tells a directory from another that takes its name; None when there is none."""
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def directories_with(folder: Path, name: str) -> list[Path]:
    """Directories in ``folder`` that hold the file ``name``, by name; also one that a swap has no directory of just now."""
    found = {path.parent for path in folder.glob(f"*/{name}") if not path.parent.name.startswith(".")}
    swapped = {path.with_name(path.name[1:].removesuffix(".replaced")) for path in folder.glob(".*.replaced")}
    return sorted(found | {path for path in swapped if (settled(path) / name).exists()})


def recover(directory: Path) -> None:
    """Finish a swap that a crash interrupted; needs the lock. Raises StorageError."""
    if not directory.exists():
        place = settled(directory)
        if place != directory:
            rename(place, directory)
    if replaced(directory).exists():
        remove_tree(replaced(directory))


def swap(directory: Path) -> None:
    """Put the store that was built beside in place, and remove the old one; needs the lock. Raises StorageError."""
    new, old = beside(directory), replaced(directory)
    crash_point("cache.before_swap")
    # Once exchanged, the old store must not lie where the next rebuild would go on with it.
    rename(new, old)
    crash_point("cache.in_swap")
    if not _exchange(directory, old):
        rename(old, new)
        rename(directory, old)
        crash_point("cache.in_swap")
        rename(new, directory)
    crash_point("cache.after_swap")
    remove_tree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one directory in one step; False where that is not possible. Raises StorageError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    with storage_errors(f"exchange with {other.name}", one):
        if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
            number = ctypes.get_errno()
            if number in _UNSUPPORTED:
                return False
            raise OSError(number, os.strerror(number))
    sync_directory(one.parent)
    return True
