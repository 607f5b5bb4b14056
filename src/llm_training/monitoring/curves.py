"""The arithmetic of pictures: smoothing, thinning, limits, captions. Pure, no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llm_training.monitoring import wording
from llm_training.monitoring.series import RunSeries

_MAX_DRAWN_POINTS = 4_000
_UNSEEN_FRACTION = 0.04
Array = np.ndarray


def half_width(count: int) -> int:
    """Neighbours on each side that a mean over ``count`` points takes in: about a thirtieth of the curve in all."""
    return max(1, count // 60)


def smooth(values: Array, reach: int) -> Array:
    """Mean over the neighbours within ``reach`` on both sides; NaN ignored.

    Centred, because a trailing mean lags behind a falling loss: the window narrows towards the ends to stay so, down to
    half, below which the last noisy points alone would bend the end of the curve.
    """
    count = len(values)
    index = np.arange(count)
    least = max(1, reach // 2)
    near = np.maximum(least, np.minimum(reach, np.minimum(index, count - 1 - index)))
    first, last = np.maximum(0, index - near), np.minimum(count, index + near + 1)
    is_known = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(is_known, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(is_known)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[last] - sums[first]) / (counts[last] - counts[first])


def smoothed_loss(run: RunSeries) -> Array:
    """The mean of the training loss that pictures show."""
    return smooth(run.loss_nats, half_width(len(run.step)))


def thin(x: Array, y: Array, max_points: int = _MAX_DRAWN_POINTS) -> tuple[Array, Array]:
    """At most ``max_points`` points that keep the extremes of every stretch, so that no spike is lost."""
    if len(x) <= max_points:
        return x, y
    kept: list[int] = []
    for part in np.array_split(np.arange(len(x)), max_points // 2):
        finite = part[np.isfinite(y[part])]
        kept.extend(sorted({int(finite[np.argmin(y[finite])]), int(finite[np.argmax(y[finite])])}) if len(finite) else [int(part[0])])
    return x[kept], y[kept]


def loss_limits(runs: Sequence[RunSeries]) -> tuple[float, float] | None:
    """Limits that give the curve the room: the fall of the first 4 % of the steps may leave the picture at the top."""
    values = [np.array([each.loss_nats for each in run.evaluations]) for run in runs]
    for run in runs:
        mean = smoothed_loss(run)
        values.append(mean[int(len(mean) * _UNSEEN_FRACTION) :])
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def differ_in_step_size(runs: Sequence[RunSeries]) -> bool:
    """Whether steps of these runs hold different numbers of tokens, so that only tokens compare them."""
    sizes = [run.cumulative_tokens[-1] / run.step[-1] for run in runs if run.step[-1] > 0]
    return min(sizes, default=0) > 0 and max(sizes) > 1.01 * min(sizes)


def differ_in_tokenizer(runs: Sequence[RunSeries]) -> bool:
    """Whether runs are known to have different tokenizers, so that only figures per byte compare them."""
    return len({run.tokenizer for run in runs if run.tokenizer}) > 1


def tokens_at(run: RunSeries, steps: Array) -> Array:
    """Tokens seen after ``steps``; beyond the record it goes on with the run's mean slope."""
    known_steps, known_tokens = _token_record(run)
    beyond = (steps < 0) | (steps > known_steps[-1])
    return np.where(beyond, steps * (known_tokens[-1] / known_steps[-1]), np.interp(steps, known_steps, known_tokens))


def steps_at(run: RunSeries, tokens: Array) -> Array:
    """The inverse of `tokens_at`."""
    known_steps, known_tokens = _token_record(run)
    beyond = (tokens < 0) | (tokens > known_tokens[-1])
    return np.where(beyond, tokens * (known_steps[-1] / known_tokens[-1]), np.interp(tokens, known_tokens, known_steps))


def _token_record(run: RunSeries) -> tuple[Array, Array]:
    # A resumed log may begin late; the line from the origin stands for what it does not tell.
    return np.concatenate(([0.0], run.step)), np.concatenate(([0.0], run.cumulative_tokens))


def bits_per_nat(run: RunSeries) -> float | None:
    """Bits per byte of one nat per token on the run's held-out text: a constant of that text; None when it is not."""
    ratios = [each.bits_per_byte / each.loss_nats for each in run.evaluations if each.bits_per_byte and each.loss_nats > 0]
    if not ratios or max(ratios) > 1.02 * min(ratios):
        return None
    return float(np.mean(ratios))


def caption(run: RunSeries) -> str:
    """The final figures in one line."""
    mean = smoothed_loss(run)
    training = float(mean[-1])
    parts = [
        f"{run.step[-1]:,.0f} steps",
        f"{wording.count(float(run.cumulative_tokens[-1]))} tokens",
        wording.duration(float(run.elapsed_seconds[-1])),
        f"training loss {training:.3f}" if math.isfinite(training) else "training loss not finite",
    ]
    best = run.headline
    if best is not None:
        parts.append(f"validation loss {best.loss_nats:.3f}")
        if math.isfinite(best.perplexity):
            parts.append(f"perplexity {best.perplexity:,.2f}")
        if best.bits_per_byte is not None:
            parts.append(f"{best.bits_per_byte:.3f} bits per byte")
    return "  ·  ".join(parts)


def result(run: RunSeries) -> str:
    """The run's one figure for a legend: bits per byte, else validation loss, else nothing."""
    best = run.headline
    if best is None:
        return ""
    return f"{best.bits_per_byte:.3f} bits per byte" if best.bits_per_byte is not None else f"validation {best.loss_nats:.3f}"


def distinct_names(runs: Sequence[RunSeries]) -> list[str]:
    """Names of the runs, numbered where two are the same."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]
