"""Numbers for readers: counts, sizes, shares, and the round values of an axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(value: float) -> str:
    """At most four characters of digits and a letter: 947, 12.3k, 4.27M."""
    for size, letter in _LARGE:
        if abs(value) >= size * 0.9995:
            return f"{three_digits(value / size)}{letter}"
    return f"{value:,.0f}" if value == int(value) else three_digits(value)


def counted(value: int) -> str:
    """All digits of a number that is read at a glance, else short: 84,312 but 4.27M."""
    return f"{value:,}" if value < 100_000 else short(value)


def three_digits(value: float) -> str:
    """Three significant digits without an exponent or trailing zeros after the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    shown = f"{value:.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def size(num_bytes: float) -> str:
    """Bytes in decimal units: 20.9 MB."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    number = short(num_bytes)
    return f"{number[:-1]} {number[-1]}B"


def share(part: float, whole: float) -> str:
    """A percentage that is 0 % or 100 % only when it is exactly that."""
    if whole <= 0 or part <= 0:
        return "0 %"
    percent = 100 * part / whole
    if part < whole and percent > 99.9:
        return ">99.9 %"
    return "<0.01 %" if percent < 0.01 else f"{three_digits(percent) if percent < 99.95 else '100'} %"


def plural(count: int, noun: str) -> str:
    """``1 document``, ``2,000 documents``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def round_steps(highest: float, most: int = 4) -> list[float]:
    """Round values from the first step up to ``highest``, at most ``most`` of them; zero is not among them."""
    if highest <= 0:
        return []
    step = 10 ** math.floor(math.log10(highest / most))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10, 20) if highest / (step * factor) <= most + 1e-9)
    return [step * number for number in range(1, int(highest / step + 1e-9) + 1)]


def decades(lowest: float, highest: float, most: int = 7) -> list[float]:
    """Powers of ten within a range, thinned to ``most``; halves and fifths are added where the range is narrow."""
    exponents = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        found = [value for value in found if lowest <= value <= highest]
        if len(found) <= most:
            return found
    return thinned(found, most)


def axis_values(lowest: float, highest: float, most: int = 7) -> list[float]:
    """Round values of a logarithmic axis: those of its decades, or evenly spaced ones where that would be fewer than three."""
    found = decades(lowest, highest, most)
    if len(found) > 2:
        return found
    step = round_steps(highest - lowest, most)[0]
    return [step * number for number in range(math.ceil(lowest / step - 1e-9), math.floor(highest / step + 1e-9) + 1)]


def thinned(values: Sequence[float], most: int) -> list[float]:
    """Every n-th value, so that at most ``most`` stay."""
    step = max(1, math.ceil(len(values) / most))
    return list(values[::step])
