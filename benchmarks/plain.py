"""The yardstick: one training step as a PyTorch user writes it first. fp32, eager, AdamW as shipped, logits as a whole.

``ours`` variants run this package's step; these run without any of its levers, so that a ratio tells what the levers bring.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.session import Load
from llm_training.model import layers
from llm_training.model.hf_config import to_hf_config
from llm_training.model.init import initialise
from llm_training.model.transformer import Transformer

Loss = Callable[[Tensor, Tensor], Tensor]


class PlainSession:
    """Times steps of a model given as a function from (input ids, labels) to the mean loss."""

    def __init__(self, load: Load, model: nn.Module, loss: Loss) -> None:
        self.model = model
        self._loss = loss
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        tokens = torch.randint(load.spec.vocab_size, (load.rows, load.spec.max_seq_len + 1), generator=torch.Generator().manual_seed(0))
        self._inputs, self._labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        self.seconds_per_step(1)

    def seconds_per_step(self, num_steps: int) -> float:
        """Mean wall seconds of ``num_steps`` steps."""
        start = time.perf_counter()
        for _ in range(num_steps):
            self._optimizer.zero_grad()
            self._loss(self._inputs, self._labels).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()
        return (time.perf_counter() - start) / num_steps


def plain_session(load: Load) -> PlainSession:
    """Our model with the textbook formulas in place of the hand-written CPU passes, and cross-entropy on whole logits."""
    # For the life of this process: the plain formula is the branch that compilers take, here run eagerly.
    mock.patch.object(layers, "_is_eager_cpu", lambda x: False).start()
    model = initialise(Transformer(load.spec), seed=0)
    return PlainSession(load, model, lambda ids, labels: F.cross_entropy(model(ids).flatten(0, 1), labels.flatten()))


def transformers_session(load: Load) -> PlainSession:
    """Qwen3ForCausalLM of the same shape, as transformers ships it."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = {key: value for key, value in to_hf_config(load.spec).items() if key not in ("architectures", "torch_dtype")}
    model = Qwen3ForCausalLM(Qwen3Config(**config))
    return PlainSession(load, model, lambda ids, labels: F.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), labels.flatten()))
