"""Charts as SVG from plain values, without a viewBox: widths are percentages and letters are pixels.

So a chart is as wide as its place and its letters have the same size on a telephone and on a large screen. Colours are
classes (``s1`` to ``s5``) that the theme fills in. Each chart says in ``title`` and ``desc`` what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

from llm_training.report.markup import Markup, joined, tag
from llm_training.report.numbers import round_steps, short

PLOT_HEIGHT, HEAD, FOOT = 170, 34, 26
LEVEL_HEIGHT = 14
ROW_HEIGHT = 7
# Pixels of a letter of a label, and of the narrowest chart: that of a telephone.
_LETTER, _NARROWEST = 7.5, 250


@dataclass(frozen=True)
class Bar:
    """A column of a histogram: its range on the axis as fractions of the width, its height as a count."""

    start: float
    stop: float
    value: float
    tip: str


@dataclass(frozen=True)
class Mark:
    """A vertical line with a label: a median, a limit. ``at`` is a fraction of the width."""

    at: float
    label: str


@dataclass(frozen=True)
class Row:
    """One horizontal bar: parts as (series class, value), the words left and right of it, what a pointer shows."""

    label: str
    parts: Sequence[tuple[str, float]]
    shown: str
    tip: str = ""


def histogram(title: str, description: str, bars: Sequence[Bar], ticks: Sequence[tuple[float, str]], marks: Sequence[Mark] = ()) -> Markup:
    """Columns over an axis, with the words of the other axis left of it. ``ticks`` are (fraction of the width, words)."""
    highest = max((bar.value for bar in bars), default=0) or 1
    floor = HEAD + PLOT_HEIGHT
    steps = [(floor - PLOT_HEIGHT * step / highest, short(step)) for step in round_steps(highest, 4) if step == int(step)]
    drawn = [tag("line", class_="rule", x1="0", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}") for y, _ in steps]
    drawn += [_column(bar, PLOT_HEIGHT * bar.value / highest, floor) for bar in bars if bar.value > 0]
    drawn.append(tag("line", class_="axis", x1="0", x2="100%", y1=floor + 0.5, y2=floor + 0.5))
    drawn += [tag("text", words, class_="tick", x="-8", y=f"{y + 4:.1f}", text_anchor="end") for y, words in steps]
    drawn += [_tick(at, words, floor) for at, words in ticks]
    drawn += [_mark(mark, level, anchor, floor) for mark, (level, anchor) in zip(marks, placed(marks), strict=True)]
    return _svg(title, description, floor + FOOT, drawn)


def placed(marks: Sequence[Mark]) -> Sequence[tuple[int, str]]:
    """A level (0 is the top) and an anchor for the label of each of a few marks.

    The line of a mark goes down from its label, so a label may not lie where the line of a higher one passes; and none may leave
    the chart.
    """
    choices = (
        list(zip(levels, anchors, strict=True))
        for levels in permutations(range(len(marks)))
        for anchors in product(("start", "end"), repeat=len(marks))
    )
    return min(choices, key=lambda choice: _crossing(marks, choice))


def label_span(mark: Mark, anchor: str, width: float = _NARROWEST) -> tuple[float, float]:
    """Where a label begins and ends, as fractions of the width of a chart of ``width`` pixels."""
    size = _LETTER * len(mark.label) / width
    return (mark.at, mark.at + size) if anchor == "start" else (mark.at - size, mark.at)


def _crossing(marks: Sequence[Mark], choice: Sequence[tuple[int, str]]) -> float:
    """How bad a placing is: what of labels lies outside, and ten times what of them lies over the lines of others."""
    cost = 0.0
    for mark, (level, anchor) in zip(marks, choice, strict=True):
        start, stop = label_span(mark, anchor)
        cost += max(0.0, -start) + max(0.0, stop - 1)
        for other, (above, _) in zip(marks, choice, strict=True):
            if above < level:
                cost += 10 * max(0.0, min(other.at - start, stop - other.at) + 0.01)
    return cost


def rows(entries: Sequence[Row], *, whole: float | None = None) -> Markup:
    """Horizontal bars on one scale, ``whole`` or the longest bar; the words above them are text, so they shorten to fit."""
    longest = whole or max((sum(value for _, value in row.parts) for row in entries), default=0) or 1
    return tag("ul", *(_row(row, longest) for row in entries), class_="rows")


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """(series class, name) pairs."""
    return tag("p", *(tag("span", tag("span", class_=f"key {series}"), name) for series, name in entries), class_="legend")


def _svg(title: str, description: str, height: float, drawn: Sequence[Markup]) -> Markup:
    head = (tag("title", title), tag("desc", description))
    return tag("svg", *head, *drawn, role="img", aria_label=f"{title}: {description}", class_="plot", height=f"{height:g}")


def _column(bar: Bar, height: float, floor: float) -> Markup:
    gap = min(0.2, 10 * (bar.stop - bar.start))
    x, width = 100 * bar.start + gap / 2, max(0.3, 100 * (bar.stop - bar.start) - gap)
    return tag(
        "rect", tag("title", bar.tip), class_="bar s1", x=f"{x:.3f}%", width=f"{width:.3f}%",
        y=f"{floor - max(1.0, height):.1f}", height=f"{max(1.0, height):.1f}", rx="1.5", data_tip=bar.tip,
    )  # fmt: skip


def _tick(at: float, words: str, floor: float) -> Markup:
    return joined(
        tag("line", class_="axis", x1=_percent(at), x2=_percent(at), y1=floor, y2=floor + 4),
        tag("text", words, class_="tick", x=_percent(at), y=floor + 18, text_anchor=_anchor(at, 0.04)),
    )


def _mark(mark: Mark, level: int, anchor: str, floor: float) -> Markup:
    y = 12 + LEVEL_HEIGHT * level
    return joined(
        tag("line", class_="mark", x1=_percent(mark.at), x2=_percent(mark.at), y1=y + 5, y2=floor),
        tag("text", mark.label, class_="marked", x=_percent(mark.at), y=y, text_anchor=anchor),
    )


def _row(row: Row, longest: float) -> Markup:
    tip = row.tip or f"{row.label}: {row.shown}"
    drawn = [tag("rect", class_="track", x="0", width="100%", y="0", height=ROW_HEIGHT, rx="3.5")]
    start = 0.0
    for series, value in row.parts:
        if value > 0:
            width = max(0.4, 100 * value / longest)
            drawn.append(
                tag("rect", class_=f"bar {series}", x=_percent(start), width=_percent(width / 100), y="0", height=ROW_HEIGHT, rx="3.5")
            )
            start += value / longest
    bar = tag("svg", *drawn, width="100%", height=ROW_HEIGHT, aria_hidden="true")
    label = tag("span", tag("bdi", row.label), class_="label", title=row.label)
    return tag("li", label, tag("span", row.shown, class_="value"), bar, data_tip=tip)


def _anchor(at: float, margin: float) -> str:
    return "start" if at < margin else "end" if at > 1 - margin else "middle"


def _percent(at: float) -> str:
    return f"{100 * at:.3f}%"
