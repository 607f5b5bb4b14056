"""The console: what a person sees of a run. One live line in a terminal, plain lines everywhere else.

A sink like any other: it is told events and prints them. Formatting is in ``lines`` (pure), writing in ``outlet`` (a
thread), so a step never waits for a terminal. It chose not to use ``rich.live``: that writes from its own thread under a
lock that the training thread takes as well, and blocks with it when the reader sleeps.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Any

from rich.console import Console as Renderer
from rich.text import Text

from llm_training.events import (
    CacheGrown,
    CheckpointSaved,
    EpochCompleted,
    EvaluationCompleted,
    Event,
    Notice,
    PlanReady,
    Progress,
    RunFinished,
    SampleGenerated,
    StepCompleted,
    StepSkipped,
)
from llm_training.monitoring import lines, tasks, wording
from llm_training.monitoring.outlet import Outlet

_ENDINGS = {
    "finished": "finished",
    "time-limit": "stopped at the time limit; the same command resumes",
    "signal": "stopped by a signal; the same command resumes",
    "numeric": "stopped: the loss is no longer finite",
}


def wants_live_line(stream: IO[str] | None, mode: str, environ: Mapping[str, str]) -> bool:
    """``auto`` draws in place only in a capable terminal: a TTY whose TERM is neither empty nor dumb."""
    if mode != "auto":
        return mode == "rich"
    try:
        is_terminal = stream is not None and stream.isatty()
    except ValueError:  # a closed file object
        is_terminal = False
    return is_terminal and (os.name == "nt" or environ.get("TERM", "") not in ("", "dumb"))


class Console:
    """Event-bus subscriber that prints.

    Args:
        stream: where to print; stdout by default.
        mode: ``auto``, ``rich`` (always live and coloured) or ``plain``.
        logging_steps: steps between plain progress lines; in a terminal the live line shows every step.
        environ: variables asked for TERM, NO_COLOR and COLORTERM.

    Use as a context manager, or call ``close`` at the end: it waits at most a second for a slow reader.
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        mode: str = "auto",
        logging_steps: int = 10,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        stream = sys.stdout if stream is None else stream
        environ = os.environ if environ is None else environ
        self.is_live = wants_live_line(stream, mode, environ)
        self._logging_steps = max(1, logging_steps)
        self._glyphs = lines.choose_glyphs(getattr(stream, "encoding", None) or ("utf-8" if stream is not None else None))
        self._renderer = _make_renderer(environ) if self.is_live else None
        self._outlet = Outlet(stream, is_live=self.is_live)
        self._tasks = tasks.TaskBoard()
        self._last_step: StepCompleted | None = None
        self._last_printed_step = -1
        self._validation: EvaluationCompleted | None = None
        self._best: EvaluationCompleted | None = None
        self._final: EvaluationCompleted | None = None
        self._tokens = 0
        self._first_step = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            PlanReady: lambda event: self._say(*lines.plan(event, self._outlet.width(), self._glyphs)),
            StepCompleted: self._on_step,
            EvaluationCompleted: self._on_evaluation,
            SampleGenerated: lambda event: self._say(*lines.sample(event, self._outlet.width(), self._glyphs)),
            CheckpointSaved: lambda event: self._say(lines.checkpoint(event)),
            StepSkipped: lambda event: self._say(*lines.skipped(event)),
            CacheGrown: lambda event: self._say(lines.growth(event, self._glyphs)),
            EpochCompleted: lambda event: self._say(lines.epoch(event)),
            Notice: lambda event: self._say(lines.notice(event)),
            Progress: self._on_progress,
            RunFinished: self._on_finish,
        }

    def __call__(self, event: Event) -> None:
        """Print one event; kinds the console does not show are passed over."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the writer finish, waiting at most a second."""
        self._outlet.close()

    def logging_handler(self) -> logging.Handler:
        """A handler that prints log records as notices, above the live line instead of through it."""
        return _LoggingHandler(self)

    def say(self, text: str) -> None:
        """Print lines that belong to no event (paths, the next commands); control characters are made visible."""
        self._say(*(Text(line) for line in lines.printable_lines(text)))

    def _say(self, *texts: Text, is_droppable: bool = False) -> None:
        for text in texts:
            self._outlet.say(self._rendered(text), is_droppable=is_droppable)

    def _rendered(self, text: Text) -> str:
        if self._renderer is None:
            return text.plain.rstrip()
        with self._renderer.capture() as capture:
            self._renderer.print(text, end="", soft_wrap=True)
        return capture.get()

    def _on_step(self, event: StepCompleted) -> None:
        previous, self._last_step = self._last_step, event
        if not event.is_skipped:
            self._tokens += event.tokens
        if previous is None:
            self._first_step = event.step
        validation_loss = self._validation.loss_nats if self._validation is not None else None
        if self._renderer is not None:
            self._outlet.show(lambda width: self._rendered(lines.live_progress(event, validation_loss, width, self._glyphs)))
        elif previous is None or event.step % self._logging_steps == 0 or event.step == event.total_steps:
            self._print_step(event, validation_loss)

    def _print_step(self, event: StepCompleted, validation_loss: float | None) -> None:
        if event.step != self._last_printed_step:
            self._last_printed_step = event.step
            self._say(lines.progress_line(event, validation_loss), is_droppable=True)

    def _on_evaluation(self, event: EvaluationCompleted) -> None:
        if event.source == "validation":
            self._validation = event
            if event.is_best or self._best is None:
                self._best = event
        elif event.source == "final":
            self._final = event
        self._say(lines.evaluation(event, self._glyphs))

    def _on_progress(self, event: Progress) -> None:
        task, is_due = self._tasks.update(event, time.monotonic())
        if task.is_finished:
            self._outlet.show(None)
            self._say(tasks.finished_line(task))
        elif self._renderer is not None:
            self._outlet.show(lambda width: self._rendered(tasks.live_line(task, width, self._glyphs)))
        elif is_due:
            self._say(tasks.progress_line(task), is_droppable=True)

    def _on_finish(self, event: RunFinished) -> None:
        if self._last_step is not None:
            last_loss = self._validation.loss_nats if self._validation is not None else None
            self._outlet.show(None)
            self._print_step(self._last_step, last_loss)
        ending = _ENDINGS.get(event.reason, event.reason)
        self._say(Text(""), lines.rule(ending, self._outlet.width(), self._glyphs), *lines.table(self._summary(event)), Text(""))

    def _summary(self, event: RunFinished) -> list[tuple[str, str]]:
        rows = [("Steps", f"{event.step:,}"), ("Time", wording.duration(event.elapsed_seconds))]
        if self._last_step is not None:
            since = "" if self._first_step <= 1 else " since the resume"
            rows.append(("Tokens", f"{wording.count(self._tokens)}{since}"))
            rows.append(("Speed", f"{self._last_step.tokens_per_second:,.0f} tok/s at the end"))
            rows.append(("Training loss", wording.figure(self._last_step.loss_nats)))
        told = self._final or self._best
        if told is not None:
            which = f"{told.num_tokens:,} held-out tokens" if told is self._final else f"best, step {told.step:,}"
            rows.append(("Validation loss", f"{wording.figure(told.loss_nats)} ({which})"))
            rows.append(("Perplexity", wording.figure(told.perplexity, 2)))
            if told.bits_per_byte is not None:
                rows.append(("Bits per byte", wording.figure(told.bits_per_byte)))
        if event.checkpoint:
            rows.append(("Checkpoint", event.checkpoint))
        return rows


class _LoggingHandler(logging.Handler):
    """Log records as notices of the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._console(Notice(message=record.getMessage(), level=record.levelname.lower()))
        except Exception:  # logging must never raise into the code that logs
            self.handleError(record)


def _make_renderer(environ: Mapping[str, str]) -> Renderer:
    """Turns styled text into escape sequences; it writes nowhere, and its width never folds a line (the terminal does)."""
    return Renderer(
        file=io.StringIO(),
        force_terminal=True,
        width=10_000,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ=environ,
    )
