"""Progress of long work other than training steps: rate and time left of each task, and when a plain line is due.

Pure of output: it keeps when a task was first seen and formats; the console decides where the line goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.text import Text

from llm_training.events import Progress
from llm_training.monitoring import lines, wording
from llm_training.monitoring.printable import printable

_PLAIN_SECONDS = 10.0
_BYTE_UNITS = ("B", "bytes")


@dataclass(frozen=True)
class Task:
    """State of one task: its newest event, and since when it has been measured."""

    event: Progress
    now_seconds: float
    started_seconds: float
    first_done: float
    last_line_seconds: float

    @property
    def is_finished(self) -> bool:
        """Whether the work is done (a task of unknown total never says so)."""
        return self.event.total is not None and self.event.done >= self.event.total

    @property
    def per_second(self) -> float:
        """Units a second since the task was first seen; 0.0 while unknown."""
        seconds = self.now_seconds - self.started_seconds
        return (self.event.done - self.first_done) / seconds if seconds > 0 else 0.0


class TaskBoard:
    """The tasks under way, by name. A finished one is forgotten, so that its name may start anew."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def update(self, event: Progress, now_seconds: float) -> tuple[Task, bool]:
        """Take in the newest state; returns it and whether a plain line is due: at the end, and every ten seconds before it."""
        task = self._tasks.get(event.task)
        if task is None or event.done < task.event.done:
            task = Task(event, now_seconds, now_seconds, event.done, now_seconds)
        else:
            task = replace(task, event=event, now_seconds=now_seconds)
        is_due = task.is_finished or now_seconds - task.last_line_seconds >= _PLAIN_SECONDS
        if is_due:
            task = replace(task, last_line_seconds=now_seconds)
        self._tasks[event.task] = task
        if task.is_finished:
            del self._tasks[event.task]
        return task, is_due


def finished_line(task: Task) -> Text:
    """The lasting line of a finished task."""
    parts: list[Text | str] = [Text(printable(task.event.task), style="bold cyan")]
    is_counted = not _is_one_piece(task.event)
    if is_counted:
        parts.append(_amount(task.event))
    seconds = task.now_seconds - task.started_seconds
    if seconds >= 0.5 or not is_counted:
        parts.append(Text(f"{wording.duration(seconds)}, {_rate(task)}" if is_counted else wording.duration(seconds), style="dim"))
    return lines.joined(parts)


def progress_line(task: Task) -> Text:
    """Share, amount, rate and time left, for a log."""
    event = task.event
    name = Text(printable(event.task), style="bold")
    if event.total:
        name.append(f" {100 * event.done / event.total:5.1f}%" if not _is_one_piece(event) else " ...", style="not bold")
    if _is_one_piece(event):
        return name
    parts: list[Text | str] = [name, _amount(event)]
    if task.per_second > 0:
        parts.append(Text(_rate(task)))
        if event.total:
            parts.append(lines.labelled("ETA", wording.eta((event.total - event.done) / task.per_second)))
    return lines.joined(parts)


def live_line(task: Task, width: int, glyphs: lines.Glyphs) -> Text:
    """The same fitted into one row, with a bar when the total is known."""
    fraction = task.event.done / task.event.total if task.event.total else None
    return lines.fitted(progress_line(task), fraction, width, glyphs)


def _is_one_piece(event: Progress) -> bool:
    """Work that is only begun and done: an amount and a rate would say nothing."""
    return event.total == 1 and not event.unit


def _rate(task: Task) -> str:
    return f"{_quantity(task.per_second, task.event.unit)}/s"


def _amount(event: Progress) -> Text:
    if event.total is None or event.done >= event.total:
        return Text(_quantity(event.done, event.unit))
    return Text(f"{_quantity(event.done, event.unit)} of {_quantity(event.total, event.unit)}")


def _quantity(amount: float, unit: str) -> str:
    if unit in _BYTE_UNITS:
        return wording.size(amount)
    one = unit.removesuffix("s") if amount == 1 else unit
    return f"{wording.count(amount)} {printable(one)}".rstrip()
