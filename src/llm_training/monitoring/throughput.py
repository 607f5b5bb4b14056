"""Speed of a run from measured steps: tokens per second, time left, model FLOP utilisation.

Pure: the caller passes readings of a monotonic clock; this file reads none. A speed is tokens divided by measured
seconds of the same steps (never by a timestamp), over a recent window, so that it follows the machine. Time between
steps that is not training (evaluation, saving) is kept apart: it does not count as step time, but the time left
includes its share, because the reader waits for it too.
"""

from __future__ import annotations

from collections import deque

DEFAULT_WINDOW_STEPS = 50


class Throughput:
    """Window over the last steps.

    Args:
        window_steps: how many of the latest steps the figures rest on.

    The first measured step of a process carries warm-up (allocator, compiler): it counts only until there is another.
    """

    def __init__(self, window_steps: int = DEFAULT_WINDOW_STEPS) -> None:
        if window_steps < 1:
            raise ValueError(f"window_steps must be at least 1, got {window_steps}")
        self._steps: deque[tuple[int, float]] = deque(maxlen=window_steps)
        self._mark: float | None = None
        self._num_steps = 0
        self._overhead_seconds = 0.0

    def start(self, now_seconds: float) -> None:
        """Begin to measure: the next step is timed from here. After a pause, what lay between counts as overhead."""
        if self._mark is not None:
            self._overhead_seconds += max(0.0, now_seconds - self._mark)
        self._mark = now_seconds

    def step(self, num_tokens: int, now_seconds: float) -> float:
        """Account one step that ended now; returns its seconds (0.0 when the clock did not move or was never started)."""
        seconds = 0.0 if self._mark is None else max(0.0, now_seconds - self._mark)
        self._mark = now_seconds
        if seconds > 0:
            if self._num_steps == 1:
                self._steps.clear()
            self._steps.append((num_tokens, seconds))
            self._num_steps += 1
        return seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the window over its seconds; 0.0 before the first measured step."""
        seconds = sum(seconds for _, seconds in self._steps)
        return sum(tokens for tokens, _ in self._steps) / seconds if seconds > 0 else 0.0

    @property
    def seconds_per_step(self) -> float | None:
        """Mean seconds of a step in the window; None before the first measured step."""
        return sum(seconds for _, seconds in self._steps) / len(self._steps) if self._steps else None

    def eta_seconds(self, step: int, total_steps: int) -> float | None:
        """Seconds until ``total_steps``, evaluation and saving included at their rate so far; None when unknown."""
        per_step = self.seconds_per_step
        if per_step is None:
            return None
        return max(0, total_steps - step) * (per_step + self._overhead_seconds / self._num_steps)


def mfu_fraction(tokens_per_second: float, flops_per_token: float, peak_flops_per_second: float | None) -> float | None:
    """Model FLOP utilisation: true FLOPs of the model per second over the machine's peak; None when the peak is unknown."""
    if not peak_flops_per_second or peak_flops_per_second <= 0:
        return None
    return max(0.0, tokens_per_second * flops_per_token / peak_flops_per_second)
