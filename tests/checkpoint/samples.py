"""Small snapshots for the tests of this room."""

from __future__ import annotations

from typing import Any

import torch

from llm_training.checkpoint.layout import CheckpointRef
from llm_training.checkpoint.load import load_model_tensors, load_optimizer_tensors
from llm_training.checkpoint.snapshot import Snapshot


def snapshot(step: int, *, loss: float | None = None, labels: tuple[str, ...] = (), **state: Any) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    return Snapshot(
        step=step,
        model_tensors={"embed.weight": torch.randn(7, 4, generator=generator), "norm.weight": torch.ones(4, dtype=torch.bfloat16)},
        config={"model_type": "qwen3", "hidden_size": 4},
        generation_config={"eos_token_id": 0},
        tokenizer_files={"tokenizer.json": b'{"version": "1.0"}', "special_tokens_map.json": b"{}"},
        optimizer_tensors={"embed.weight.exp_avg": torch.randn(7, 4, generator=generator), "step": torch.tensor(step)},
        state={"step": step, "validation_loss": loss, **state},
        labels=labels,
    )


def assert_holds(ref: CheckpointRef, wanted: Snapshot) -> None:
    for loaded, expected in ((load_model_tensors(ref), wanted.model_tensors), (load_optimizer_tensors(ref), wanted.optimizer_tensors)):
        assert set(loaded) == set(expected)
        assert all(torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in expected.items())
