"""What goes onto a figure: the loss curve and the page of all training figures. Draws on what it is handed, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_training.monitoring import curves, wording
from llm_training.monitoring.printable import printable
from llm_training.monitoring.series import RunSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e6eaef"
# Okabe and Ito's palette: told apart with any colour vision, and in grey.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4bb2", "#7f7f7f")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#c3ccd6",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.hashsalt": "llm-training",
}
PER_BYTE_ONLY = "the runs have different tokenizers, so their losses per token do not compare: validation in bits per byte only"
_SMALL_PANELS = {
    "rate": "Learning rate",
    "speed": "Throughput, tokens per second",
    "memory": "Memory, GB",
    "progress": "Progress, % of planned steps",
}


def draw_loss_curve(figure: Figure, run: RunSeries) -> None:
    """One run: loss above, its learning rate in a strip below, tokens along the top."""
    _heading(figure, run.name, curves.caption(run))
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
    _draw_loss(loss, run, run.step, PALETTE[0], held_out_colour=PALETTE[1])
    _draw_growth(loss, run)
    _limit_loss(loss, [run])
    _mark_best(loss, run)
    loss.legend(loc="upper right")
    _add_token_axis(loss, run)
    _add_bits_axis(loss, run)
    rate.fill_between(*curves.thin(run.step, run.learning_rate), color=PALETTE[2], alpha=0.22, linewidth=0)
    rate.plot(*curves.thin(run.step, run.learning_rate), color=PALETTE[2], linewidth=1.4)
    rate.set_ylim(bottom=0)
    rate.set_ylabel("learning rate")
    rate.locator_params(axis="y", nbins=2)
    rate.yaxis.set_major_formatter("{x:g}")
    rate.set_xlabel("step")
    rate.set_xlim(0, max(float(run.step[-1]), 1.0) * 1.01)
    _count_axis(rate.xaxis)


def draw_training(figure: Figure, runs: Sequence[RunSeries]) -> None:
    """Loss, learning rate, throughput, memory and progress of one run or several, each in its colour.

    A loss per token means another thing with another tokenizer: such runs show held-out bits per byte in place of losses.
    """
    is_single = len(runs) == 1
    by_bytes = curves.differ_in_tokenizer(runs)
    by_tokens = not is_single and curves.differ_in_step_size(runs)
    names = curves.distinct_names(runs)
    if is_single:
        _heading(figure, names[0], curves.caption(runs[0]))
    else:
        _heading(figure, f"{len(runs)} runs", PER_BYTE_ONLY if by_bytes else "training loss: mean, faint: each step  ·  points: validation")
    panels = figure.subplot_mosaic([["loss", "loss"], ["rate", "speed"], ["memory", "progress"]], height_ratios=(2.2, 1, 1))
    for number, run in enumerate(runs):
        colour = PALETTE[number % len(PALETTE)]
        label = "" if is_single else "   ".join(filter(None, (names[number], curves.result(run))))
        x = run.cumulative_tokens if by_tokens else run.step
        if by_bytes:
            _draw_bits(panels["loss"], run, x, colour, label)
        else:
            _draw_loss(panels["loss"], run, x, colour, held_out_colour=PALETTE[1] if is_single else colour, label=label)
        _draw_small_panels(panels, run, x, colour)
    if is_single:
        _draw_growth(panels["loss"], runs[0])
        _mark_best(panels["loss"], runs[0])
        _add_token_axis(panels["loss"], runs[0])
        _add_bits_axis(panels["loss"], runs[0])
    panels["loss"].legend(loc="upper right")
    _finish_panels(panels, runs, "tokens" if by_tokens else "step")
    if by_bytes:
        panels["loss"].set_ylabel("bits per byte (validation)")
    else:
        _limit_loss(panels["loss"], runs)


def _heading(figure: Figure, title: str, subtitle: str) -> None:
    """Title and caption at fixed distances in inches, so that they look alike in figures of any height."""
    height = figure.get_figheight()
    figure.text(0.018, 1 - 0.16 / height, _literal(title), ha="left", va="top", fontsize=15, fontweight="bold")
    figure.text(0.018, 1 - 0.48 / height, _literal(subtitle), ha="left", va="top", fontsize=10, color=MUTED)
    engine: Any = figure.get_layout_engine()  # the constrained one, whose settings the base class does not declare
    if engine is not None:
        engine.set(rect=(0.008, 0.012, 0.984, 1 - 0.8 / height - 0.012), h_pad=0.06)


def _draw_loss(axes: Axes, run: RunSeries, x: np.ndarray, colour: str, *, held_out_colour: str, label: str = "") -> None:
    """Faint raw loss, strong mean, held-out points of one run. A label names the run; without one the curves are named."""
    axes.plot(*curves.thin(x, run.loss_nats), color=colour, alpha=0.2, linewidth=0.8)
    axes.plot(*curves.thin(x, curves.smoothed_loss(run)), color=colour, linewidth=1.8, label=_literal(label) or "training (mean)")
    if not run.evaluations:
        return
    places = np.interp([each.step for each in run.evaluations], run.step, x)
    losses = [each.loss_nats for each in run.evaluations]
    style = {"marker": "o", "markersize": 5, "markeredgecolor": "white", "linewidth": 1.0, "zorder": 4}
    axes.plot(places, losses, color=held_out_colour, label="" if label else "validation", **style)


def _draw_bits(axes: Axes, run: RunSeries, x: np.ndarray, colour: str, label: str) -> None:
    """Held-out bits per byte of one run; NaN where an evaluation has none."""
    places = np.interp([each.step for each in run.evaluations], run.step, x)
    bits = [np.nan if each.bits_per_byte is None else each.bits_per_byte for each in run.evaluations]
    axes.plot(places, bits, color=colour, marker="o", markersize=5, markeredgecolor="white", linewidth=1.6, label=_literal(label))


def _draw_small_panels(panels: dict[str, Axes], run: RunSeries, x: np.ndarray, colour: str) -> None:
    panels["rate"].plot(*curves.thin(x, run.learning_rate), color=colour, linewidth=1.6)
    panels["speed"].plot(*curves.thin(x, run.tokens_per_second), color=colour, alpha=0.25, linewidth=0.8)
    panels["speed"].plot(*curves.thin(x, curves.smooth(run.tokens_per_second, curves.half_width(len(x)))), color=colour, linewidth=1.6)
    panels["memory"].plot(*curves.thin(x, run.memory_gb), color=colour, linewidth=1.6)
    panels["progress"].plot(*curves.thin(run.elapsed_seconds / 60, run.progress_percent), color=colour, linewidth=1.6)


def _finish_panels(panels: dict[str, Axes], runs: Sequence[RunSeries], unit: str) -> None:
    for key, title in _SMALL_PANELS.items():
        panels[key].set_title(title, loc="left", fontsize=10.5, fontweight="bold")
        panels[key].set_ylim(0, panels[key].get_ylim()[1] * 1.08)
    for key, axes in panels.items():
        axes.margins(x=0.01)
        axes.set_xlabel("minutes" if key == "progress" else unit)
        _count_axis(axes.xaxis)
    _count_axis(panels["speed"].yaxis)
    panels["rate"].yaxis.set_major_formatter("{x:g}")
    if not any(np.nan_to_num(run.memory_gb).any() for run in runs):
        panels["memory"].text(0.5, 0.5, "not recorded", transform=panels["memory"].transAxes, ha="center", va="center", color=MUTED)


def _limit_loss(axes: Axes, runs: Sequence[RunSeries]) -> None:
    axes.set_ylabel("loss, nats per token")
    limits = curves.loss_limits(runs)
    if limits is not None:
        axes.set_ylim(*limits)


def _draw_growth(axes: Axes, run: RunSeries) -> None:
    for step in run.growth_steps:
        axes.axvline(step, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        place = {"xycoords": ("data", "axes fraction"), "xytext": (4, -4), "textcoords": "offset points"}
        axes.annotate("data grew", (step, 1), color=MUTED, fontsize=8, va="top", **place)


def _mark_best(axes: Axes, run: RunSeries) -> None:
    """A star at the final held-out figures, else at the best of them, named to the left above it."""
    from matplotlib.patheffects import withStroke

    best = run.headline
    if best is None:
        return
    axes.plot([best.step], [best.loss_nats], "*", color=PALETTE[1], markersize=15, markeredgecolor="white", zorder=5)
    text = f"{best.loss_nats:.3f}" + (f"\n{best.bits_per_byte:.3f} bits per byte" if best.bits_per_byte is not None else "")
    is_early = best.step < run.step[-1] / 4
    place = {"xytext": (8 if is_early else -8, 16), "textcoords": "offset points", "ha": "left" if is_early else "right"}
    halo = [withStroke(linewidth=4, foreground="white")]  # it may lie on a curve
    axes.annotate(text, (best.step, best.loss_nats), color=PALETTE[1], fontweight="bold", zorder=5, path_effects=halo, **place)


def _add_token_axis(axes: Axes, run: RunSeries) -> None:
    if not run.cumulative_tokens[-1] > 0:
        return
    scales: Any = (partial(curves.tokens_at, run), partial(curves.steps_at, run))
    top = axes.secondary_xaxis("top", functions=scales)
    top.set_xlabel("tokens")
    _count_axis(top.xaxis)


def _add_bits_axis(axes: Axes, run: RunSeries) -> None:
    ratio = curves.bits_per_nat(run)
    if ratio is not None:
        scales: Any = (lambda nats: nats * ratio, lambda bits: bits / ratio)
        right = axes.secondary_yaxis("right", functions=scales)
        right.set_ylabel("bits per byte (validation)")


def _count_axis(axis: Any) -> None:
    axis.set_major_formatter(lambda value, position: wording.tick(value))


def _literal(text: str) -> str:
    """Text for matplotlib, which would read dollar signs as mathematics."""
    return printable(text).replace("$", r"\$")
