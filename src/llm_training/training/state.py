"""What a run knows besides weights and optimizer state: a small record that saves and restores itself."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from llm_training.training.plan import TrainingPlan


@dataclass
class TrainState:
    """Progress of a run. ``step`` counts completed optimizer steps; ``best_loss`` is the lowest held-out loss so far, in nats."""

    plan: TrainingPlan
    step: int = 0
    tokens: int = 0
    elapsed_seconds: float = 0.0
    best_loss: float = math.inf
    best_step: int | None = None
    last_loss: float = math.nan
    skipped_steps: int = 0
    loss_scale: dict[str, Any] = field(default_factory=dict)

    def took_evaluation(self, loss_nats: float) -> bool:
        """Take a held-out loss; True when it is the best so far. NaN is never best."""
        is_best = loss_nats < self.best_loss
        if is_best:
            self.best_loss, self.best_step = loss_nats, self.step
        return is_best

    def as_json(self) -> dict[str, Any]:
        """Legal JSON: infinities and NaN become null."""
        found = asdict(self)
        found["plan"] = self.plan.as_json()
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in found.items()}

    @classmethod
    def from_json(cls, recorded: dict[str, Any]) -> TrainState:
        """The inverse of :meth:`as_json`; keys of other rooms are ignored."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in recorded.items() if key in known}
        values["plan"] = TrainingPlan.from_json(values["plan"])
        values["best_loss"] = math.inf if values.get("best_loss") is None else values["best_loss"]
        values["last_loss"] = math.nan if values.get("last_loss") is None else values["last_loss"]
        return cls(**values)
