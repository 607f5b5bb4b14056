from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from llm_training.checkpoint.load import (
    load_config,
    load_model_directory,
    load_model_tensors,
    load_optimizer_tensors,
    load_small_files,
    load_state,
)
from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.store import CheckpointStore
from llm_training.errors import IntegrityError, NumericError, StorageError
from llm_training.storage import oserrors
from llm_training.storage.links import read_pointer
from llm_training.storage.manifest import verify
from tests.checkpoint.samples import assert_holds, snapshot


def names(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir())


def test_the_layout_is_a_hugging_face_directory_with_a_training_state(tmp_path: Path) -> None:
    report = CheckpointStore(tmp_path / "checkpoints").save(snapshot(1000, labels=("epoch-1",)))
    assert report.path == tmp_path / "checkpoints" / "step-00001000"
    files = sorted(str(path.relative_to(report.path)) for path in report.path.rglob("*") if path.is_file())
    assert files == [
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "training_state/optimizer.safetensors",
        "training_state/state.json",
    ]
    assert set(verify(report.path).files) == set(files) - {"manifest.json"}
    assert names(tmp_path / "checkpoints") == ["epoch-1", "latest", "step-00001000"]
    assert os.readlink(tmp_path / "checkpoints" / "latest") == "step-00001000"
    assert (
        report.num_bytes
        == sum(path.stat().st_size for path in report.path.rglob("*") if path.is_file()) - (report.path / "manifest.json").stat().st_size
    )
    assert all(path.stat().st_mode & 0o077 == 0 for path in [report.path, *report.path.rglob("*")])


def test_everything_comes_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    wanted = snapshot(5, loss=2.5, rate=0.1, best=math.inf, history=[1, [2, None]], seed=2**63 + 1)
    store.save(wanted)
    ref = CheckpointStore(tmp_path).find()
    assert ref is not None and ref.step == 5 and ref.validation_loss == 2.5 and ref.refused == ()
    assert_holds(ref, wanted)
    assert load_state(ref) == dict(wanted.state)
    assert load_config(ref) == wanted.config
    assert load_small_files(ref)["tokenizer.json"] == wanted.tokenizer_files["tokenizer.json"]
    library = safetensors.torch.load_file(ref.path / "model.safetensors")
    assert all(torch.equal(library[name], tensor) for name, tensor in wanted.model_tensors.items())


def test_large_weights_are_split_with_an_index(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, max_shard_bytes=1000)
    tensors = {f"layer.{k}": torch.full((100,), float(k)) for k in range(5)} | {"large": torch.zeros(2000)}
    wanted = replace(snapshot(1), model_tensors=tensors)
    report = store.save(wanted)
    index = json.loads((report.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 400 + 8000
    assert sorted(set(index["weight_map"].values())) == [f"model-{k:05d}-of-00004.safetensors" for k in range(1, 5)]
    assert set(index["weight_map"]) == set(tensors)
    ref = store.find()
    assert ref is not None
    assert_holds(ref, wanted)
    loaded = load_model_directory(report.path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("place", ["model_tensors", "optimizer_tensors"])
def test_non_finite_values_are_never_saved(tmp_path: Path, place: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1))
    bad = replace(snapshot(2), **{place: {"w": torch.tensor([1.0, math.nan])}})
    with pytest.raises(NumericError, match="NaN or infinity in w, so the checkpoint is not saved"):
        store.save(bad)
    store.save_async(bad)
    with pytest.raises(NumericError):
        store.wait()
    assert names(tmp_path) == ["latest", "step-00000001"]


def test_weights_without_an_optimizer_are_not_resumed_silently(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(replace(snapshot(1), optimizer_tensors={}))
    ref = store.find()
    assert ref is not None
    with pytest.raises(IntegrityError, match="weights only, no optimizer state"):
        load_optimizer_tensors(ref)


def test_the_same_step_again_is_only_labelled_when_nothing_changed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(7))
    inode = (tmp_path / "step-00000007").stat().st_ino
    store.save(snapshot(7, labels=("final",)))
    assert (tmp_path / "step-00000007").stat().st_ino == inode
    assert read_pointer(tmp_path / "final") == "step-00000007"
    store.save(snapshot(7, loss=1.0))
    ref = store.find()
    assert ref is not None and ref.validation_loss == 1.0
    assert names(tmp_path) == ["best_model", "final", "latest", "step-00000007"]


def test_the_best_is_the_lowest_finite_loss_and_the_earlier_of_equals(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    is_best = [
        store.save(snapshot(step, loss=loss)).is_best
        for step, loss in enumerate((None, math.nan, 3.0, 2.0, 2.0, math.nan, -math.inf, 2.5), start=1)
    ]
    assert is_best == [False, False, True, True, False, False, False, False]
    assert read_pointer(tmp_path / "best_model") == "step-00000004"


def test_best_moves_when_its_checkpoint_is_gone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1, loss=1.0))
    store.save(snapshot(2, loss=2.0))
    (tmp_path / "step-00000001" / "model.safetensors").write_bytes(b"")
    store.save(snapshot(3, loss=3.0))
    assert read_pointer(tmp_path / "best_model") == "step-00000002"


def test_old_checkpoints_go_and_their_labels_with_them(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, retention=RetentionPolicy(save_total_limit=2))
    reports = [store.save(snapshot(step, loss=float(step), labels=(f"epoch-{step}",))) for step in range(1, 5)]
    assert [[path.name for path, _ in report.removed] for report in reports] == [[], [], ["step-00000002"], ["step-00000003"]]
    assert reports[2].removed[0][1] == "more than save_total_limit=2"
    assert names(tmp_path) == ["best_model", "epoch-1", "epoch-4", "latest", "step-00000001", "step-00000004"]


def test_the_one_resumed_from_stays(tmp_path: Path) -> None:
    for step in (1, 2):
        CheckpointStore(tmp_path).save(snapshot(step))
    store = CheckpointStore(tmp_path, retention=RetentionPolicy(save_total_limit=1))
    assert store.find(1) is not None
    store.save(snapshot(3))
    assert [ref.step for ref in store.list_valid()] == [3, 1]


def test_failing_saves_never_cost_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, retention=RetentionPolicy(keep_last=1))
    store.save(snapshot(1))
    for step, point in enumerate(("ckpt.after_model", "ckpt.after_manifest", "ckpt.after_optimizer"), start=2):
        monkeypatch.setenv("LLM_TRAINING_FAULT", f"{point}:raise")
        with pytest.raises(StorageError, match="injected"):
            store.save(snapshot(step))
        monkeypatch.delenv("LLM_TRAINING_FAULT")
        assert [ref.step for ref in store.list_valid()] == [1]
    store.save(snapshot(9))
    assert [ref.step for ref in store.list_valid()] == [9]
    assert names(tmp_path) == ["latest", "step-00000009"]


def test_file_times_do_not_matter(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        store.save(snapshot(step))
        os.utime(tmp_path / f"step-{step:08d}", (10**9 - step, 10**9 - step))
    ref = CheckpointStore(tmp_path).find()
    assert ref is not None and ref.step == 3
    CheckpointStore(tmp_path, retention=RetentionPolicy(keep_last=2)).prune()
    assert [found.step for found in store.list_valid()] == [3, 2]


def test_something_else_in_the_place_of_a_pointer_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "latest").mkdir(parents=True)
    (tmp_path / "epoch-1").write_text("my notes, which are long enough\nnot to be a pointer")
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1, labels=("epoch-1",)))
    assert (tmp_path / "latest").is_dir() and "my notes" in (tmp_path / "epoch-1").read_text()
    assert "left alone" in caplog.text
    assert store.find() is not None


def test_space_is_refused_before_the_run_and_before_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, retention=RetentionPolicy(save_total_limit=3))
    size = snapshot(1).num_tensor_bytes
    monkeypatch.setattr(oserrors, "free_bytes", lambda path: 4 * size)
    store.check_space(snapshot(1))
    monkeypatch.setattr(oserrors, "free_bytes", lambda path: 4 * size - 1)
    with pytest.raises(StorageError, match="not enough space for 4 checkpoints"):
        store.check_space(snapshot(1))
    monkeypatch.setattr(oserrors, "free_bytes", lambda path: 10)
    with pytest.raises(StorageError, match=r"not enough space for the checkpoint of step 1 .*10 bytes free"):
        store.save(snapshot(1))
    assert names(tmp_path) == []


def test_a_file_changed_after_it_was_verified_is_seen_when_it_is_loaded(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1))
    ref = store.find()
    assert ref is not None
    path = ref.path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="sha256 is"):
        load_model_tensors(ref)
    assert store.list_valid() == []
