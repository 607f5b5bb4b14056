"""A model with its optimizer and stepper on random tokens, built by the same parts as a real run.

Needs torch and this package's engine only: no configuration, no tokenizer, no cache.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from llm_training.model.init import initialise
from llm_training.model.roles import parameters_by_role
from llm_training.model.sizes import train_flops_per_token
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.peak import synchronize
from llm_training.runtime.world import World
from llm_training.training import dial
from llm_training.training.build import build_stepper
from llm_training.training.guard import LossScale
from llm_training.training.optimizers import OptimizerSet, OptimizerSettings
from llm_training.training.step import MicroBatch, Stepper

MUON = {
    "name": "muon",
    "weight_decay": 0.0,
    "beta1": 0.8,
    "learning_rate": 0.01,
    "embedding_learning_rate": 0.15,
    "muon_learning_rate": 0.03,
}
ADAMW = {
    "name": "adamw",
    "weight_decay": 0.1,
    "beta1": 0.9,
    "learning_rate": 1e-3,
    "embedding_learning_rate": 1e-3,
    "muon_learning_rate": 0,
}
RATES = {"adamw": 1e-4, "embedding": 1e-4, "muon": 1e-4}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a step does: shape, rows of a step, rows of a micro-batch."""

    spec: ModelSpec
    rows: int
    micro_rows: int
    optimizer: str = "muon"
    is_fused: bool = True
    compiles: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * self.spec.max_seq_len

    @property
    def flops_per_step(self) -> float:
        """Forward and backward of the whole step, causal attention as the half it is; the optimizer is not counted."""
        return self.tokens * train_flops_per_token(self.spec, num_tokens=self.spec.max_seq_len)


def default_load(peak_flops: float, *, text_bytes: int = 30_000_000, seconds: float = 300.0, compiles: bool = False) -> Load:
    """What ``llm-train`` without arguments picks on a machine of this speed."""
    choice = dial.choose(flops_per_second=peak_flops, seconds=seconds, total_tokens=None, text_bytes=text_bytes)
    spec = ModelSpec(
        vocab_size=choice.vocab_size,
        hidden_size=choice.hidden_size,
        num_layers=choice.num_layers,
        num_attention_heads=choice.num_attention_heads,
        num_key_value_heads=choice.num_key_value_heads,
        intermediate_size=choice.intermediate_size,
        max_seq_len=choice.sequence_length,
    )
    rows = max(1, choice.global_batch_tokens // choice.sequence_length)
    return Load(spec=spec, rows=rows, micro_rows=rows, compiles=compiles)


def gpt_shape(name: str, *, max_seq_len: int, vocab_size: int = 50_304) -> ModelSpec:
    """Shapes known by their size: ``124M`` (12 layers of 768) and ``1B`` (16 layers of 2,048)."""
    width, layers, heads = {"10M": (384, 6, 3), "124M": (768, 12, 6), "1B": (2048, 16, 16)}[name]
    return ModelSpec(vocab_size=vocab_size, hidden_size=width, num_layers=layers, num_attention_heads=heads, max_seq_len=max_seq_len)


class TimedSession:
    """Builds everything and times steps.

    Attributes:
        batches: the micro-batches of each step in turn; random tokens unless given.
        build_seconds: from nothing to ready, compiling included.
        is_compiled: whether compiling was asked for and worked.
        remarks: what the builder had to say.
    """

    def __init__(
        self,
        load: Load,
        device: Device,
        precision: Precision,
        *,
        compile_cache: Path | None = None,
        batches: Sequence[Sequence[MicroBatch]] = (),
    ) -> None:
        start = time.perf_counter()
        self.load = load
        self.device = device
        self.remarks: list[str] = []
        self._compile_folder = tempfile.TemporaryDirectory(prefix="compile-")
        with torch.device(device.torch):
            self.model = Transformer(load.spec)
        initialise(self.model, seed=0)
        self.optimizer = _make_optimizer(self.model, load, precision)
        self.batches: list[Sequence[MicroBatch]] = list(batches) or [_random_batch(load, seed) for seed in range(4)]
        self.stepper: Stepper = build_stepper(
            self.model,
            self.optimizer,
            device=device,
            precision=precision,
            world=World(),
            seed=0,
            max_grad_norm=1.0,
            loss_scale=LossScale.for_precision(precision.name),
            compiles=load.compiles,
            compile_cache=compile_cache or Path(self._compile_folder.name),
            example=lambda: self.batches[0],
            note=self.remarks.append,
        )
        self.num_steps = 0
        self.step()
        self.build_seconds = time.perf_counter() - start
        self.is_compiled = load.compiles and not self.remarks

    def step(self) -> float:
        """One step; returns the loss. Raises RuntimeError when the numbers are not finite: then the figures mean nothing."""
        outcome = self.stepper.run(self.num_steps, self.batches[self.num_steps % len(self.batches)], RATES)
        self.num_steps += 1
        if not math.isfinite(outcome.loss_nats):
            raise RuntimeError(f"the loss of step {self.num_steps} is not finite")
        return outcome.loss_nats

    def seconds_per_step(self, num_steps: int) -> float:
        """Mean wall seconds of ``num_steps`` steps."""
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(num_steps):
            self.step()
        synchronize(self.device)
        return (time.perf_counter() - start) / num_steps

    def close(self) -> None:
        """Remove the compiler's products."""
        self._compile_folder.cleanup()


def _make_optimizer(model: Transformer, load: Load, precision: Precision) -> OptimizerSet:
    settings = OptimizerSettings(
        **{"muon": MUON, "adamw": ADAMW}[load.optimizer],
        beta2=0.95,
        eps=1e-8,
        muon_momentum=0.95,
        newton_schulz_dtype=torch.float32 if precision.name == "fp32" else torch.bfloat16,
    )
    roles: list[tuple[str, nn.Parameter, str]] = [
        (name, parameter, role) for role, pairs in parameters_by_role(model).items() for name, parameter in pairs
    ]
    return OptimizerSet(roles, settings, fused=load.is_fused)


def _random_batch(load: Load, seed: int) -> Sequence[MicroBatch]:
    tokens = torch.randint(load.spec.vocab_size, (load.rows, load.spec.max_seq_len + 1), generator=torch.Generator().manual_seed(seed))
    parts = tokens.split(load.micro_rows)
    return [MicroBatch(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in parts]
