"""Choices that depend on timing or on the machine, written before they take effect and replayed on resume.

``decisions.jsonl`` lies in the run directory. A resumed run takes every recorded choice at the step it was recorded for
instead of choosing anew, so that a killed and resumed run does what the unkilled one did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Decisions:
    """The record of one run.

    Args:
        recorded: what earlier sessions wrote, in order.
        append: writes one record durably (fsync) before returning.
    """

    def __init__(self, recorded: Iterable[Mapping[str, Any]], append: Callable[[Mapping[str, Any]], None]) -> None:
        self._recorded: dict[tuple[int, str], Mapping[str, Any]] = {}
        for record in recorded:
            self._recorded[int(record["step"]), str(record["kind"])] = record
        self._append = append
        self.last_step = max((step for step, _ in self._recorded), default=-1)

    def at(self, step: int, kind: str) -> Mapping[str, Any] | None:
        """The recorded choice of this kind at this step, if there is one."""
        return self._recorded.get((step, kind))

    def is_replaying(self, step: int) -> bool:
        """True while an earlier session has already been past this step: nothing new is decided there."""
        return step <= self.last_step

    def record(self, step: int, kind: str, **choice: Any) -> Mapping[str, Any]:
        """Write a choice and return it; the caller acts on it only afterwards."""
        entry = {"step": step, "kind": kind, **choice}
        self._append(entry)
        self._recorded[step, kind] = entry
        return entry

    def take(self, step: int, kind: str, choose: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The recorded choice, else a new one from ``choose``, recorded."""
        return self.at(step, kind) or self.record(step, kind, **choose())
