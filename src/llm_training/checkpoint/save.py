"""One checkpoint onto the disk: hidden, sealed, verified, then renamed into sight.

The order is the guarantee: tensors and small files, each synced and read back; the manifest; the rename; then the pointers,
which are only hints. A process that dies anywhere leaves the checkpoints before as they were. The crash points name the
gaps between these stages for the fault tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from llm_training.checkpoint.layout import (
    ARTEFACT_KIND,
    MODEL_FILE,
    MODEL_INDEX_FILE,
    OPTIMIZER_FILE,
    SUPERSEDED_PREFIX,
    CheckpointRef,
    hidden_name,
    step_name,
)
from llm_training.checkpoint.snapshot import FrozenSnapshot
from llm_training.checkpoint.tensor_file import file_order, write_tensors
from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.directories import DirectoryBuilder, new_directory
from llm_training.storage.durable import json_bytes, remove_file, remove_tree, rename
from llm_training.storage.faults import crash_point
from llm_training.storage.manifest import MANIFEST_NAME, Manifest, verify
from llm_training.storage.oserrors import require_free_space

MAX_SHARD_BYTES = 5 * 10**9


def write_checkpoint(root: Path, frozen: FrozenSnapshot, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> CheckpointRef:
    """Commit a snapshot as ``<root>/step-...`` and return it; on any error the store is as before.

    A checkpoint of the same step is replaced, unless it is the same to the byte. Raises NumericError for NaN or infinity in
    a tensor, StorageError.
    """
    frozen.require_finite()
    require_free_space(root, frozen.num_bytes, f"the checkpoint of step {frozen.step}")
    target = root / step_name(frozen.step)
    with new_directory(target) as builder:
        crash_point("ckpt.before_model")
        _write_model(builder, frozen.model, max_shard_bytes)
        crash_point("ckpt.after_model")
        if frozen.optimizer:
            with builder.write_stream(OPTIMIZER_FILE) as sink:
                write_tensors(sink, frozen.optimizer)
        crash_point("ckpt.after_optimizer")
        for name, content in frozen.small_files.items():
            builder.write_bytes(name, content)
        crash_point("ckpt.before_manifest")
        manifest = builder.seal({"kind": ARTEFACT_KIND, "step": frozen.step, "validation_loss": frozen.validation_loss})
        crash_point("ckpt.after_manifest")
        if not _is_committed(target, manifest):
            _publish(builder, target)
    crash_point("ckpt.after_rename")
    return CheckpointRef(path=target, step=frozen.step, manifest=manifest)


def _is_committed(target: Path, manifest: Manifest) -> bool:
    """True when the very same content is there already, as when a run ends on a step that was just saved."""
    try:
        return target.is_dir() and verify(target).to_bytes() == manifest.to_bytes()
    except IntegrityError:
        return False


def _publish(builder: DirectoryBuilder, target: Path) -> None:
    """Take the final name; a former holder steps aside under a name that still counts as this step until we have it."""
    former = target.with_name(hidden_name(SUPERSEDED_PREFIX, target.name))
    had_former = target.is_dir() and not target.is_symlink()
    if had_former:
        rename(target, former)
        crash_point("ckpt.after_displacing")
    try:
        builder.publish()
    except StorageError:
        if had_former and not target.exists():
            with suppress(StorageError):
                rename(former, target)
        raise
    if had_former:
        remove_file(former / MANIFEST_NAME)
        remove_tree(former)


def plan_shards(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[dict[str, Tensor]]:
    """Tensors split into files of at most ``max_shard_bytes`` (a larger tensor has a file of its own), at least one file."""
    shards: list[dict[str, Tensor]] = [{}]
    filled_bytes = 0
    for name in file_order(tensors):
        num_bytes = tensors[name].numel() * tensors[name].element_size()
        if shards[-1] and filled_bytes + num_bytes > max_shard_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = tensors[name]
        filled_bytes += num_bytes
    return shards


def _write_model(builder: DirectoryBuilder, tensors: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    shards = plan_shards(tensors, max_shard_bytes)
    names = [MODEL_FILE] if len(shards) == 1 else [f"model-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        with builder.write_stream(name) as sink:
            write_tensors(sink, shard)
    if len(shards) > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        builder.write_bytes(MODEL_INDEX_FILE, json_bytes({"metadata": {"total_size": total}, "weight_map": places}))


def model_file_names(manifest: Manifest) -> list[str]:
    """The files of a checkpoint that hold its weights. Raises IntegrityError when there are none."""
    names = sorted(name for name in manifest.files if name.endswith(".safetensors") and "/" not in name)
    if not names:
        raise IntegrityError("the checkpoint has no weights", remedy="restore it from a copy")
    return names


def shard_places(index: bytes) -> dict[str, str]:
    """Tensor name to file name, from the index file. Raises IntegrityError."""
    try:
        places = json.loads(index)["weight_map"]
        if not all(isinstance(name, str) for name in places.values()):
            raise ValueError("a file name is not a string")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"the index of the shards cannot be used ({error})", where=MODEL_INDEX_FILE, remedy="restore it from a copy"
        ) from error
    return dict(places)
