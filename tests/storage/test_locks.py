from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from llm_training.errors import LockedError, StorageError
from llm_training.storage.locks import FileLock, Holder, current_holder, is_alive, process_start

_fork = multiprocessing.get_context("fork")


def hold(path: Path, is_held: Event, may_go: Event) -> None:
    with FileLock(path):
        is_held.set()
        may_go.wait(30)


def start_holder(path: Path) -> tuple[multiprocessing.process.BaseProcess, Event]:
    is_held, may_go = _fork.Event(), _fork.Event()
    child = _fork.Process(target=hold, args=(path, is_held, may_go))
    child.start()
    assert is_held.wait(30)
    return child, may_go


def write_holder(path: Path, **changes: object) -> None:
    holder = current_holder()
    path.write_text(
        json.dumps({"pid": holder.pid, "start": holder.start, "boot": holder.boot, "host": holder.host, "since": holder.since} | changes)
    )


def test_the_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    child, may_go = start_holder(tmp_path / "run.lock")
    with pytest.raises(LockedError, match=rf"the run is in use by process {child.pid} on {socket.gethostname()}, since 20") as caught:
        FileLock(tmp_path / "run.lock", what="the run").acquire()
    assert caught.value.exit_code == 9
    may_go.set()
    child.join(30)
    with FileLock(tmp_path / "run.lock"):
        pass
    assert not (tmp_path / "run.lock").exists()


def test_a_lock_that_is_held_for_moments_is_waited_for(tmp_path: Path) -> None:
    child, may_go = start_holder(tmp_path / "view.lock")
    with pytest.raises(LockedError), FileLock(tmp_path / "view.lock", wait_seconds=0.1):
        pass
    threading.Timer(0.2, may_go.set).start()
    with FileLock(tmp_path / "view.lock", wait_seconds=30):
        assert may_go.is_set()
    child.join(30)


def test_a_killed_holder_is_taken_over_even_before_it_is_reaped(tmp_path: Path) -> None:
    child, _ = start_holder(tmp_path / "run.lock")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while process_start(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert (tmp_path / "run.lock").exists()
    with FileLock(tmp_path / "run.lock"):
        pass
    child.join(30)


def test_the_same_process_cannot_take_it_twice(tmp_path: Path) -> None:
    with FileLock(tmp_path / "run.lock"), pytest.raises(LockedError):
        FileLock(tmp_path / "." / "run.lock").acquire()
    with FileLock(tmp_path / "run.lock"):
        pass


def test_a_forked_child_neither_holds_nor_releases_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "run.lock")
    lock.acquire()
    child = _fork.Process(target=lock.release)
    child.start()
    child.join(30)
    assert (tmp_path / "run.lock").exists()
    other = _fork.Process(target=_expect_locked, args=(tmp_path / "run.lock",))
    other.start()
    other.join(30)
    assert other.exitcode == 0
    lock.release()
    lock.release()


def _expect_locked(path: Path) -> None:
    with pytest.raises(LockedError):
        FileLock(path).acquire()


@pytest.mark.parametrize(
    ("changes", "is_free"),
    [
        ({"pid": 2**22 + 7}, True),
        ({"start": "1"}, True),
        ({"boot": "another boot"}, True),
        ({"pid": os.getppid(), "start": process_start(os.getppid())}, False),
        ({"host": "elsewhere"}, False),
    ],
    ids=["dead", "number given again", "rebooted", "alive", "other host"],
)
def test_the_name_in_the_file_decides_where_record_locks_do_not_work(tmp_path: Path, changes: dict[str, object], is_free: bool) -> None:
    path = tmp_path / "run.lock"
    write_holder(path, **changes)
    for age in (0, 10**9):  # file times say nothing
        os.utime(path, (time.time() - age, time.time() - age))
        if is_free:
            with FileLock(path):
                pass
            write_holder(path, **changes)
        else:
            with pytest.raises(LockedError) as caught:
                FileLock(path).acquire()
            assert ("remove" in caught.value.remedy) == ("host" in changes)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 1}', "\x00" * 100, "[" * 4000])
def test_a_torn_lock_file_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.lock").write_text(content)
    with FileLock(tmp_path / "run.lock"):
        pass


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run.lock").symlink_to("victim")
    with pytest.raises(StorageError, match="symbolic link"):
        FileLock(tmp_path / "run.lock").acquire()
    assert (tmp_path / "victim").read_text() == "precious"


def contend(path: Path, counter: Path, rounds: int) -> None:
    for _ in range(rounds):
        while True:
            try:
                with FileLock(path):
                    counter.write_text(str(int(counter.read_text()) + 1))
                break
            except LockedError:
                time.sleep(0.0005)


def test_contenders_never_hold_it_together(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    children = [_fork.Process(target=contend, args=(tmp_path / "run.lock", tmp_path / "counter", 50)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert (tmp_path / "counter").read_text() == "200"


def test_a_holder_elsewhere_counts_as_alive() -> None:
    assert is_alive(Holder(1, "", "", "elsewhere", ""))
    assert is_alive(current_holder())
