"""The way to the terminal: a thread that writes, so that a slow or vanished reader never holds up a training step.

Lasting lines queue up (far more of them than a run prints before the oldest progress is dropped); of the live line
only the newest exists. A reader asleep on a full pipe stops this thread and nothing else; a closed one (``| head``,
a closed terminal) ends the output silently, for training goes on. Bytes go to a duplicate of the stream's descriptor:
Python's own buffered stream would keep a lock that a blocked thread takes into interpreter shutdown.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

# POSIX: a pipe that polls writable takes this much without blocking.
_PIPE_ATOMIC_BYTES = 512
_POLL_SECONDS = 0.1
_ERASE_LINE = "\r\x1b[2K"

Draw = Callable[[int], str]


class Outlet:
    """Writer of lines to one stream.

    Args:
        stream: where to write; None (no stdout at all) swallows everything.
        is_live: whether the last line may be redrawn in place.
        redraw_seconds: least time between two drawings of the live line.
        max_queued: lasting lines held for a reader that is asleep; beyond it the newest are dropped and counted.
        max_queued_droppable: the same for lines of passing interest, which give way first.
    """

    def __init__(
        self,
        stream: IO[str] | None,
        *,
        is_live: bool = False,
        redraw_seconds: float = 0.2,
        max_queued: int = 10_000,
        max_queued_droppable: int = 100,
    ) -> None:
        self._stream = stream
        self._descriptor = _duplicate(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._is_live = is_live
        self._redraw_seconds = redraw_seconds
        self._max_queued = max_queued
        self._max_queued_droppable = max_queued_droppable
        self._lines: deque[str] = deque()
        self._draw: Draw | None = None
        self._is_stale = False
        self._is_line_on_screen = False
        self._deadline: float | None = None
        self.is_broken = stream is None
        self.num_dropped = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="console-writer", daemon=True)
        self._thread.start()

    def say(self, line: str, *, is_droppable: bool = False) -> None:
        """Queue a lasting line; a droppable one is left out while the reader is behind. Never blocks."""
        with self._changed:
            if self.is_broken or self._deadline is not None:
                return
            if len(self._lines) >= (self._max_queued_droppable if is_droppable else self._max_queued):
                self.num_dropped += 1
                return
            self._lines.append(line)
            self._changed.notify()

    def show(self, draw: Draw | None) -> None:
        """Replace the live line: ``draw(width)`` is called in the writing thread, and only when it is shown. None removes it."""
        if not self._is_live:
            return
        with self._changed:
            self._draw = draw
            self._is_stale = True
            self._changed.notify()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Write what is queued, at most for the time given, and stop. Safe to call again."""
        with self._changed:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout_seconds
            self._changed.notify()
        self._thread.join(timeout_seconds + 2 * _POLL_SECONDS)
        if not self._thread.is_alive() and self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def width(self) -> int:
        """Columns of the terminal now (it may be resized), 80 when it does not say."""
        descriptor = self._descriptor
        if descriptor is not None:
            with contextlib.suppress(OSError):
                return os.get_terminal_size(descriptor).columns or 80
        return 80

    def _run(self) -> None:
        try:
            self._write_until_closed()
        finally:
            self.is_broken = True

    def _write_until_closed(self) -> None:
        next_drawing = 0.0
        while not self.is_broken:
            with self._changed:
                while not (self._lines or self._deadline or (self._is_stale and time.monotonic() >= next_drawing)):
                    self._changed.wait(max(0.0, next_drawing - time.monotonic()) if self._is_stale else None)
                lines, self._lines = list(self._lines), deque()
                draw, self._is_stale = self._draw, False
                is_last = self._deadline is not None
            text = "".join(f"{line}\n" for line in lines)
            self._write(self._around_live_line(text, draw, is_last=is_last) if self._is_live else text)
            next_drawing = time.monotonic() + self._redraw_seconds
            if is_last:
                return

    def _around_live_line(self, text: str, draw: Draw | None, *, is_last: bool) -> str:
        """Lasting lines above the live one: erase it, write them, draw it again below."""
        erase = _ERASE_LINE if self._is_line_on_screen else ""
        live = draw(self.width()) if draw is not None else ""
        self._is_line_on_screen = bool(live)
        return f"{erase}{text}{live}" + ("\n" if live and is_last else "")

    def _write(self, text: str) -> None:
        try:
            if self._descriptor is None:
                assert self._stream is not None
                self._stream.write(text)
                self._stream.flush()
            else:
                self._write_bytes(self._descriptor, text.encode(self._encoding, errors="backslashreplace"))
        except (OSError, ValueError):  # the reader is gone: BrokenPipeError, EIO of a dead terminal, a closed file object
            self.is_broken = True

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if not _is_writable(descriptor):
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise TimeoutError("the reader of the output is asleep")
                continue
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(descriptor, view[:_PIPE_ATOMIC_BYTES]) :]


def _duplicate(stream: IO[str] | None) -> int | None:
    """A private descriptor of the stream; None for one that has none (a StringIO, a captured stream)."""
    if stream is None:
        return None
    try:
        stream.flush()
        return os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None


def _is_writable(descriptor: int) -> bool:
    """Whether a small write would not block; always true where the platform cannot poll (Windows: only sockets)."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(_POLL_SECONDS * 1000))
