"""What the console says about each event, as styled text. Pure: events in, rich ``Text`` out, nothing is written here.

Colours are the terminal's own sixteen without white, black and yellow, so that they can be read on light and on dark
grounds. Everything that comes from data passes through ``printable``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from rich.text import Text

from llm_training.events import (
    CacheGrown,
    CheckpointSaved,
    EpochCompleted,
    EvaluationCompleted,
    Notice,
    PlanReady,
    SampleGenerated,
    StepCompleted,
    StepSkipped,
)
from llm_training.monitoring import wording
from llm_training.monitoring.printable import printable, printable_lines

_MIN_BAR, _MAX_BAR = 6, 28
_BLOCK_WIDTH = 80
_NOTICE_STYLES = {
    "debug": ("Debug", "dim"),
    "info": ("Note", "dim"),
    "warning": ("Warning", "bold magenta"),
    "error": ("Error", "bold red"),
}


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """Drawing characters, with a spelling for terminals that have none."""

    done: str
    half: str
    rest: str
    rule: str
    quote: str
    arrow: str
    best: str


UNICODE = Glyphs(done="━", half="╸", rest="─", rule="─", quote="│", arrow="→", best="★")
ASCII = Glyphs(done="#", half=">", rest="-", rule="-", quote="|", arrow="->", best="*")


def choose_glyphs(encoding: str | None) -> Glyphs:
    """The drawn set when the stream's encoding has it, else ASCII."""
    try:
        "".join(vars(UNICODE).values()).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def bar(fraction: float, width: int, glyphs: Glyphs) -> Text:
    """A progress bar of ``width`` columns at half-column resolution."""
    halves = round(min(1.0, max(0.0, fraction)) * 2 * width)
    done, half = glyphs.done * (halves // 2), glyphs.half * (halves % 2)
    return Text.assemble((done + half, "cyan"), (glyphs.rest * (width - len(done) - len(half)), "dim"))


def joined(parts: Sequence[Text | str]) -> Text:
    """Parts between dim vertical bars."""
    line = Text()
    for number, part in enumerate(parts):
        line.append(" | " if number else "", style="dim")
        line.append(part)
    return line


def labelled(label: str, value: str, style: str = "bold") -> Text:
    """``Loss: 5.583`` with the label dimmed."""
    return Text.assemble((f"{label}: ", "dim"), (value, style))


def step_position(step: int, total_steps: int) -> Text:
    """``Step   770/26,235 ( 2.9%)``."""
    if total_steps <= 0:
        return Text.assemble(("Step ", "dim"), (f"{step:,}", "bold"))
    percent = 100 * step / total_steps
    counted = f"{step:>{len(str(total_steps))},}"
    return Text.assemble(("Step ", "dim"), (counted, "bold"), (f"/{total_steps:,} ({percent:4.1f}%)", ""))


def progress_parts(event: StepCompleted, validation_loss: float | None) -> tuple[list[Text], list[Text]]:
    """The parts every reader gets (the classic line), and those that are added where there is room, most wanted first."""
    is_bad = event.is_skipped or not math.isfinite(event.loss_nats)
    core = [
        step_position(event.step, event.total_steps),
        labelled("Loss", wording.figure(event.loss_nats), "bold red" if is_bad else "bold"),
        Text.assemble((f"{event.tokens_per_second:,.0f}", "bold"), (" tok/s", "dim")),
        labelled("ETA", wording.eta(event.eta_seconds)),
    ]
    extra = []
    if validation_loss is not None:
        extra.append(labelled("Val", wording.figure(validation_loss), "bold cyan"))
    if event.mfu_fraction is not None:
        extra.append(labelled("MFU", f"{100 * event.mfu_fraction:.1f}%"))
    return core, extra


def progress_line(event: StepCompleted, validation_loss: float | None) -> Text:
    """The whole line, for a log."""
    core, extra = progress_parts(event, validation_loss)
    return joined([*core, *extra])


def live_progress(event: StepCompleted, validation_loss: float | None, width: int, glyphs: Glyphs) -> Text:
    """The line fitted into one row of ``width`` columns: extras while they fit, then a bar in what is left."""
    core, extra = progress_parts(event, validation_loss)
    usable = width - 1  # a full last column makes some terminals wrap
    while joined(core).cell_len > usable and len(core) > 1:
        core.pop(min(2, len(core) - 1))  # in a narrow terminal the speed goes first, then the time left, then the loss
    parts = list(core)
    for part in extra:
        if joined([*parts, part]).cell_len <= usable:
            parts.append(part)
    return fitted(joined(parts), event.step / event.total_steps if event.total_steps > 0 else None, width, glyphs)


def fitted(line: Text, fraction: float | None, width: int, glyphs: Glyphs) -> Text:
    """The line cropped to one row, led by a bar when a fraction is known and there is room for one."""
    room = min(_MAX_BAR, width - 1 - line.cell_len - 2)
    if fraction is not None and room >= _MIN_BAR:
        line = Text("  ").join([bar(fraction, room, glyphs), line])
    line.truncate(width - 1, overflow="crop")
    return line


def rule(title: str, width: int, glyphs: Glyphs) -> Text:
    """A titled rule of at most 80 columns."""
    lead = glyphs.rule * 2
    name = f" {printable(title)} "
    rest = glyphs.rule * max(2, min(width - 1, _BLOCK_WIDTH) - len(lead) - len(name))
    return Text.assemble((lead, "dim"), (name, "bold cyan"), (rest, "dim"))


def table(rows: list[tuple[str, str]]) -> list[Text]:
    """Labels in one column, values in the next; a row without a value spans both."""
    column = max((len(label) for label, value in rows if value), default=0) + 3
    return [
        Text.assemble("  ", (printable(label).ljust(column), "dim"), (printable(value), "")) if value else Text(f"  {printable(label)}")
        for label, value in rows
    ]


def plan(event: PlanReady, width: int, glyphs: Glyphs) -> list[Text]:
    """Everything decided before the first step; ``label: value`` lines are aligned."""
    lines = event.lines or (
        f"Total steps: {event.total_steps:,}",
        f"Warmup: {event.warmup_steps:,} steps",
        f"Step: {event.tokens_per_step:,} tokens",
    )
    rows = []
    for line in lines:
        label, separator, value = line.strip().partition(": ")
        rows.append((label, value.strip()) if separator and len(label) <= 28 else (line.strip(), ""))
    return [rule(event.run_name, width, glyphs), *table(rows), Text("")]


def evaluation(event: EvaluationCompleted, glyphs: Glyphs) -> Text:
    """Held-out figures on one line."""
    name = "Eval" if event.source == "validation" else f"Eval {printable(event.source)}"
    parts: list[Text | str] = [
        Text.assemble((name, "bold cyan"), f" {event.step:,}"),
        labelled("Loss", wording.figure(event.loss_nats)),
        labelled("Perplexity", wording.figure(event.perplexity, 1 if event.perplexity >= 100 else 2)),
    ]
    if event.bits_per_byte is not None:
        parts.append(labelled("Bits/byte", wording.figure(event.bits_per_byte)))
    parts.append(labelled("Accuracy", f"{100 * event.accuracy:.1f}%"))
    for name, loss in event.loss_by_source.items():
        parts.append(labelled(printable(name), wording.figure(math.nan if loss is None else loss)))
    if event.is_best:
        parts.append(Text(f"{glyphs.best} best", style="bold green"))
    parts.append(Text(f"{event.num_tokens:,} tokens in {wording.duration(event.seconds)}", style="dim"))
    return joined(parts)


def checkpoint(event: CheckpointSaved) -> Text:
    """A committed checkpoint: where (within its run), how large, how long training waited."""
    parts: list[Text | str] = [
        Text.assemble(("Saved", "bold green"), f" {event.step:,}"),
        printable("/".join(PurePath(event.path).parts[-2:])),
        Text(wording.size(event.num_bytes)),
        Text(f"waited {wording.duration(event.stall_seconds)}, written in {wording.duration(event.write_seconds)}", style="dim"),
    ]
    if event.labels:
        parts.append(Text(", ".join(printable(label) for label in event.labels), style="green"))
    return joined(parts)


def epoch(event: EpochCompleted) -> Text:
    """``Epoch 1 | Step 5,247 | Elapsed: 1.23h | Remaining: 10.77h``; without a time limit nothing remains to be told."""
    parts: list[Text | str] = [
        Text.assemble(("Epoch", "bold magenta"), f" {event.epoch:,}"),
        Text(f"Step {event.step:,}"),
        labelled("Elapsed", wording.hours(event.elapsed_hours)),
    ]
    if event.remaining_hours is not None:
        parts.append(labelled("Remaining", wording.hours(event.remaining_hours)))
    return joined(parts)


def growth(event: CacheGrown, glyphs: Glyphs) -> Text:
    """``Dataset expanded: 352,217 → 472,240 sequences | Total steps: 19,567 → 26,235``."""
    more = 100 * (event.new_sequences / event.old_sequences - 1) if event.old_sequences else math.inf
    parts: list[Text | str] = [
        Text.assemble(
            ("Dataset expanded", "bold cyan"),
            f": {event.old_sequences:,} {glyphs.arrow} {event.new_sequences:,} sequences",
            (f" (+{more:.1f}%)" if math.isfinite(more) else "", "dim"),
        ),
        labelled("Total steps", f"{event.old_total_steps:,} {glyphs.arrow} {event.new_total_steps:,}"),
        Text(f"from step {event.step:,}", style="dim"),
    ]
    return joined(parts)


def sample(event: SampleGenerated, width: int, glyphs: Glyphs) -> list[Text]:
    """Text of the model behind a quotation bar, folded to the width, the prompt in bold."""
    lines = printable_lines((event.prompt + event.text).rstrip("\n"))
    bold_lines = printable_lines(event.prompt)
    quoted = []
    for number, line in enumerate(lines):
        prompted = len(bold_lines[number]) if number < len(bold_lines) else 0
        text = Text(line)
        text.stylize("bold", 0, prompted)
        quoted.extend(_folded(text, max(20, width - 5)))
    head = Text.assemble(("Sample", "bold cyan"), f" {event.number} of {event.count}", (f", after step {event.step:,}", "dim"))
    return [head, *(Text.assemble((f"  {glyphs.quote} ", "dim"), line) for line in quoted), Text("")]


def _folded(line: Text, width: int) -> list[Text]:
    """Cut into rows of ``width`` cells, not at words: the text may be code."""
    rows = []
    while line.cell_len > width:
        cut = width
        while line[:cut].cell_len > width:
            cut -= 1
        rows.append(line[:cut])
        line = line[cut:]
    return [*rows, line]


def skipped(event: StepSkipped) -> list[Text]:
    """A refused step with the likely causes and remedies."""
    head = joined(
        [
            Text.assemble(("Skipped", "bold red"), f" {event.step:,}"),
            Text(printable(event.reason)),
            Text(f"{event.consecutive} in a row", style="dim"),
        ]
    )
    return [head, *(Text(f"  - {printable(remedy)}") for remedy in event.remedies)]


def notice(event: Notice) -> Text:
    """One line; unknown levels read as notes, ``plain`` has no name before it."""
    if event.level == "plain":
        return Text(printable(event.message))
    name, style = _NOTICE_STYLES.get(event.level.lower(), _NOTICE_STYLES["info"])
    return Text.assemble((name, style), (": ", "dim"), printable(event.message))
