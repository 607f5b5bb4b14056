from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.checkpoint.layout import CheckpointRef, step_name
from llm_training.checkpoint.retention import (
    RetentionPolicy,
    by_loss,
    execute_retention,
    list_quarantined,
    plan_leftovers,
    plan_retention,
    remove_checkpoint,
)
from llm_training.checkpoint.store import CheckpointStore
from llm_training.storage.filesystem import FileSystem, installed
from llm_training.storage.manifest import Manifest
from tests.checkpoint.samples import snapshot


def refs(losses: dict[int, float | None]) -> list[CheckpointRef]:
    return [CheckpointRef(Path(step_name(step)), step, Manifest({}, {"validation_loss": loss})) for step, loss in losses.items()]


LOSSES: dict[int, float | None] = {10: 5.0, 20: 2.0, 30: None, 40: 1.0, 50: 3.0, 60: 4.0}


@pytest.mark.parametrize(
    ("policy", "protected", "removed"),
    [
        (RetentionPolicy(), (), []),
        (RetentionPolicy(save_total_limit=6), (), []),
        (RetentionPolicy(save_total_limit=3), (), [10, 20, 30]),
        (RetentionPolicy(save_total_limit=3), (10,), [20, 30, 50]),
        (RetentionPolicy(save_total_limit=1), (), [10, 20, 30, 50]),
        (RetentionPolicy(save_total_limit=0), (), [10, 20, 30, 50]),
        (RetentionPolicy(keep_last=1), (), [10, 20, 30, 50]),
        (RetentionPolicy(keep_last=2), (30,), [10, 20]),
        (RetentionPolicy(keep_best=3, keep_last=2), (), [10, 30]),
        (RetentionPolicy(keep_best=2), (), [10, 30, 50]),
        (RetentionPolicy(keep_best=0, keep_last=0), (), [10, 20, 30, 50]),
        (RetentionPolicy(save_total_limit=4, keep_best=2), (), [10, 30]),
        (RetentionPolicy(save_total_limit=2, keep_best=2, keep_last=2), (), [10, 30]),
    ],
)
def test_the_plan(policy: RetentionPolicy, protected: tuple[int, ...], removed: list[int]) -> None:
    plan = plan_retention(refs(LOSSES), policy, protected_steps=protected)
    assert [ref.step for ref, _ in plan] == removed
    assert all(reason for _, reason in plan)


def test_reasons_name_the_rule() -> None:
    (_, limit), *_ = plan_retention(refs(LOSSES), RetentionPolicy(save_total_limit=2))
    assert limit == "more than save_total_limit=2"
    (_, kept), *_ = plan_retention(refs(LOSSES), RetentionPolicy(keep_best=1, keep_last=2))
    assert kept == "not among keep_best=1, keep_last=2"


counts = st.none() | st.integers(0, 8)
losses = st.dictionaries(st.integers(0, 10**6), st.none() | st.floats(), max_size=12)


@given(losses, counts, counts, counts, st.data())
def test_no_plan_ever_takes_the_newest_the_best_or_a_protected_one(
    losses: dict[int, float | None], limit: int | None, best: int | None, last: int | None, data: st.DataObject
) -> None:
    protected = data.draw(st.sets(st.sampled_from(sorted(losses)))) if losses else set()
    found = refs(losses)
    policy = RetentionPolicy(limit, best, last)
    removed = {ref.step for ref, _ in plan_retention(found, policy, protected_steps=protected)}
    kept = set(losses) - removed
    assert protected <= kept
    if losses:
        assert max(losses) in kept
    finite = {step: loss for step, loss in losses.items() if loss is not None and math.isfinite(loss)}
    if finite:
        assert min(finite, key=lambda step: (finite[step], step)) in kept
    assert set(sorted(losses)[len(losses) - (last or 0) :]) <= kept
    left = [ref for ref in found if ref.step in kept]
    assert plan_retention(left, policy, protected_steps=protected) == [], "a plan carried out leaves nothing to do"
    assert plan_retention(found[::-1], policy, protected_steps=protected) == plan_retention(found, policy, protected_steps=protected)


def test_nan_is_never_best() -> None:
    assert [ref.step for ref in by_loss(refs({1: math.nan, 2: math.inf, 3: None, 4: 2.0, 5: -math.inf}))] == [4]


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(snapshot(step))
    (tmp_path / "step-00000001").rename(tmp_path / ".removed-step-00000001-00000000")
    (tmp_path / ".removed-step-00000001-00000000" / "manifest.json").unlink()
    execute_retention(tmp_path, [])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "step-00000002"]


def test_removal_does_not_follow_links(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "store").save(snapshot(1))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (tmp_path / "store" / "step-00000001" / "link").symlink_to(tmp_path / "precious")
    remove_checkpoint(tmp_path / "store" / "step-00000001")
    assert (tmp_path / "precious" / "file").read_text() == "x"
    assert [entry.name for entry in (tmp_path / "store").iterdir()] == ["latest"]


def test_leftovers_are_listed_with_their_reasons(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        store.save(snapshot(step))
    (tmp_path / "step-00000003" / "manifest.json").unlink()
    store.find()
    store.set_aside_after(1)
    (tmp_path / ".tmp-0-x").mkdir()
    assert [(path.name.split("-")[0], reason) for path, reason in plan_leftovers(tmp_path)] == [
        (".set", "of a branch that the run left"),
        (".tmp", "an unfinished save"),
    ]
    assert plan_leftovers(tmp_path / "missing") == []
    (quarantined,) = list_quarantined(tmp_path)
    assert quarantined.startswith(".quarantine-step-00000003")
    assert list_quarantined(tmp_path / "missing") == []


def test_damaged_checkpoints_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3, 4):
        store.save(snapshot(step))
    (tmp_path / "step-00000004" / "manifest.json").unlink()
    removed = CheckpointStore(tmp_path, retention=RetentionPolicy(save_total_limit=2)).prune()
    assert [ref.step for ref, _ in removed] == [1]
    assert (tmp_path / "step-00000004").is_dir()
    assert [ref.step for ref in store.list_valid()] == [3, 2]


def test_the_manifest_goes_first(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(snapshot(1))

    class Watching(FileSystem):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def unlink(self, path: Path) -> None:
            self.calls.append(f"unlink {path.name}")
            super().unlink(path)

        def fsync(self, descriptor: int) -> None:
            self.calls.append("sync")
            super().fsync(descriptor)

        def rename(self, source: Path, target: Path) -> None:
            self.calls.append("rename")
            super().rename(source, target)

    disk = Watching()
    with installed(disk):
        remove_checkpoint(tmp_path / "step-00000001")
    assert disk.calls[:4] == ["unlink manifest.json", "sync", "rename", "sync"]
