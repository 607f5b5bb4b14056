"""The one place where the parts of a training session are put together.

It takes values and callables, knows no file and prints nothing; jobs/train.py decides what they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llm_training.model.loss import TokenLoss
from llm_training.model.roles import parameters_by_role
from llm_training.model.transformer import Transformer
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.world import World
from llm_training.training.compiling import compile_checked
from llm_training.training.guard import LossScale
from llm_training.training.optimizers import OptimizerSet, OptimizerSettings
from llm_training.training.plan import TrainingPlan
from llm_training.training.schedules import rate
from llm_training.training.step import MicroBatch, Stepper

# Buffers are tables that every rank computes alike. Torch 2.13 gave the argument another name and warns about the old one.
_IS_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _IS_RENAMED else "broadcast_buffers": False}


@dataclass(frozen=True)
class RateSettings:
    """Peaks and floor of the schedule. ``floor`` is in units of AdamW's rate; the others' floors are the same share of their peaks."""

    schedule: str
    adamw_peak: float
    embedding_peak: float
    muon_peak: float
    floor: float

    def at(self, step: int, plan: TrainingPlan) -> dict[str, float]:
        """Rates of the update that follows ``step`` completed steps."""
        share = self.floor / self.adamw_peak if self.adamw_peak else 0.0
        peaks = {"adamw": self.adamw_peak, "embedding": self.embedding_peak, "muon": self.muon_peak}
        return {name: rate(self.schedule, step, plan, peak=peak, floor=peak * share) for name, peak in peaks.items()}


def build_optimizer(model: Transformer, settings: OptimizerSettings, device: Device) -> OptimizerSet:
    """The optimizers of a model by the roles of its parameters."""
    roles = [(name, parameter, role) for role, pairs in parameters_by_role(model).items() for name, parameter in pairs]
    return OptimizerSet(roles, settings, fused=device.kind in ("cpu", "cuda"))


def build_stepper(
    model: Transformer,
    optimizer: OptimizerSet,
    *,
    device: Device,
    precision: Precision,
    world: World,
    seed: int,
    max_grad_norm: float | None,
    loss_scale: LossScale,
    compiles: bool,
    compile_cache: Path,
    example: Callable[[], Sequence[MicroBatch]],
    note: Callable[[str], None],
) -> Stepper:
    """The runner of steps: the loss module, compiled when asked for and checked, inside data parallelism when there are ranks.

    Args:
        example: a first micro-batch, for the comparison of compiled and eager.
        note: takes a line for the reader.
    """
    token_loss = TokenLoss(model)
    loss_module: nn.Module = token_loss
    if compiles:
        loss_module, problem = compile_checked(
            token_loss, lambda module: _forward_backward(module, example()[0], device, precision), device, cache_dir=compile_cache
        )
        optimizer.zero_grad()
        if problem:
            note(problem)
    if world.size > 1:
        loss_module = DistributedDataParallel(
            loss_module,
            device_ids=[device.index] if device.kind == "cuda" else None,
            gradient_as_bucket_view=True,
            **_NO_BUFFER_SYNC,
        )
    return Stepper(
        loss_module,
        optimizer,
        device=device,
        precision=precision,
        world=world,
        seed=seed,
        max_grad_norm=max_grad_norm,
        has_dropout=bool(model.spec.dropout or model.spec.attention_dropout),
        loss_scale=loss_scale,
    )


def _forward_backward(module: nn.Module, batch: MicroBatch, device: Device, precision: Precision) -> Tensor:
    """Mean loss of one micro-batch, with the backward pass done. Dropout draws the same numbers each time."""
    torch.manual_seed(0)
    arguments = [batch.input_ids, batch.labels] + ([] if batch.segment_ids is None else [batch.segment_ids])
    with precision.autocast(device):
        loss = module(*(tensor.to(device.torch) for tensor in arguments))
    loss = loss / max(1, batch.num_counted())
    loss.backward()
    return loss.detach()
