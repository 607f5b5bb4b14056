"""G-14: the n-th call fails, for every n. Exit 5, the artefact before is intact, and the same command then succeeds."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.store import CheckpointStore
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.directories import new_directory
from llm_training.storage.durable import remove_tree, write_bytes
from llm_training.storage.links import read_pointer, replace_symlink
from llm_training.storage.locks import FileLock
from llm_training.storage.manifest import verify
from tests.faults.failing_calls import KINDS, sweep
from tests.faults.test_power_loss import assert_whole, snapshot

OLD, NEW = b"old" * 300, b"NEW!" * 300
Prepare = Callable[[Callable[[Path], object]], Callable[[], Path]]

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def copies(memory_path: Path) -> Prepare:
    """Makes a template once and hands out a fresh copy for each run."""

    def make(setup: Callable[[Path], object]) -> Callable[[], Path]:
        template = memory_path / "template"
        template.mkdir()
        setup(template)
        numbers = itertools.count()

        def copy() -> Path:
            place = memory_path / f"run{next(numbers)}"
            shutil.copytree(template, place, symlinks=True)
            return place

        return copy

    return make


def test_writing_a_file(copies: Prepare, kind: str) -> None:
    def is_old_or_new(root: Path) -> None:
        assert (root / "file").read_bytes() in (OLD, NEW)

    def is_new(root: Path) -> None:
        assert (root / "file").read_bytes() == NEW

    calls = sweep(
        kind,
        copies(lambda root: write_bytes(root / "file", OLD)),
        lambda root: write_bytes(root / "file", NEW) and None,
        is_old_or_new,
        is_new,
    )
    assert calls >= (1 if kind == "short write" else 12)


def test_pointing_at_another_step(copies: Prepare, kind: str) -> None:
    def is_either(root: Path) -> None:
        assert read_pointer(root / "latest") in ("a", "b")

    def is_new(root: Path) -> None:
        assert read_pointer(root / "latest") == "b"

    sweep(
        kind,
        copies(lambda root: replace_symlink(root / "latest", "a")),
        lambda root: replace_symlink(root / "latest", "b"),
        is_either,
        is_new,
    )


def test_building_a_directory(copies: Prepare, kind: str) -> None:
    def build(root: Path) -> None:
        if (root / "artefact").exists():
            return
        with new_directory(root / "artefact") as builder:
            builder.write_bytes("one", NEW)
            builder.write_bytes("inner/two", OLD)
            builder.seal({})
            builder.publish()

    def is_absent_or_whole(root: Path) -> None:
        assert not (root / "artefact").exists() or verify(root / "artefact").files

    sweep(kind, copies(lambda root: None), build, is_absent_or_whole, lambda root: verify(root / "artefact") and None)


def test_appending_to_a_log(copies: Prepare, kind: str) -> None:
    def append(root: Path) -> None:
        with JsonlAppender(root / "log.jsonl", fsync=True) as log:
            log.append({"step": 2})
            log.append({"step": 3})

    def is_whole(root: Path) -> None:
        steps = [record["step"] for record in read_jsonl(root / "log.jsonl")]
        assert steps[0] == 1 and steps in ([1], [1, 2], [1, 2, 3])

    def is_done(root: Path) -> None:
        steps = [record["step"] for record in read_jsonl(root / "log.jsonl")]
        assert steps[0] == 1 and steps[-2:] == [2, 3]

    def setup(root: Path) -> None:
        with JsonlAppender(root / "log.jsonl") as log:
            log.append({"step": 1})

    sweep(kind, copies(setup), append, is_whole, is_done)


def test_taking_a_lock(copies: Prepare, kind: str) -> None:
    def take(root: Path) -> None:
        lock = FileLock(root / "run.lock")
        lock.acquire()
        lock.release()

    sweep(kind, copies(lambda root: None), take, lambda root: None, lambda root: None)


def test_saving_a_checkpoint(copies: Prepare, kind: str) -> None:
    def save(root: Path) -> None:
        CheckpointStore(root).save(snapshot(2, loss=1.0, labels=("epoch-1",)))

    def is_either(root: Path) -> None:
        store = CheckpointStore(root)
        steps = [ref.step for ref in store.list_valid()]
        assert steps in ([1], [2, 1])
        for step in steps:
            assert_whole(store, step)

    def is_done(root: Path) -> None:
        store = CheckpointStore(root)
        assert [ref.step for ref in store.list_valid()] == [2, 1]
        assert_whole(store, 2)
        assert read_pointer(root / "latest") == read_pointer(root / "best_model") == read_pointer(root / "epoch-1") == "step-00000002"

    calls = sweep(kind, copies(lambda root: CheckpointStore(root).save(snapshot(1, loss=2.0))), save, is_either, is_done)
    assert calls >= (8 if kind == "short write" else 80)


def test_saving_over_a_checkpoint_of_the_same_step(copies: Prepare, kind: str) -> None:
    def is_either(root: Path) -> None:
        ref = CheckpointStore(root).find(quarantine=False)
        assert ref is not None and ref.step == 1

    sweep(
        kind,
        copies(lambda root: CheckpointStore(root).save(snapshot(1))),
        lambda root: CheckpointStore(root).save(snapshot(1, value=9.0)) and None,
        is_either,
        lambda root: assert_whole(CheckpointStore(root), 1, 9.0),
    )


def test_removing_checkpoints(copies: Prepare, kind: str) -> None:
    def setup(root: Path) -> None:
        for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5)):
            CheckpointStore(root).save(snapshot(step, loss=loss))

    def prune(root: Path) -> None:
        CheckpointStore(root, retention=RetentionPolicy(save_total_limit=2)).prune()

    def is_safe(root: Path) -> None:
        assert {2, 4} <= {ref.step for ref in CheckpointStore(root).list_valid()}

    def is_done(root: Path) -> None:
        assert {ref.step for ref in CheckpointStore(root).list_valid()} == {2, 4}
        assert not list(root.glob(".removed-*"))

    sweep(kind, copies(setup), prune, is_safe, is_done)


def test_removing_a_tree(copies: Prepare, kind: str) -> None:
    def setup(root: Path) -> None:
        (root / "tree" / "inner").mkdir(parents=True)
        (root / "tree" / "inner" / "file").write_bytes(OLD)

    def is_gone(root: Path) -> None:
        assert not (root / "tree").exists()

    sweep(kind, copies(setup), lambda root: remove_tree(root / "tree"), lambda root: None, is_gone)
