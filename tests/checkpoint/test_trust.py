"""S-11: nothing that may hold a pickle is parsed, whatever it is called."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from llm_training.checkpoint.load import load_model_directory
from llm_training.checkpoint.store import CheckpointStore
from llm_training.checkpoint.tensor_file import read_tensors
from llm_training.errors import IntegrityError
from tests.checkpoint.samples import snapshot


class Bomb:
    """Touches a canary file when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (Path(self.canary),))


def torch_file(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": bomb}, buffer)
    return buffer.getvalue()


def legacy_torch_file(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": bomb}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def numpy_file(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([bomb], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zip_file(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb))
    return buffer.getvalue()


def tar_file(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        content = pickle.dumps(bomb)
        member = tarfile.TarInfo("../../evil")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


MAKERS: dict[str, Callable[[Bomb], bytes]] = {
    "torch": torch_file,
    "legacy torch": legacy_torch_file,
    "numpy": numpy_file,
    "zip": zip_file,
    "tar": tar_file,
} | {f"pickle {protocol}": (lambda bomb, protocol=protocol: pickle.dumps(bomb, protocol)) for protocol in range(6)}

NAMES = ["model.pt", "model.pth", "model.ckpt", "pytorch_model.bin", "model.npy", "model.safetensors", "model", ".metadata"]

_unpickled: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "pickle.find_class":
        _unpickled.append(repr(arguments))


@pytest.fixture(scope="module", autouse=True)
def audit_hook() -> None:
    sys.addaudithook(_watch)  # cannot be removed again, and costs nothing


def test_the_hook_would_see_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(str(tmp_path / "canary"))))
    assert _unpickled and (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_refused_by_type_before_anything_parses_it(tmp_path: Path, kind: str, name: str) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.write_bytes(MAKERS[kind](Bomb(str(canary))))
    _unpickled.clear()
    store = CheckpointStore(tmp_path / "checkpoints")
    attempts: list[Callable[[], object]] = [
        lambda: store.find(path),
        lambda: store.find(path.parent),
        lambda: read_tensors(path),
        lambda: load_model_directory(path.parent),
        lambda: load_model_directory(path),
    ]
    for attempt in attempts:
        with pytest.raises(IntegrityError) as caught:
            attempt()
        assert caught.value.exit_code == 4
    assert _unpickled == [] and not canary.exists()


def test_the_message_says_what_it_is(tmp_path: Path) -> None:
    cases = {
        "a pickle": pickle.dumps([1]),
        "a zip archive": zip_file(Bomb("x")),
        "a numpy file": numpy_file(Bomb("x")),
        "a tar archive": tar_file(Bomb("x")),
    }
    for words, content in cases.items():
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(IntegrityError, match=words):
            CheckpointStore(tmp_path / "store").find(tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"\.pt files may hold pickles, which can run code, and are never opened"):
        (tmp_path / "old.pt").write_bytes(b"")
        CheckpointStore(tmp_path / "store").find(tmp_path / "old.pt")


def test_a_checkpoint_of_torch_distributed_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(Bomb(str(canary))))
    (tmp_path / "dcp" / "__0_0.distcp").write_bytes(b"PK\x03\x04")
    with pytest.raises(IntegrityError, match=r"torch\.distributed\.checkpoint directory holds pickles"):
        CheckpointStore(tmp_path / "store").find(tmp_path / "dcp")
    assert not canary.exists()


def test_a_pickle_inside_a_checkpoint_is_refused_too(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "store")
    store.save(snapshot(1))
    store.save(snapshot(2))
    bomb = pickle.dumps(Bomb(str(tmp_path / "canary")))
    (tmp_path / "store" / "step-00000002" / "model.safetensors").write_bytes(bomb)
    (tmp_path / "store" / "step-00000002" / "manifest.json").write_bytes(bomb)
    _unpickled.clear()
    ref = store.find()
    assert ref is not None and ref.step == 1
    assert _unpickled == [] and not (tmp_path / "canary").exists()


def test_a_foreign_directory_of_safetensors_loads_and_one_of_pickles_does_not(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    safetensors.torch.save_file({"w": torch.ones(3)}, tmp_path / "foreign" / "model.safetensors")
    assert torch.equal(load_model_directory(tmp_path / "foreign")["w"], torch.ones(3))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(torch_file(Bomb("x")))
    with pytest.raises(IntegrityError, match=r"there is no model\.safetensors \(pytorch_model\.bin may hold pickles"):
        load_model_directory(tmp_path / "old")


@pytest.mark.parametrize("index", ['{"weight_map": {"w": "../secret.safetensors"}}', '{"weight_map": {"w": 3}}', "{}", "[]", "{"])
def test_a_bad_index_of_shards_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(IntegrityError):
        load_model_directory(tmp_path)


def test_no_source_of_this_room_can_unpickle() -> None:
    sources = Path(__file__).parents[2] / "src" / "llm_training"
    for source in [*(sources / "checkpoint").glob("*.py"), *(sources / "storage").glob("*.py")]:
        text = source.read_text()
        assert not any(word in text for word in ("import pickle", "torch.load", "np.load", "yaml.load", "shelve", "eval(", "exec(")), source


def test_storage_needs_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import llm_training.storage.durable, sys; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
