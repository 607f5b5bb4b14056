"""A file system whose n-th call fails, for n = 1 and on until a run is clean (SQLite's sweep)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_training.errors import StorageError
from llm_training.storage.filesystem import FileSystem, installed

KINDS = ("EIO", "ENOSPC", "EINTR", "short write")
_COUNTED = (
    "open",
    "open_directory",
    "write",
    "readinto",
    "fsync",
    "truncate",
    "close",
    "replace",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "symlink",
)


class FailingFileSystem(FileSystem):
    """Fails call number ``at``; a failing close still closes, as the system's does."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind = kind
        self.at = at
        self.calls = 0
        self.failed_in = ""

    def _is_due(self, name: str) -> bool:
        if (name == "write") if self.kind == "short write" else (name in _COUNTED):
            self.calls += 1
            if self.calls == self.at:
                self.failed_in = name
                return True
        return False

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in _COUNTED:
            return method

        def call(*args: Any) -> Any:
            if not self._is_due(name):
                return method(*args)
            if self.kind == "short write":
                descriptor, data = args
                return method(descriptor, memoryview(data)[: max(1, len(data) // 2)])
            if name == "close":
                method(*args)
            number = getattr(errno, self.kind)
            raise OSError(number, os.strerror(number))

        return call


def sweep(
    kind: str,
    prepare: Callable[[], Path],
    action: Callable[[Path], None],
    check_after: Callable[[Path], None],
    check_done: Callable[[Path], None],
) -> int:
    """Run ``action`` with each of its calls failing once; returns how many there are.

    After a failure ``check_after`` looks at what is there, and the action, run again, must end as ``check_done`` wants.
    """
    for number in range(1, 10_000):
        place = prepare()
        failing = FailingFileSystem(kind, number)
        with installed(failing):
            try:
                action(place)
                raised = False
            except StorageError as error:
                assert error.exit_code == 5
                raised = True
        if not failing.failed_in:
            assert not raised
            check_done(place)
            return number - 1
        if kind == "short write":
            assert not raised, "a short write is carried on with"
            check_done(place)
            continue
        check_after(place)
        action(place)
        check_done(place)
    pytest.fail("the sweep does not end")
