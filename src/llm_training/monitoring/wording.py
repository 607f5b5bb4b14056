"""Numbers as a reader wants to see them: durations, sizes, counts. Pure, one spelling for console, summary and plots."""

from __future__ import annotations

import math

UNKNOWN = "--"
_HOUR = 3600
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_COUNT_UNITS = ("", " K", " M", " B", " T")


def eta(seconds: float | None) -> str:
    """``04:23h`` (hours and minutes), below one hour ``04:23m`` (minutes and seconds); never negative."""
    if seconds is None or not math.isfinite(seconds):
        return "--:--"
    whole = max(0, round(seconds))
    if whole >= _HOUR:
        return f"{whole // _HOUR:02d}:{whole % _HOUR // 60:02d}h"
    return f"{whole // 60:02d}:{whole % 60:02d}m"


def duration(seconds: float) -> str:
    """``0.31 s``, ``42 s``, ``4 min 58 s``, ``3 h 07 min``."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 10:
        return f"{max(0.0, seconds):.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // 60:02d} min"


def hours(seconds_as_hours: float | None) -> str:
    """``1.23h``, as the epoch line spells it."""
    return f"{UNKNOWN}h" if seconds_as_hours is None else f"{max(0.0, seconds_as_hours):.2f}h"


def size(num_bytes: float) -> str:
    """Decimal units with three figures: ``82.3 MB``."""
    return _scaled(num_bytes, _BYTE_UNITS, joint=" ")


def count(number: float) -> str:
    """Large counts with three figures: ``967 M``; below 100,000 in full: ``26,235``."""
    if abs(number) < 100_000:
        return f"{number:,.0f}"
    return _scaled(number, _COUNT_UNITS, joint="")


def tick(value: float) -> str:
    """A round count beside an axis: ``500``, ``2,500``, ``100 K``, ``1.5 M``; nothing for a fraction of one."""
    for power, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K")):
        if abs(value) >= power and (power > 1e3 or abs(value) >= 100_000):
            return f"{value / power:,.6g}{unit}"
    return f"{value:,.0f}" if value == round(value) else ""


def figure(value: float | None, decimals: int = 3) -> str:
    """A metric: ``5.583``; ``nan`` stays visible; a missing value is ``--``."""
    return UNKNOWN if value is None else f"{value:,.{decimals}f}"


def _scaled(number: float, units: tuple[str, ...], *, joint: str) -> str:
    scaled, unit = float(number), 0
    while abs(scaled) >= 999.5 and unit + 1 < len(units):
        scaled /= 1000
        unit += 1
    decimals = 0 if unit == 0 or abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
    return f"{scaled:.{decimals}f}{joint}{units[unit]}"
