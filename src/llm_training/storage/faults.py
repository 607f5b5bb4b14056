"""Named crash points: places where a test may kill, fail or delay the program.

``LLM_TRAINING_FAULT=ckpt.after_write:kill@3`` kills the process the third time that point is reached; ``raise`` raises a
`StorageError`, ``sleep=0.5`` waits; without ``@n`` every visit counts; several faults are separated by commas. Unset, a
point costs one dictionary look-up. Every bug found by a fault test gets a point here that stays.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from llm_training.errors import ConfigError, StorageError

FAULT_VARIABLE = "LLM_TRAINING_FAULT"
_FAULT = re.compile(r"(?P<point>[a-z_]+(\.[a-z_]+)*):(?P<action>kill|raise|sleep)(=(?P<seconds>\d+(\.\d+)?))?(@(?P<visit>[1-9]\d*))?")

_visits: Counter[str] = Counter()
_visits_lock = threading.Lock()


@dataclass(frozen=True)
class Fault:
    """What to do at a point: at visit number ``visit``, or at every visit when that is None."""

    point: str
    action: str
    seconds: float
    visit: int | None


def _kill(fault: Fault) -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _raise(fault: Fault) -> None:
    raise StorageError("injected fault", where=fault.point, remedy=f"unset {FAULT_VARIABLE}")


def _sleep(fault: Fault) -> None:
    time.sleep(fault.seconds)


_ACTIONS: dict[str, Callable[[Fault], None]] = {"kill": _kill, "raise": _raise, "sleep": _sleep}


@lru_cache(maxsize=16)
def parse_faults(text: str) -> tuple[Fault, ...]:
    """The faults that ``text`` asks for. Raises ConfigError."""
    faults: list[Fault] = []
    for part in text.split(","):
        found = _FAULT.fullmatch(part.strip())
        if found is None or (found["action"] == "sleep") != (found["seconds"] is not None):
            raise ConfigError(
                f"{part.strip()!r} is not a fault",
                where=FAULT_VARIABLE,
                remedy="write point:kill, point:raise or point:sleep=SECONDS, with @N for visit N only",
            )
        faults.append(Fault(found["point"], found["action"], float(found["seconds"] or 0), int(found["visit"]) if found["visit"] else None))
    return tuple(faults)


def crash_point(name: str) -> None:
    """Do here what ``LLM_TRAINING_FAULT`` asks for, if anything."""
    text = os.environ.get(FAULT_VARIABLE)
    if not text:
        return
    with _visits_lock:
        _visits[name] += 1
        visit = _visits[name]
    for fault in parse_faults(text):
        if fault.point == name and fault.visit in (None, visit):
            _ACTIONS[fault.action](fault)


def forget_visits() -> None:
    """Count visits from zero again; for tests that run several cases in one process."""
    with _visits_lock:
        _visits.clear()
