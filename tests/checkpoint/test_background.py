"""S-14: saving while training goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from llm_training.checkpoint.background import BackgroundWorker
from llm_training.checkpoint.load import load_model_tensors
from llm_training.checkpoint.snapshot import Snapshot
from llm_training.checkpoint.store import CheckpointStore
from llm_training.errors import StorageError
from llm_training.storage.faults import FAULT_VARIABLE, forget_visits
from tests.checkpoint.samples import assert_holds, snapshot


def test_the_weights_are_those_of_the_save_step_whatever_happens_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT_VARIABLE, "ckpt.before_model:sleep=0.05")
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        given = snapshot(step)
        state = dict(given.state)
        store.save_async(given)
        for tensor in (*given.model_tensors.values(), *given.optimizer_tensors.values()):
            tensor.zero_()
        given.state["step"] = -1  # type: ignore[index]
        assert store.wait()[0].step == step
        ref = store.find()
        assert ref is not None and ref.step == step
        assert_holds(ref, snapshot(step))
        assert state["step"] == step


def test_a_failure_surfaces_at_the_next_call_and_only_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    store.save_async(snapshot(1))
    store.wait()
    for call in ("save_async", "save", "wait", "collect"):
        monkeypatch.setenv(FAULT_VARIABLE, "ckpt.after_model:raise")
        store.save_async(snapshot(2))
        while store.is_saving:
            time.sleep(0.001)
        monkeypatch.delenv(FAULT_VARIABLE)
        with pytest.raises(StorageError, match="injected fault"):
            getattr(store, call)(*([snapshot(3)] if call.startswith("save") else []))
        assert [ref.step for ref in store.list_valid()] == [1]
    assert store.wait() == []
    store.save_async(snapshot(4))
    assert [report.step for report in store.wait()] == [4]


def test_at_most_one_save_is_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT_VARIABLE, "ckpt.before_model:sleep=0.3")
    store = CheckpointStore(tmp_path)
    first = store.save_async(snapshot(1))
    assert store.is_saving
    second = store.save_async(snapshot(2))
    assert first < second and second > 0.15
    store.save(snapshot(3))
    assert [report.step for report in store.collect()] == [1, 2]
    assert [ref.step for ref in store.list_valid()] == [3, 2, 1]


def test_reports_say_what_was_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT_VARIABLE, "ckpt.before_model:sleep=0.3")
    store = CheckpointStore(tmp_path)
    stall = store.save_async(snapshot(1, loss=1.0, labels=("final",)))
    assert store.collect() == []
    (report,) = store.wait()
    assert report.stall_seconds == stall < report.write_seconds and report.write_seconds >= 0.3
    assert report.labels == ("final",) and report.is_best and report.path.name == "step-00000001"
    assert store.save(snapshot(2)).stall_seconds >= 0.3


def test_a_program_that_ends_normally_ends_after_its_save(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from llm_training.checkpoint.store import CheckpointStore
from llm_training.checkpoint.snapshot import Snapshot
import torch
CheckpointStore(Path({str(tmp_path)!r})).save_async(Snapshot(step=1, model_tensors={{"w": torch.ones(3)}}, config={{}}))
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", FAULT_VARIABLE: "ckpt.before_manifest:sleep=0.3"},
    )
    assert [ref.step for ref in CheckpointStore(tmp_path).list_valid()] == [1]


def test_the_stall_is_one_copy_and_not_the_write(tmp_path: Path) -> None:
    """90 MB, as the default model has with its optimizer: generous against a busy machine, far below the write itself."""
    tensors = {f"w{k}": torch.randn(750_000) for k in range(10)}
    moments = {f"m{k}": torch.randn(1_500_000) for k in range(10)}
    store = CheckpointStore(tmp_path)
    stalls = []
    for step in range(4):
        stalls.append(store.save_async(Snapshot(step=step, model_tensors=tensors, optimizer_tensors=moments, config={})))
        (report,) = store.wait()
    print(f"stall {min(stalls) * 1000:.0f} ms, write {report.write_seconds * 1000:.0f} ms, {report.num_bytes / 1e6:.0f} MB")
    assert min(stalls[1:]) < 0.15
    ref = store.find()
    assert ref is not None and torch.equal(load_model_tensors(ref)["w3"], tensors["w3"])


def test_jobs_follow_each_other_and_a_failure_is_told_once() -> None:
    worker: BackgroundWorker[str] = BackgroundWorker("test")
    worker.submit(lambda: threading.current_thread().name)
    worker.submit(lambda: "second")
    worker.wait()
    assert worker.collect() == ["test", "second"] and worker.collect() == []
    worker.submit(lambda: str(1 // 0))
    with pytest.raises(ZeroDivisionError):
        worker.wait()
    worker.wait()
    assert worker.collect() == []


@pytest.fixture(autouse=True)
def fresh_counts() -> None:
    forget_visits()
