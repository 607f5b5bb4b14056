"""One optimizer step: micro-batches in, one update out, or none when the numbers are not finite.

The loss of a step is the sum over counted tokens divided by the number of counted tokens in the whole effective batch,
over all micro-batches and ranks. So the gradient does not depend on how the batch was split.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llm_training.runtime.device import Device, Precision
from llm_training.runtime.seeding import seed_step
from llm_training.runtime.world import World
from llm_training.training.guard import LossScale
from llm_training.training.optimizers import OptimizerSet


@dataclass(frozen=True)
class MicroBatch:
    """Tokens of one forward pass. ``input_ids`` and ``labels`` are [B, T] int64 on the CPU; label -100 is not counted.

    ``segment_ids`` [B, T], where given, number the documents of a row from 0 (document-limited attention).
    """

    input_ids: Tensor
    labels: Tensor
    segment_ids: Tensor | None = None

    def num_counted(self) -> int:
        """Labels that enter the loss."""
        return int((self.labels != -100).sum())


@dataclass(frozen=True)
class StepOutcome:
    """What happened. ``loss_nats`` is the mean over counted tokens of the effective batch; NaN when it was not finite."""

    loss_nats: float
    grad_norm: float
    num_tokens: int
    is_skipped: bool


class Stepper:
    """Runs steps on one model. Holds no state that a checkpoint would need, besides the fp16 loss scale.

    ``loss_module`` maps (input_ids, labels[, segment_ids]) to the sum of nats over counted tokens (model.loss.TokenLoss, maybe
    compiled, maybe inside DistributedDataParallel).
    """

    def __init__(
        self,
        loss_module: nn.Module,
        optimizer: OptimizerSet,
        *,
        device: Device,
        precision: Precision,
        world: World,
        seed: int,
        max_grad_norm: float | None,
        has_dropout: bool,
        loss_scale: LossScale,
    ) -> None:
        self.loss_module = loss_module
        self.optimizer = optimizer
        self.device = device
        self.precision = precision
        self.world = world
        self.seed = seed
        self.max_grad_norm = max_grad_norm
        self.has_dropout = has_dropout
        self.loss_scale = loss_scale
        self._parameters = [parameter for parameter in loss_module.parameters() if parameter.requires_grad]

    def run(self, step: int, micro_batches: Sequence[MicroBatch], rates: Mapping[str, float]) -> StepOutcome:
        """Do the update that follows ``step`` completed steps.

        Returns:
            The outcome; with ``is_skipped`` weights and optimizer state are those before the step, on every rank.
        """
        counted = self.world.sum(float(sum(batch.num_counted() for batch in micro_batches)))[0]
        loss_sum = self._accumulate_gradients(step, micro_batches, max(counted, 1.0))
        loss = self.world.sum(loss_sum)[0] / max(counted, 1.0)
        norm = self._unscale_and_clip()
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        if not self.world.any(not is_finite):
            self.optimizer.step(step, rates)
            self.loss_scale.succeeded()
        else:
            is_finite = False
            self.loss_scale.overflowed()
        self.optimizer.zero_grad()
        return StepOutcome(loss if is_finite else math.nan, norm, int(counted), not is_finite)

    def _accumulate_gradients(self, step: int, micro_batches: Sequence[MicroBatch], counted: float) -> float:
        total = torch.zeros((), dtype=torch.float64)
        # Data parallelism averages over ranks; multiplying by their number turns the average into the sum.
        scale = self.loss_scale.value * self.world.size / counted
        for index, batch in enumerate(micro_batches):
            if self.has_dropout:
                seed_step(self.seed, step, index, self.world.rank)
            with self._synchronizing(is_last=index == len(micro_batches) - 1), self.precision.autocast(self.device):
                loss = self.loss_module(*self._moved(batch))
            with self._synchronizing(is_last=index == len(micro_batches) - 1):
                (loss * scale).backward()
            total += loss.detach().double().cpu()
        return total.item()

    def _moved(self, batch: MicroBatch) -> tuple[Tensor, ...]:
        tensors = [batch.input_ids, batch.labels]
        if batch.segment_ids is not None:
            tensors.append(batch.segment_ids)
        if self.device.kind == "cuda":
            return tuple(tensor.pin_memory().to(self.device.torch, non_blocking=True) for tensor in tensors)
        return tuple(tensor.to(self.device.torch) for tensor in tensors)

    def _synchronizing(self, *, is_last: bool) -> contextlib.AbstractContextManager[object]:
        if isinstance(self.loss_module, DistributedDataParallel) and not is_last:
            return self.loss_module.no_sync()
        return contextlib.nullcontext()

    def _unscale_and_clip(self) -> float:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self.loss_scale.value != 1.0:
            for gradient in gradients:
                gradient.mul_(1.0 / self.loss_scale.value)
        norm = nn.utils.get_total_norm(gradients)
        value = float(norm)
        if self.max_grad_norm is not None and math.isfinite(value):
            nn.utils.clip_grads_with_norm_(self._parameters, self.max_grad_norm, norm)
        return value
