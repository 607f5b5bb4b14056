"""Signals become a flag that the loop asks at every step; nothing is interrupted in the middle of a write.

First SIGINT, SIGTERM or SIGHUP-by-terminal: finish the step, save, exit 75. A second SIGINT: stop now, exit 130, the last
committed checkpoint stays. SIGHUP is ignored, so that training outlives a closed terminal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Why the run should stop, or None. Set by signals or by :meth:`request`; read by the loop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._interrupts = 0

    def request(self, reason: str) -> None:
        """Ask for a stop at the next step boundary."""
        if self.reason is None:
            self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is not None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                # No clean-up on purpose: every artefact is committed by rename, so there is nothing to undo.
                os.write(2, b"\nstopped; the last committed checkpoint is kept\n")
                os._exit(130)
            os.write(2, b"\nstopping after this step and a save (interrupt again to stop at once)\n")
        self.request(signal.Signals(number).name)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a :class:`StopFlag` for the block; previous handlers come back after it.

    Outside the main thread no handler can be set: the flag then reacts to :meth:`StopFlag.request` only.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous = {number: signal.signal(number, flag._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "SIGHUP"):
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
