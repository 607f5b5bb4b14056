"""A `Distribution` as a histogram on a logarithmic axis, with its median and its 90 % mark."""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_training.report.charts import Bar, Mark, histogram
from llm_training.report.markup import Markup
from llm_training.report.numbers import axis_values, share, short
from llm_training.report.sketches import BINS_PER_DOUBLING, Distribution

# Columns that are read at a glance; more look like noise, fewer hide a second hump.
_MOST_COLUMNS = 36
# Equal values are one narrow column in the middle of an axis, not a block without a scale.
_LEAST_COLUMNS = BINS_PER_DOUBLING


def distribution_histogram(
    title: str, found: Distribution, unit: str, *, show: Callable[[float], str] = short, is_whole: bool = True
) -> Markup:
    """The histogram of a distribution of positive values; ``unit`` names them (``words``), ``is_whole`` when they are counts."""
    if not found.bins:
        return histogram(title, "no values", [], [])
    width = _bins_per_column(max(found.bins) - min(found.bins) + 1)
    first, last = min(found.bins) // width, max(found.bins) // width
    first -= max(0, _LEAST_COLUMNS - (last - first + 1)) // 2
    columns = max(_LEAST_COLUMNS, last - first + 1)
    heights = [0] * columns
    for number, count in found.bins.items():
        heights[number // width - first] += count
    edges = [2 ** ((first + number) * width / BINS_PER_DOUBLING) for number in range(columns + 1)]
    bars = [
        Bar(number / columns, (number + 1) / columns, height, _tip(edges[number], edges[number + 1], height, found.count, unit, show))
        for number, height in enumerate(heights)
    ]
    low, span = math.log2(edges[0]), math.log2(edges[-1] / edges[0])

    def place(value: float) -> float:
        return min(1.0, max(0.0, (math.log2(value) - low) / span))

    ticks = [(place(value), show(value)) for value in axis_values(edges[0], edges[-1]) if not is_whole or value == round(value)]
    median, high = found.quantile(0.5), found.quantile(0.9)
    marks = [Mark(place(median), f"median {show(median)}"), Mark(place(high), f"90 % ≤ {show(high)}")] if median else []
    description = f"{found.count:,} documents, median {show(median)} {unit}, from {show(found.least)} to {show(found.greatest)}"
    return histogram(title, description, bars, ticks, marks)


def _bins_per_column(num_bins: int) -> int:
    return next(width for width in (1, 2, 4, 8, 16, 32, 64) if num_bins / width <= _MOST_COLUMNS or width == 64)


def _tip(low: float, high: float, count: int, total: int, unit: str, show: Callable[[float], str]) -> str:
    return f"{show(low)} to {show(high)} {unit}: {count:,} documents, {share(count, total)}"
