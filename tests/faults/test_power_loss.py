"""G-13: in every state that a power loss may leave, the newest committed artefact verifies, or the one before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_training.checkpoint.load import load_model_tensors, load_optimizer_tensors, load_state
from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.snapshot import Snapshot
from llm_training.checkpoint.store import CheckpointStore
from llm_training.errors import IntegrityError
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.directories import new_directory, remove_leftovers
from llm_training.storage.durable import write_bytes
from llm_training.storage.filesystem import installed
from llm_training.storage.links import read_pointer, replace_symlink
from llm_training.storage.manifest import verify, write_manifest
from tests.faults.crash_states import CrashState, Recorder

OLD, NEW = b"old" * 300, b"NEW!" * 300


def snapshot(step: int, *, loss: float | None = None, value: float | None = None, labels: tuple[str, ...] = ()) -> Snapshot:
    weight = torch.full((3, 5), float(step) if value is None else value)
    return Snapshot(
        step=step,
        model_tensors={"w": weight, "b": weight[0].to(torch.bfloat16)},
        config={"model_type": "gpt2"},
        tokenizer_files={"tokenizer.json": b"{}"},
        optimizer_tensors={"moment": weight * 2},
        state={"step": step, "validation_loss": loss, "value": float(weight[0, 0])},
        labels=labels,
    )


def assert_whole(store: CheckpointStore, step: int, value: float | None = None) -> None:
    ref = store.find(step)
    assert ref is not None
    wanted = snapshot(step, value=value)
    model = load_model_tensors(ref)
    assert set(model) == set(wanted.model_tensors)
    assert all(torch.equal(model[name], tensor) for name, tensor in wanted.model_tensors.items())
    assert torch.equal(load_optimizer_tensors(ref)["moment"], wanted.optimizer_tensors["moment"])
    assert load_state(ref)["value"] == wanted.state["value"]


def explore(
    place: Path, setup: Callable[[Path], None], action: Callable[[Path, Recorder], None], check: Callable[[Path, CrashState], None]
) -> int:
    """Record ``action`` after ``setup``, then run ``check`` on every state, rebuilt in a directory of its own."""
    root = place / "recorded"
    root.mkdir()
    setup(root)
    recorder = Recorder(root)
    with installed(recorder):
        action(root, recorder)
        recorder.mark("returned")
    count = 0
    for state in recorder.states():
        rebuilt = place / "state"
        state.build(rebuilt)
        try:
            check(rebuilt, state)
        except BaseException as error:
            error.add_note(
                f"crash after {state.length} of {len(recorder.operations)} operations, reached {sorted(state.reached)}: {state.tree}"
            )
            raise
        shutil.rmtree(rebuilt)
        count += 1
    print(f"{len(recorder.operations)} operations, {count} crash states")
    return count


def test_a_file_over_an_old_one_is_the_old_or_the_new_one(memory_path: Path) -> None:
    def check(root: Path, state: CrashState) -> None:
        content = (root / "file").read_bytes()
        assert content == NEW if "returned" in state.reached else content in (OLD, NEW)
        remove_leftovers(root)
        write_bytes(root / "file", NEW)
        assert [entry.name for entry in root.iterdir()] == ["file"]

    count = explore(
        memory_path, lambda root: write_bytes(root / "file", OLD) and None, lambda root, _: write_bytes(root / "file", NEW) and None, check
    )
    assert count >= 6


def test_a_new_file_is_absent_or_whole(memory_path: Path) -> None:
    def check(root: Path, state: CrashState) -> None:
        path = root / "file"
        assert path.read_bytes() == NEW if path.exists() else "returned" not in state.reached

    assert explore(memory_path, lambda root: None, lambda root, _: write_bytes(root / "file", NEW) and None, check) >= 6


def test_a_pointer_names_the_old_or_the_new_target(memory_path: Path) -> None:
    def check(root: Path, state: CrashState) -> None:
        assert read_pointer(root / "latest") in (("b",) if "returned" in state.reached else ("a", "b"))

    assert (
        explore(
            memory_path, lambda root: replace_symlink(root / "latest", "a"), lambda root, _: replace_symlink(root / "latest", "b"), check
        )
        >= 3
    )


def build_artefact(root: Path, content: bytes) -> None:
    with new_directory(root / "artefact") as builder:
        builder.write_bytes("one", content)
        builder.write_bytes("inner/two", content * 2)
        builder.seal({})
        builder.publish()


def test_a_directory_artefact_is_absent_or_verifies(memory_path: Path) -> None:
    def check(root: Path, state: CrashState) -> None:
        if (root / "artefact").exists():
            verify(root / "artefact")
        else:
            assert "returned" not in state.reached
            remove_leftovers(root)
            build_artefact(root, NEW)
            verify(root / "artefact")

    assert explore(memory_path, lambda root: None, lambda root, _: build_artefact(root, NEW), check) >= 20


def test_a_growing_directory_never_lists_what_is_not_there(memory_path: Path) -> None:
    """As a cache grows: a chunk is written, then the manifest over the old one."""

    def grow(root: Path, count: int) -> None:
        records = {f"chunk{k}": write_bytes(root / f"chunk{k}", bytes([k]) * 700) for k in range(count)}
        write_manifest(root, records, extra={"count": count})

    def action(root: Path, recorder: Recorder) -> None:
        grow(root, 2)
        recorder.mark("two")
        grow(root, 3)

    def check(root: Path, state: CrashState) -> None:
        count = verify(root).extra["count"]
        low = 3 if "returned" in state.reached else 2 if "two" in state.reached else 1
        assert count >= low

    assert explore(memory_path, lambda root: grow(root, 1), action, check) >= 30


def test_saving_keeps_the_checkpoint_before_until_the_new_one_verifies(memory_path: Path) -> None:
    def action(root: Path, recorder: Recorder) -> None:
        CheckpointStore(root).save(snapshot(2, loss=1.0, labels=("epoch-1",)))

    def check(root: Path, state: CrashState) -> None:
        store = CheckpointStore(root)
        ref = store.find(strict="returned" in state.reached)  # nothing damaged may be visible once the save returned
        assert ref is not None
        assert ref.step == 2 or "returned" not in state.reached
        assert_whole(store, ref.step)
        if state.length % 7 == 0:
            store.save(snapshot(3))
            assert_whole(store, 3)
            assert not list(root.glob(".tmp-*"))

    count = explore(memory_path, lambda root: CheckpointStore(root).save(snapshot(1, loss=2.0)) and None, action, check)
    assert count >= 300


def test_the_very_first_save_is_absent_or_whole_and_never_half(memory_path: Path) -> None:
    def check(root: Path, state: CrashState) -> None:
        store = CheckpointStore(root)
        ref = store.find()
        if ref is None:
            assert "returned" not in state.reached
        else:
            assert_whole(store, 1)

    assert explore(memory_path, lambda root: None, lambda root, _: CheckpointStore(root).save(snapshot(1)) and None, check) >= 300


def test_saving_a_step_again_keeps_the_former_one_until_then(memory_path: Path) -> None:
    def check(root: Path, state: CrashState) -> None:
        store = CheckpointStore(root)
        ref = store.find(strict=True)
        assert ref is not None
        assert ref.step == 1
        value = load_state(ref)["value"]
        assert value == 9.0 if "returned" in state.reached else value in (1.0, 9.0)
        assert_whole(store, 1, value)

    count = explore(
        memory_path,
        lambda root: CheckpointStore(root).save(snapshot(1)) and None,
        lambda root, _: CheckpointStore(root).save(snapshot(1, value=9.0)) and None,
        check,
    )
    assert count >= 300


@pytest.mark.slow
def test_retention_leaves_the_newest_the_best_and_the_protected_one(memory_path: Path) -> None:
    losses = {1: 3.0, 2: 1.0, 3: 2.5, 4: 2.0, 5: 2.2}

    def setup(root: Path) -> None:
        for step, loss in losses.items():
            CheckpointStore(root).save(snapshot(step, loss=loss))

    def prune(root: Path) -> None:
        store = CheckpointStore(root, retention=RetentionPolicy(save_total_limit=3))
        store.protect(3)
        store.prune()

    def check(root: Path, state: CrashState) -> None:
        steps = {ref.step for ref in CheckpointStore(root).list_valid()}
        assert {2, 3, 5} <= steps
        prune(root)  # what was cut short is finished by the next run
        assert {ref.step for ref in CheckpointStore(root).list_valid()} == {2, 3, 5}
        assert not list(root.glob(".removed-*"))
        for step in (2, 3, 5):
            assert_whole(CheckpointStore(root), step)

    assert explore(memory_path, setup, lambda root, _: prune(root), check) >= 100


@pytest.mark.parametrize("fsync", [True, False])
def test_a_log_loses_at_most_what_was_not_synced(memory_path: Path, fsync: bool) -> None:
    records: list[dict[str, Any]] = [{"step": step, "text": "x" * 200} for step in range(6)]

    def action(root: Path, recorder: Recorder) -> None:
        log = JsonlAppender(root / "log.jsonl", fsync=fsync)
        for step in (3, 4, 5):
            log.append(records[step])
            recorder.mark(f"step {step}")
        log.close()

    def setup(root: Path) -> None:
        with JsonlAppender(root / "log.jsonl", fsync=True) as log:
            for record in records[:3]:
                log.append(record)

    def check(root: Path, state: CrashState) -> None:
        path = root / "log.jsonl"
        count = len(list(read_jsonl(path)))
        with JsonlAppender(path) as log:
            log.append({"step": "next"})
        found = list(read_jsonl(path))
        certain = 3 + sum(name.startswith("step") for name in state.reached) if fsync else 3
        assert len(found) == count + 1 and count >= certain
        assert found == [*records[:count], {"step": "next"}]

    assert explore(memory_path, setup, action, check) >= 10


def test_the_simulation_finds_a_protocol_without_syncs(memory_path: Path) -> None:
    """The enumerator must be able to fail: write and rename without fsync is the classic that loses both files."""

    def careless(root: Path, recorder: Recorder) -> None:
        descriptor = recorder.open(root / "new", 0o101)  # O_WRONLY | O_CREAT
        recorder.write(descriptor, NEW)
        recorder.close(descriptor)
        recorder.replace(root / "new", root / "file")

    def check(root: Path, state: CrashState) -> None:
        assert (root / "file").read_bytes() in (OLD, NEW)

    with pytest.raises(AssertionError):
        explore(memory_path, lambda root: write_bytes(root / "file", OLD) and None, careless, check)


def test_the_simulation_finds_a_manifest_written_before_its_files(memory_path: Path) -> None:
    def careless(root: Path, recorder: Recorder) -> None:
        record = write_bytes(root / "chunk", NEW)
        (root / "chunk").unlink()
        recorder._removed(root / "chunk")
        write_manifest(root, {"chunk": record})
        write_bytes(root / "chunk", NEW)

    with pytest.raises(IntegrityError):
        explore(memory_path, lambda root: write_manifest(root, {}) and None, careless, lambda root, state: verify(root) and None)
