"""The guard against numbers that are not finite: what a skipped step means, and when enough is enough.

A step whose loss or gradient is not finite leaves weights and optimizer state untouched, is counted and logged as NaN,
and is never averaged away. After N in a row the run stops with exit 6, its last good checkpoint on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_training.errors import NumericError

REMEDIES = (
    "lower training.learning_rate and training.muon_learning_rate",
    "raise training.warmup_steps",
    "lower training.max_grad_norm",
    "use training.precision fp32 (fp16 overflows first)",
    "look at the data of these steps: llm-logs --training-id RUN --data STEP",
)


@dataclass
class LossScale:
    """Dynamic scale of fp16 losses (Micikevicius et al., arXiv:1710.03740); 1 and inert in other precisions.

    Doubles after 2,000 good steps in a row, halves when a gradient overflows. Saved in the checkpoint's state.
    """

    value: float = 1.0
    good_steps: int = 0
    is_dynamic: bool = False
    growth_interval: int = 2_000

    @classmethod
    def for_precision(cls, name: str) -> LossScale:
        """A dynamic scale for fp16, the inert one for every other precision."""
        return cls(value=65_536.0, is_dynamic=True) if name == "fp16" else cls()

    def succeeded(self) -> None:
        """One step without overflow."""
        if self.is_dynamic:
            self.good_steps += 1
            if self.good_steps >= self.growth_interval:
                self.value, self.good_steps = min(self.value * 2.0, 2.0**24), 0

    def overflowed(self) -> None:
        """One step whose gradients were not finite at this scale."""
        if self.is_dynamic:
            self.value, self.good_steps = max(self.value / 2.0, 1.0), 0

    @property
    def is_searching(self) -> bool:
        """True while overflows only mean that the scale is still too high."""
        return self.is_dynamic and self.value > 1.0


@dataclass
class Guard:
    """Counts skipped steps in a row and stops the run after ``limit`` of them."""

    limit: int
    consecutive: int = 0
    total: int = 0

    def account(self, *, step: int, is_skipped: bool) -> None:
        """Take note of one step.

        Raises:
            NumericError: the limit of consecutive skipped steps is reached.
        """
        if not is_skipped:
            self.consecutive = 0
            return
        self.consecutive += 1
        self.total += 1
        if self.consecutive >= self.limit:
            raise NumericError(
                f"loss or gradient was not finite in {self.consecutive} steps in a row",
                where=f"step {step}",
                remedy="the weights are those before these steps; likely remedies: " + "; ".join(REMEDIES),
            )
