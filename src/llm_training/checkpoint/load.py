"""From the disk back into memory, trusting nothing that does not verify.

`verify_checkpoint` reads everything once: hashes, headers, and no NaN. The loaders check again, in the bytes they hand out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from llm_training.checkpoint.finite import has_non_finite
from llm_training.checkpoint.layout import (
    ARTEFACT_KIND,
    CONFIG_FILE,
    MODEL_FILE,
    MODEL_INDEX_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    CheckpointRef,
    parse_step,
)
from llm_training.checkpoint.save import model_file_names, shard_places
from llm_training.checkpoint.snapshot import state_from_bytes
from llm_training.checkpoint.tensor_file import iterate_tensors, read_tensors
from llm_training.checkpoint.trust import refuse_untrusted_path
from llm_training.errors import IntegrityError
from llm_training.storage.hashing import FileRecord
from llm_training.storage.manifest import MANIFEST_NAME, check_name, locate, read_listed, read_manifest, verify_file
from llm_training.storage.reading import parse_json, read_bytes

_RESTORE = "restore it from a copy, or resume from another checkpoint"
_TENSOR_SUFFIX = ".safetensors"


def verify_checkpoint(path: Path) -> CheckpointRef:
    """Check the whole content of a checkpoint directory. Raises IntegrityError saying what is wrong, StorageError."""
    refuse_untrusted_path(path)
    manifest = read_manifest(path)
    step = manifest.extra.get("step")
    if manifest.extra.get("kind") != ARTEFACT_KIND or type(step) is not int:
        raise IntegrityError("the manifest is not that of a checkpoint", where=str(path), remedy=_RESTORE)
    if parse_step(path.name) not in (None, step):
        raise IntegrityError(f"the directory holds the checkpoint of step {step}", where=str(path), remedy="give it back its name")
    missing = [name for name in (CONFIG_FILE, STATE_FILE) if name not in manifest.files]
    if missing:
        raise IntegrityError(f"the checkpoint has no {missing[0]}", where=str(path), remedy=_RESTORE)
    model_file_names(manifest)
    for name, record in manifest.files.items():
        if name.endswith(_TENSOR_SUFFIX):
            _verify_tensors(verify_file(path, name, record, hashes=False), record)
        else:
            verify_file(path, name, record)
    return CheckpointRef(path=path, step=step, manifest=manifest)


def _verify_tensors(path: Path, record: FileRecord) -> None:
    """One pass over a tensor file; the hash is judged before the values, so that damage is called damage."""
    bad = [name for name, tensor in iterate_tensors(path, record) if has_non_finite(tensor)]
    if bad:
        raise IntegrityError(f"NaN or infinity in {bad[0]}", where=str(path), remedy=_RESTORE)


def load_model_tensors(ref: CheckpointRef) -> dict[str, Tensor]:
    """The weights under their Hugging Face names, on the CPU. Raises IntegrityError, StorageError."""
    names = model_file_names(ref.manifest)
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= read_tensors(locate(ref.path, name), ref.manifest.files[name])
    if MODEL_INDEX_FILE in ref.manifest.files:
        _require_all(tensors, shard_places(read_listed(ref.path, ref.manifest, MODEL_INDEX_FILE)), ref.path)
    return tensors


def _require_all(tensors: dict[str, Tensor], places: dict[str, str], path: Path) -> None:
    if set(places) != set(tensors):
        wrong = sorted(set(places) ^ set(tensors))
        raise IntegrityError(f"the shards and their index disagree about {wrong[0]}", where=str(path), remedy=_RESTORE)


def load_optimizer_tensors(ref: CheckpointRef) -> dict[str, Tensor]:
    """The optimizer's tensors, on the CPU. Raises IntegrityError when the checkpoint has none: a resume would differ silently."""
    if OPTIMIZER_FILE not in ref.manifest.files:
        raise IntegrityError(
            "the checkpoint has weights only, no optimizer state, so a resume would differ",
            where=str(ref.path),
            remedy="start a new run from its weights",
        )
    return read_tensors(locate(ref.path, OPTIMIZER_FILE), ref.manifest.files[OPTIMIZER_FILE])


def load_state(ref: CheckpointRef) -> dict[str, Any]:
    """The training state as it was given to the snapshot. Raises IntegrityError, StorageError."""
    return state_from_bytes(read_listed(ref.path, ref.manifest, STATE_FILE))


def load_config(ref: CheckpointRef) -> dict[str, Any]:
    """The Hugging Face ``config.json``. Raises IntegrityError, StorageError."""
    return dict(parse_json(read_listed(ref.path, ref.manifest, CONFIG_FILE), ref.path / CONFIG_FILE))


def load_small_files(ref: CheckpointRef) -> dict[str, bytes]:
    """The files beside the weights, by name: configurations and tokenizer. Raises IntegrityError, StorageError."""
    names = [name for name in ref.manifest.files if "/" not in name and not name.endswith(_TENSOR_SUFFIX)]
    return {name: read_listed(ref.path, ref.manifest, name) for name in names}


def load_model_directory(path: Path) -> dict[str, Tensor]:
    """The weights of any Hugging Face directory of safetensors, ours or not; where a manifest stands, it must verify.

    Raises IntegrityError for damage, for a directory without safetensors and for anything that may hold a pickle; StorageError.
    """
    refuse_untrusted_path(path)
    if (path / MANIFEST_NAME).exists():
        return load_model_tensors(verify_checkpoint(path))
    if (path / MODEL_FILE).is_file():
        return read_tensors(path / MODEL_FILE)
    if not (path / MODEL_INDEX_FILE).is_file():
        others = sorted(entry.name for entry in path.glob("*") if entry.suffix in (".bin", ".pt", ".pth"))
        found = f" ({others[0]} may hold pickles, which can run code)" if others else ""
        raise IntegrityError(f"there is no {MODEL_FILE}{found}", where=str(path), remedy="give a directory of safetensors")
    places = shard_places(read_bytes(path / MODEL_INDEX_FILE))
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        tensors |= read_tensors(path / check_name(name))
    _require_all(tensors, places, path)
    return tensors
