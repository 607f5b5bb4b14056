from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm_training.checkpoint.layout import step_name
from llm_training.checkpoint.store import CheckpointStore
from llm_training.checkpoint.tensor_file import write_tensors
from llm_training.errors import ConfigError, IntegrityError
from llm_training.storage.durable import write_stream
from llm_training.storage.filesystem import FileSystem, installed
from llm_training.storage.links import replace_symlink
from llm_training.storage.manifest import read_manifest, write_manifest
from tests.checkpoint.samples import assert_holds, snapshot

STEPS = (10, 20, 30)


def remove_file(path: Path) -> None:
    (path / "model.safetensors").unlink()


def empty_file(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"")


def truncate(path: Path) -> None:
    file = path / "training_state" / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size - 3)


def flip_bit(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-5] ^= 16
    (path / "model.safetensors").write_bytes(data)


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def manifest_without_hash(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"sha256"', '"crc32"', 1))


def nan_weights(path: Path) -> None:
    """Well sealed, as another program could have written it."""
    manifest = read_manifest(path)
    with write_stream(path / "model.safetensors") as sink:
        write_tensors(sink, {"embed.weight": torch.tensor([1.0, float("nan")])})
    write_manifest(path, {**manifest.files, "model.safetensors": sink.record}, extra=manifest.extra)


def leftover(path: Path) -> None:
    """As if the process had died before the rename."""
    path.rename(path.with_name(f".tmp-0123456789abcdef-{path.name}"))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing file": (remove_file, "is missing"),
    "empty file": (empty_file, "size is 0 bytes"),
    "truncated": (truncate, "the manifest says"),
    "flipped bit": (flip_bit, "sha256 is"),
    "manifest missing": (remove_manifest, "manifest is missing"),
    "manifest without hash": (manifest_without_hash, "no known hash"),
    "NaN weights": (nan_weights, "NaN or infinity in embed.weight"),
    "leftover": (leftover, ""),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in STEPS:
        store.save(snapshot(step, loss=float(step), labels=(f"epoch-{step // 10}",)))
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("position", STEPS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_it_falls_back_to_the_newest_valid_one_and_says_why(
    root: Path, damage: str, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, reason = DAMAGES[damage]
    spoil(root / step_name(position))
    ref = CheckpointStore(root).find()
    assert ref is not None
    assert ref.step == (20 if position == 30 else 30)
    assert_holds(ref, snapshot(ref.step))
    if position == 30 and damage != "leftover":
        (refusal,) = ref.refused
        assert refusal.path.name == "step-00000030" and reason in refusal.reason
        assert refusal.moved_to is not None and refusal.moved_to.is_dir() and not (root / "step-00000030").exists()
        assert "step-00000030 refused" in caplog.text and reason in caplog.text
    else:
        assert ref.refused == ()
    again = CheckpointStore(root).find()
    assert again is not None and again.step == ref.step and again.refused == ()


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "leftover"])
def test_strict_refuses_instead_and_touches_nothing(root: Path, damage: str) -> None:
    spoil, reason = DAMAGES[damage]
    spoil(root / "step-00000030")
    with pytest.raises(IntegrityError, match=reason) as caught:
        CheckpointStore(root).find(strict=True)
    assert caught.value.exit_code == 4
    assert (root / "step-00000030").is_dir()


def test_none_at_all_is_a_fresh_start_but_none_valid_never_is(root: Path, tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "missing").find() is None
    (tmp_path / "empty").mkdir()
    assert CheckpointStore(tmp_path / "empty").find() is None
    for step in STEPS:
        flip_bit(root / step_name(step))
    with pytest.raises(IntegrityError, match=r"there are checkpoints but none verifies \(step-00000030 refused: sha256 is"):
        CheckpointStore(root).find()
    with pytest.raises(IntegrityError, match="refused before"):
        CheckpointStore(root).find()
    assert len(list(root.glob(".quarantine-step-*"))) == 3


def test_a_reader_who_does_not_own_the_run_moves_nothing(root: Path) -> None:
    flip_bit(root / "step-00000030")
    ref = CheckpointStore(root).find(quarantine=False)
    assert ref is not None and ref.step == 20 and ref.refused[0].moved_to is None
    assert (root / "step-00000030").is_dir()


def test_quarantine_that_is_impossible_does_not_stop_the_fall_back(root: Path) -> None:
    class ReadOnly(FileSystem):
        def rename(self, source: Path, target: Path) -> None:
            raise PermissionError(13, "no")

    flip_bit(root / "step-00000030")
    with installed(ReadOnly()):
        ref = CheckpointStore(root).find()
    assert ref is not None and ref.step == 20 and ref.refused[0].moved_to is None


def stale(path: Path) -> None:
    replace_symlink(path, "step-00000010")


def dangling(path: Path) -> None:
    replace_symlink(path, "step-00000099")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def outside(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc")


@pytest.mark.parametrize("spoil", [stale, dangling, directory, outside, Path.unlink])
def test_latest_is_only_a_hint(root: Path, spoil: Callable[[Path], None]) -> None:
    spoil(root / "latest")
    ref = CheckpointStore(root).find()
    assert ref is not None and ref.step == 30
    ref = CheckpointStore(root).find("latest")
    assert ref is not None and ref.step == 30
    CheckpointStore(root).save(snapshot(40))
    ref = CheckpointStore(root).find("latest")
    assert ref is not None and ref.step == 40


@pytest.mark.parametrize(
    ("spelling", "step"),
    [
        ("auto", 30),
        ("latest", 30),
        ("best_model", 10),
        ("epoch-2", 20),
        ("20", 20),
        (20, 20),
        ("step-00000010", 10),
        (Path("step-00000010"), 10),
    ],
)
def test_the_spellings_inside_the_store(root: Path, spelling: str | Path | int, step: int) -> None:
    ref = CheckpointStore(root).find(spelling)
    assert ref is not None and ref.step == step


@pytest.mark.parametrize(("below", "step"), [(".", 30), ("..", 30), ("latest", 30), ("epoch-1", 10), ("step-00000020", 20)])
def test_paths_from_elsewhere(root: Path, tmp_path: Path, below: str, step: int) -> None:
    ref = CheckpointStore(tmp_path / "another").find(root / below)
    assert ref is not None and ref.step == step and not ref.path.is_symlink()


def test_a_checkpoint_may_be_copied_under_any_name_but_not_pose_as_another_step(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "step-00000020", tmp_path / "my-model")
    ref = CheckpointStore(root).find(tmp_path / "my-model")
    assert ref is not None and ref.step == 20
    shutil.rmtree(root / "step-00000030")
    (root / "step-00000020").rename(root / "step-00000030")
    ref = CheckpointStore(root).find()
    assert ref is not None and ref.step == 10
    assert "holds the checkpoint of step 20" in ref.refused[0].reason


def test_one_that_is_named_is_never_exchanged_for_another(root: Path) -> None:
    flip_bit(root / "step-00000020")
    with pytest.raises(IntegrityError, match="sha256 is"):
        CheckpointStore(root).find(20)
    assert (root / "step-00000020").is_dir()
    dangling(root / "epoch-2")
    with pytest.raises(IntegrityError, match="leads nowhere"):
        CheckpointStore(root).find("epoch-2")


@pytest.mark.parametrize("name", ["99", "epoch-77", "no/such/path"])
def test_one_that_does_not_exist_lists_those_that_do(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint") as caught:
        CheckpointStore(root).find(name)
    assert "step-00000030" in caught.value.remedy and "epoch-2" in caught.value.remedy


def test_a_run_that_starts_again_earlier_leaves_the_later_branch(root: Path) -> None:
    store = CheckpointStore(root)
    moved = store.set_aside_after(10)
    assert [refusal.path.name for refusal in moved] == ["step-00000030", "step-00000020"]
    store.save(snapshot(15))
    ref = CheckpointStore(root).find()
    assert ref is not None and ref.step == 15
    assert len(list(root.glob(".set-aside-*"))) == 2


def test_other_things_in_the_store_are_no_checkpoints(root: Path, tmp_path: Path) -> None:
    (root / "step-00000099").write_text("a file")
    (root / "step-0000009").mkdir()
    (root / "step-1").mkdir()
    (root / "notes").mkdir()
    shutil.copytree(root / "step-00000030", tmp_path / "elsewhere")
    (root / "step-00000098").symlink_to(tmp_path / "elsewhere")
    ref = CheckpointStore(root).find()
    assert ref is not None and ref.step == 30 and ref.refused == ()


def test_a_superseded_checkpoint_counts_while_its_step_has_no_other(root: Path) -> None:
    (root / "step-00000030").rename(root / ".superseded-step-00000030-0badcafe")
    assert [ref.step for ref in CheckpointStore(root).list_valid()] == [30, 20, 10]
    ref = CheckpointStore(root).find()
    assert ref is not None and ref.path == root / "step-00000030" and ref.path.is_dir()
