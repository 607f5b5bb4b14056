"""Why a run ends: the plan is done, a signal came, or the hard time limit is near. Asked once a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600.0


@dataclass
class Clock:
    """Training time used, over all sessions of the run. Monotonic: jumps of the wall clock do not touch it.

    ``used_before`` is the time that earlier sessions recorded in the checkpoint.
    """

    now: Callable[[], float]
    used_before: float = 0.0
    started_at: float = 0.0

    def __post_init__(self) -> None:
        self.started_at = self.now()

    def elapsed_seconds(self) -> float:
        """Seconds of training so far, those of earlier sessions included."""
        return self.used_before + max(0.0, self.now() - self.started_at)


@dataclass
class Stopping:
    """``limit_seconds`` is hard; ``save_reserve_seconds`` is kept free for the last save and grows with measured saves."""

    clock: Clock
    limit_seconds: float
    asked_to_stop: Callable[[], str | None]
    save_reserve_seconds: float = 1.0
    longest_step_seconds: float = 0.0

    def saw_step(self, seconds: float) -> None:
        """Remember the longest recent step; an old one fades by 1 % a step."""
        self.longest_step_seconds = max(self.longest_step_seconds * 0.99, seconds)

    def saw_save(self, seconds: float) -> None:
        """Reserve one and a half times the longest save seen."""
        self.save_reserve_seconds = max(self.save_reserve_seconds, 1.5 * seconds)

    def remaining_seconds(self) -> float:
        """Seconds until the hard limit; negative past it."""
        return self.limit_seconds - self.clock.elapsed_seconds()

    def is_out_of_time(self) -> bool:
        """True when one more step and a save may no longer fit before the limit."""
        return self.remaining_seconds() <= self.save_reserve_seconds + self.longest_step_seconds

    def reason(self, step: int, total_steps: int) -> str | None:
        """``finished``, ``time-limit``, the name of a signal, or None to go on."""
        if step >= total_steps:
            return "finished"
        asked = self.asked_to_stop()
        if asked is not None:
            return asked
        return "time-limit" if self.is_out_of_time() else None
