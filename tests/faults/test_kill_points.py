"""S-5, S-14: a real SIGKILL at every named point of save, async save and retention."""

from __future__ import annotations

import multiprocessing
import re
import signal
import time
from pathlib import Path

import pytest

from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.store import CheckpointStore
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.faults import FAULT_VARIABLE, forget_visits
from tests.faults.test_power_loss import assert_whole, snapshot

SAVE_POINTS = (
    "ckpt.before_model",
    "ckpt.after_model",
    "ckpt.after_optimizer",
    "ckpt.before_manifest",
    "ckpt.after_manifest",
    "ckpt.after_rename",
    "ckpt.before_latest",
    "ckpt.after_latest",
)
RETENTION_POINTS = ("retention.before_manifest", "retention.after_manifest", "retention.after_rename")
COMMITTED_FROM = "ckpt.after_rename"

_fork = multiprocessing.get_context("fork")


def save_one(root: Path, step: int, is_async: bool) -> None:
    store = CheckpointStore(root, retention=RetentionPolicy(save_total_limit=2))
    if is_async:
        store.save_async(snapshot(step))
        store.wait()
    else:
        store.save(snapshot(step))


def run_and_die(root: Path, step: int, is_async: bool) -> None:
    child = _fork.Process(target=save_one, args=(root, step, is_async))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "background"])
@pytest.mark.parametrize("point", [*SAVE_POINTS, *RETENTION_POINTS])
def test_a_kill_at_this_point_costs_at_most_the_checkpoint_being_saved(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, is_async: bool
) -> None:
    for step in (1, 2):
        save_one(memory_path, step, False)
    monkeypatch.setenv(FAULT_VARIABLE, f"{point}:kill")
    forget_visits()
    run_and_die(memory_path, 3, is_async)
    monkeypatch.delenv(FAULT_VARIABLE)
    store = CheckpointStore(memory_path)
    ref = store.find()
    assert ref is not None
    points = (*SAVE_POINTS, *RETENTION_POINTS)
    assert ref.step == (3 if points.index(point) >= points.index(COMMITTED_FROM) else 2)
    assert_whole(store, ref.step)
    save_one(memory_path, 4, is_async)
    assert [found.step for found in CheckpointStore(memory_path).list_valid()] == [4, ref.step]
    assert not [entry.name for entry in memory_path.iterdir() if entry.name.startswith((".tmp-", ".removed-"))]


def test_a_kill_while_the_former_checkpoint_of_the_step_stands_aside(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CheckpointStore(memory_path).save(snapshot(3, value=1.0))
    monkeypatch.setenv(FAULT_VARIABLE, "ckpt.after_displacing:kill")
    run_and_die(memory_path, 3, False)
    monkeypatch.delenv(FAULT_VARIABLE)
    ref = CheckpointStore(memory_path).find(strict=True)
    assert ref is not None and ref.path.name == "step-00000003"
    assert_whole(CheckpointStore(memory_path), 3, 1.0)


def test_a_kill_after_the_copy_saves_nothing(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_one(memory_path, 1, False)
    monkeypatch.setenv(FAULT_VARIABLE, "ckpt.after_copy:kill")
    run_and_die(memory_path, 2, True)
    assert [ref.step for ref in CheckpointStore(memory_path).list_valid()] == [1]


def test_every_point_of_the_sources_is_killed_here() -> None:
    sources = Path(__file__).parents[2] / "src" / "llm_training" / "checkpoint"
    points = {point for source in sources.glob("*.py") for point in re.findall(r'crash_point\("([^"]+)"\)', source.read_text())}
    assert points == {*SAVE_POINTS, *RETENTION_POINTS, "ckpt.after_copy", "ckpt.after_displacing"}


def append_for_ever(path: Path) -> None:
    with JsonlAppender(path) as log:
        start = sum(1 for _ in read_jsonl(path))
        for number in range(start, 10**9):
            log.append({"step": number, "text": "é" * (number % 50)})


@pytest.mark.slow
def test_300_kills_of_a_writer_leave_a_log_without_a_hole(memory_path: Path) -> None:
    path = memory_path / "metrics.jsonl"
    for kill in range(300):
        child = _fork.Process(target=append_for_ever, args=(path,))
        before = path.stat().st_size if path.exists() else 0
        child.start()
        if kill % 2:  # at its first records, however long the machine takes to start a process; else somewhere in its start
            give_up = time.monotonic() + 10
            while (path.stat().st_size if path.exists() else 0) == before and time.monotonic() < give_up:
                time.sleep(0.0002)
        time.sleep((kill % 7) / 2000)
        child.kill()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    steps = [record["step"] for record in read_jsonl(path)] if path.exists() else []
    assert steps == list(range(len(steps)))
    assert len(steps) >= 150
    print(f"{len(steps)} records after 300 kills")
