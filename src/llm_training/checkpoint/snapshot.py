"""What is saved, and the copy of it that a background writer may keep while training changes the original."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from llm_training.checkpoint.finite import non_finite_names
from llm_training.checkpoint.layout import CONFIG_FILE, GENERATION_CONFIG_FILE, MODEL_FILE, STATE_FILE, check_label, loss_from, step_name
from llm_training.errors import NumericError
from llm_training.storage.durable import json_bytes
from llm_training.storage.links import is_plain_name
from llm_training.storage.manifest import MANIFEST_NAME

_FLOAT_TAG = "__float__"
_RESERVED_NAMES = frozenset({CONFIG_FILE, GENERATION_CONFIG_FILE, MODEL_FILE, MANIFEST_NAME, "training_state"})
_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a checkpoint holds.

    Args:
        step: completed optimizer steps.
        model_tensors: weights under their Hugging Face names, any device.
        config: the Hugging Face ``config.json``.
        generation_config: the Hugging Face ``generation_config.json``.
        tokenizer_files: file name to content, beside the weights.
        optimizer_tensors: moments, random states and whatever else is made of numbers.
        state: plain JSON values; non-finite floats are allowed. ``validation_loss`` (nats per token, or None) decides what
            is best.
        labels: names that shall point at this step, as in ``epoch-3`` or ``final``.
    """

    step: int
    model_tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)
    optimizer_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def num_tensor_bytes(self) -> int:
        """Bytes of all tensors, nearly the size on the disk."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.model_tensors.values(), *self.optimizer_tensors.values()))


@dataclass(frozen=True)
class FrozenSnapshot:
    """A snapshot that nothing outside can change: contiguous CPU tensors, and every small file as bytes."""

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    small_files: Mapping[str, bytes]
    labels: tuple[str, ...]
    validation_loss: float | None

    @property
    def num_bytes(self) -> int:
        """Bytes of content; headers and the manifest come on top."""
        tensors = [*self.model.values(), *self.optimizer.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + sum(map(len, self.small_files.values()))

    def require_finite(self) -> None:
        """Raise NumericError naming the tensors that hold NaN or infinity: such a checkpoint is never marked good."""
        bad = non_finite_names([*self.model.items(), *self.optimizer.items()])
        if bad:
            shown = ", ".join(bad[:_MAX_NAMES_SHOWN]) + (f" and {len(bad) - _MAX_NAMES_SHOWN} more" if len(bad) > _MAX_NAMES_SHOWN else "")
            raise NumericError(
                f"NaN or infinity in {shown}, so the checkpoint is not saved",
                where=step_name(self.step),
                remedy="resume from the checkpoint before, with a lower learning rate or more clipping",
            )


class StagingBuffers:
    """CPU memory for one snapshot, allocated at the first save and reused, pinned where the source is on a GPU.

    Reuse is what makes the stall one memory copy: fresh memory costs several times as much in page faults.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def copy(self, group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Contiguous CPU copies of ``tensors``, valid until the next call for this group; GPU copies may still be under way."""
        copies: dict[str, Tensor] = {}
        for name, source in tensors.items():
            buffer = self._buffers.get((group, name))
            if buffer is None or buffer.shape != source.shape or buffer.dtype != source.dtype:
                buffer = torch.empty(source.shape, dtype=source.dtype, device="cpu", pin_memory=source.is_cuda)
                self._buffers[group, name] = buffer
            copies[name] = buffer.copy_(source.detach(), non_blocking=source.is_cuda)
        for key in [key for key in self._buffers if key[0] == group and key[1] not in tensors]:
            del self._buffers[key]
        return copies


def freeze(snapshot: Snapshot, buffers: StagingBuffers | None = None) -> FrozenSnapshot:
    """Take the snapshot apart into what will be written.

    Without ``buffers`` the tensors are borrowed where they lie in CPU memory already, and must not change until they are written.
    Raises ValueError for a label, file name or state that cannot be stored.
    """
    step_name(snapshot.step)
    for name in snapshot.tokenizer_files:
        if not is_plain_name(name) or name in _RESERVED_NAMES or name.startswith("."):
            raise ValueError(f"{name!r} cannot be the name of a tokenizer file in a checkpoint")
    small_files = {CONFIG_FILE: json_bytes(dict(snapshot.config)), GENERATION_CONFIG_FILE: json_bytes(dict(snapshot.generation_config))}
    small_files |= {name: bytes(content) for name, content in snapshot.tokenizer_files.items()}
    small_files[STATE_FILE] = encode_state(snapshot.state)
    groups = [
        _to_cpu(group, tensors, buffers)
        for group, tensors in (("model", snapshot.model_tensors), ("optimizer", snapshot.optimizer_tensors))
    ]
    if buffers is not None and any(tensor.is_cuda for tensor in (*snapshot.model_tensors.values(), *snapshot.optimizer_tensors.values())):
        torch.cuda.synchronize()
    labels = tuple(dict.fromkeys(check_label(label) for label in snapshot.labels))
    return FrozenSnapshot(snapshot.step, groups[0], groups[1], small_files, labels, loss_from(snapshot.state))


def _to_cpu(group: str, tensors: Mapping[str, Tensor], buffers: StagingBuffers | None) -> dict[str, Tensor]:
    if buffers is not None:
        return buffers.copy(group, tensors)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def encode_state(state: Mapping[str, Any]) -> bytes:
    """Plain values as JSON; NaN and infinities become ``{"__float__": "nan"}`` so that the file stays legal JSON.

    Raises ValueError for values that would not come back as they were: other types, keys that are not strings.
    """
    return json_bytes(_to_json(dict(state), "state"))


def decode_state(content: Any) -> Any:
    """The reverse of `encode_state`, on parsed JSON. Tuples have become lists."""
    if isinstance(content, dict):
        mapping = cast("dict[str, Any]", content)
        if set(mapping) == {_FLOAT_TAG}:
            return float(mapping[_FLOAT_TAG])
        return {key: decode_state(value) for key, value in mapping.items()}
    if isinstance(content, list):
        return [decode_state(value) for value in cast("list[Any]", content)]
    return content


def _to_json(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT_TAG: repr(float(value))}
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        if not all(isinstance(key, str) for key in mapping) or _FLOAT_TAG in mapping:
            raise ValueError(f"{place} has a key that JSON would change")
        return {key: _to_json(item, f"{place}.{key}") for key, item in mapping.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item, f"{place}[{index}]") for index, item in enumerate(cast("list[Any]", value))]
    raise ValueError(f"{place} is a {type(value).__name__}; the state takes numbers, strings, lists and mappings")


def state_from_bytes(data: bytes) -> dict[str, Any]:
    """The state of a file whose hash was verified."""
    return cast("dict[str, Any]", decode_state(json.loads(data)))
