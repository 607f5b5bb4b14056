"""One writer per run, cache or tokenizer: a lock file that names its holder.

Two independent marks must both be free. The system's own record lock dies with its process, is not inherited by forked
children and cannot be stale; the text in the file (process, its start time, host) holds where record locks do not work
and tells the next comer whom to ask. File times are never looked at: clocks lie.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import psutil

from llm_training.errors import LockedError
from llm_training.storage.durable import make_directory, write_all
from llm_training.storage.filesystem import BINARY, CLOSE_ON_EXEC, NO_FOLLOW, NON_BLOCKING, filesystem
from llm_training.storage.oserrors import storage_errors

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | NO_FOLLOW | CLOSE_ON_EXEC | BINARY | NON_BLOCKING
_MAX_HOLDER_BYTES = 4096
_POLL_SECONDS = 0.05

# Record locks are per process: they do not keep a second FileLock of this process out, so these are counted here.
_held: dict[Path, int] = {}
_held_lock = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. ``start`` and ``boot`` tell a process from a later one that got the same number."""

    pid: int
    start: str
    boot: str
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def _boot_mark() -> str:
    """Identifies this boot of the machine; empty where the system has no such mark."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When the process began, in the system's own unit; None when it is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        pass
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def current_holder() -> Holder:
    """This process, as a holder."""
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return Holder(pid=pid, start=process_start(pid) or "", boot=_boot_mark(), host=socket.gethostname(), since=since)


def is_alive(holder: Holder) -> bool:
    """False only when it is certain that the holder is gone: same host, and rebooted or no such process."""
    if holder.host != socket.gethostname():
        return True
    boot = _boot_mark()
    if boot and holder.boot and boot != holder.boot:
        return False
    return process_start(holder.pid) == holder.start


def _is_this_process(holder: Holder) -> bool:
    return (holder.pid, holder.start, holder.host) == (os.getpid(), process_start(os.getpid()), socket.gethostname())


def _parse_holder(text: bytes) -> Holder | None:
    """The holder written in a lock file; None when it is empty or torn, which a dead writer leaves."""
    try:
        content = cast("dict[str, Any]", json.loads(text))
        return Holder(
            int(content["pid"]), str(content["start"]), str(content["boot"]), str(content["host"])[:255], str(content["since"])[:32]
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


if sys.platform == "win32":
    import msvcrt

    def _try_record_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far past the text, which others must be able to read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_record_lock(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True


class FileLock:
    """Holds ``path`` for this process while the block runs.

    Args:
        path: the lock file; it exists only while somebody holds it, or died holding it.
        what: the thing that is locked, for the message: ``the run runs/a``.
        wait_seconds: how long entering the block waits for the holder; for locks that are held for moments.
    """

    def __init__(self, path: Path, *, what: str = "", wait_seconds: float = 0.0) -> None:
        self.path = path.parent.resolve() / path.name
        self._what = what or str(path)
        self._wait_seconds = wait_seconds
        self._descriptor: int | None = None
        self._pid = 0

    def acquire(self) -> None:
        """Take the lock at once or not at all. Raises LockedError naming the holder, StorageError."""
        make_directory(self.path.parent)
        with _held_lock:
            if _held.get(self.path) == os.getpid():
                raise self._locked(current_holder())
            while self._descriptor is None:
                self._descriptor = self._try_open()
            _held[self.path] = self._pid = os.getpid()

    def _try_open(self) -> int | None:
        """A locked descriptor with our name in it; None when the file was removed by a leaving holder meanwhile."""
        with storage_errors("take a lock", self.path):
            descriptor = filesystem().open(self.path, _LOCK_FLAGS, 0o600)
            try:
                text = os.read(descriptor, _MAX_HOLDER_BYTES)
                if not _try_record_lock(descriptor):
                    raise self._locked(_parse_holder(text))
                if not self._is_current(descriptor):
                    filesystem().close(descriptor)
                    return None
                os.lseek(descriptor, 0, os.SEEK_SET)
                holder = _parse_holder(os.read(descriptor, _MAX_HOLDER_BYTES))
                if holder is not None and is_alive(holder) and not _is_this_process(holder):  # ours: a release that the disk refused
                    raise self._locked(holder)
                filesystem().truncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                write_all(descriptor, memoryview(json.dumps(asdict(current_holder())).encode("ascii")))
            except BaseException:
                filesystem().close(descriptor)
                raise
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _locked(self, holder: Holder | None) -> LockedError:
        remedy = "wait for it or stop it"
        if holder is not None and holder.host != socket.gethostname():
            remedy = f"wait for it or stop it; if it is gone, remove {self.path}"
        return LockedError(f"{self._what} is in use by {holder or 'another process'}", where=str(self.path), remedy=remedy)

    def release(self) -> None:
        """Let go; nothing happens when it is not held by this process. Raises StorageError."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with storage_errors("release a lock", self.path):
            try:
                if self._pid == os.getpid():  # a forked child owns a copy of this object, not the lock
                    with _held_lock:
                        _held.pop(self.path, None)
                    if self._is_current(descriptor):
                        filesystem().unlink(self.path)
            finally:
                filesystem().close(descriptor)

    def __enter__(self) -> FileLock:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                self.acquire()
                return self
            except LockedError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
