"""A run that is given minutes instead of steps: the measured speed fixes the number of steps.

The total is set once the first steps have shown the speed, and corrected a few times at fixed shares of the run; each
correction is a recorded join of the plan, at which the learning rate is continuous. So the schedule ends on time even
when the machine's speed drifts, and stays a pure function of the step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from llm_training.training.plan import steps_for_time

FIRST_MEASURE_STEPS = 12
CORRECTION_SHARES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
SMALLEST_CORRECTION = 0.01


@dataclass
class Pacer:
    """Proposes new totals.

    Args:
        deadline_seconds: training time, on the run's clock, at which the last step should end.
        side_share: share of the time that evaluations and saves take.
        most_steps: a length in steps that was given beside the time; the run never gets longer.
    """

    deadline_seconds: float
    side_share: float = 0.0
    most_steps: int | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _done_shares: int = 0
    _measured_steps: int = 0

    def saw_step(self, seconds: float) -> None:
        """Take the duration of one step; the first of a process (start-up, compile) is not typical and is left out."""
        self._measured_steps += 1
        if self._measured_steps > 2:
            self._recent.append(seconds)

    def continue_from(self, share: float) -> None:
        """Count corrections up to this share of the run as done: an earlier session made or replayed them."""
        self._crossed_share(share)

    def propose(self, step: int, total_steps: int, elapsed_seconds: float, *, is_first_plan: bool) -> int | None:
        """A new total at this step, or None to leave it."""
        if len(self._recent) < (3 if is_first_plan else FIRST_MEASURE_STEPS):
            return None
        if is_first_plan:
            is_due = len(self._recent) >= FIRST_MEASURE_STEPS or elapsed_seconds > 0.2 * self.deadline_seconds
        else:
            is_due = self._crossed_share(step / total_steps)
        if not is_due:
            return None
        proposed = self._fitting(step, elapsed_seconds)
        if self.most_steps is not None:
            proposed = min(proposed, self.most_steps)
        changed = abs(proposed - total_steps) > SMALLEST_CORRECTION * total_steps
        return proposed if is_first_plan or changed else None

    def fitting(self, step: int, elapsed_seconds: float) -> int | None:
        """Total steps that the time allows, whatever other length is given; None while the speed is not known."""
        return self._fitting(step, elapsed_seconds) if len(self._recent) >= FIRST_MEASURE_STEPS else None

    def _fitting(self, step: int, elapsed_seconds: float) -> int:
        left = max(0.0, self.deadline_seconds - elapsed_seconds) * (1.0 - self.side_share)
        return steps_for_time(step, left, self._typical_seconds())

    def _crossed_share(self, share: float) -> bool:
        crossed = sum(share >= mark for mark in CORRECTION_SHARES)
        is_new = crossed > self._done_shares
        self._done_shares = max(self._done_shares, crossed)
        return is_new

    def _typical_seconds(self) -> float:
        # The mean, not the median, of recent steps: what slow steps cost has to be paid from the budget too.
        # Outliers beyond four medians (a suspended machine) are held to that.
        bound = 4.0 * median(self._recent)
        return sum(min(seconds, bound) for seconds in self._recent) / len(self._recent)
