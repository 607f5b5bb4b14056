"""Learning-rate schedules: pure functions of (step, plan), so nothing has to be restored and joins are continuous.

A rate is ``floor + (peak - floor) x warmup(step) x shape(progress)``, except that warm-up starts from zero. Warm-up counts
absolute steps; the shapes work on the plan's progress, which is continuous at joins (see plan.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_training.training.plan import TrainingPlan


def _after_warmup(step: int, plan: TrainingPlan) -> float:
    """Progress from the end of warm-up (0) to the end of the schedule (1)."""
    begun = plan.progress(min(plan.warmup_steps, step))
    return (plan.progress(step) - begun) / (1.0 - begun) if begun < 1.0 else 1.0


def wsd(step: int, plan: TrainingPlan) -> float:
    """Warm-up, stable, linear decay to the floor (MiniCPM, arXiv:2404.06395; the linear decay after arXiv:2405.18392)."""
    start = plan.decay_start
    progress = plan.progress(step)
    return 1.0 if progress <= start else (1.0 - progress) / (1.0 - start)


def cosine(step: int, plan: TrainingPlan) -> float:
    """0.5 (1 + cos(pi x progress)) from the end of warm-up (SGDR without restarts, arXiv:1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * _after_warmup(step, plan)))


def linear(step: int, plan: TrainingPlan) -> float:
    """Straight from the peak to the floor."""
    return 1.0 - _after_warmup(step, plan)


def constant(_step: int, _plan: TrainingPlan) -> float:
    """The peak throughout."""
    return 1.0


SCHEDULES: dict[str, Callable[[int, TrainingPlan], float]] = {
    "wsd": wsd,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}


def rate(name: str, step: int, plan: TrainingPlan, *, peak: float, floor: float) -> float:
    """Learning rate for the update that follows ``step`` completed steps.

    During warm-up step s has peak x (s + 1) / (warmup + 1), so the first update already moves the weights and the step
    after warm-up has the peak.
    """
    if step < plan.warmup_steps:
        return peak * (step + 1) / (plan.warmup_steps + 1)
    return floor + (peak - floor) * SCHEDULES[name](step, plan)
