"""``metrics.jsonl``: every fact of a run as one JSON record per line, in order. Other surfaces are drawn from it.

Each record has a ``kind``, the wall-clock ``time`` (Unix seconds) and, where it is about one, the ``step``. Legal JSON
throughout: a value that is not finite is ``null``, and ``nonfinite`` names the field and what it was.

Durability: a record is one ``write``, so a killed process loses none that was emitted; the disk is waited for at each
checkpoint and at the end of the run, so a power cut can lose only records newer than the newest checkpoint, which a
resumed run computes and writes again. When the disk refuses, records wait in memory and follow once it takes them.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_training.errors import StorageError
from llm_training.events import (
    CacheGrown,
    CheckpointRemoved,
    CheckpointSaved,
    EpochCompleted,
    EvaluationCompleted,
    Event,
    Notice,
    PlanReady,
    RunFinished,
    SampleGenerated,
    StepCompleted,
    StepSkipped,
)
from llm_training.storage.append import JsonlAppender

logger = logging.getLogger(__name__)

# Progress is left out: it is of use only while it happens.
KINDS: dict[type[Event], str] = {
    PlanReady: "plan",
    StepCompleted: "step",
    StepSkipped: "skip",
    EvaluationCompleted: "evaluation",
    SampleGenerated: "sample",
    CheckpointSaved: "checkpoint",
    CheckpointRemoved: "checkpoint_removed",
    CacheGrown: "growth",
    EpochCompleted: "epoch",
    Notice: "notice",
    RunFinished: "finish",
}
_FIELD_NAMES = {"loss_nats": "loss", "learning_rate": "lr", "mfu_fraction": "mfu", "is_skipped": "skipped", "is_best": "best"}
_SYNCED_KINDS = frozenset({"checkpoint", "finish"})
_MAX_PENDING = 100_000

VOLATILE_FIELDS = frozenset(
    {
        "time",
        "tokens_per_second",
        "elapsed_seconds",
        "eta_seconds",
        "mfu",
        "data_wait_seconds",
        "memory_bytes",
        "seconds",
        "stall_seconds",
        "write_seconds",
        "elapsed_hours",
        "remaining_hours",
    }
)
"""Fields that tell of the machine rather than of the training: two equal runs may differ in these alone."""


def make_record(event: Event, unix_seconds: float) -> dict[str, Any] | None:
    """The record of an event; None for kinds that are not recorded."""
    kind = KINDS.get(type(event))
    if kind is None:
        return None
    nonfinite: dict[str, str] = {}
    record: dict[str, Any] = {"kind": kind, "time": round(unix_seconds, 3)}
    for field in dataclasses.fields(event):
        name = _FIELD_NAMES.get(field.name, field.name)
        record[name] = _plain(getattr(event, field.name), name, nonfinite)
    if nonfinite:
        record["nonfinite"] = nonfinite
    return record


def _plain(value: Any, name: str, nonfinite: dict[str, str]) -> Any:
    """The value as JSON can hold it; what is not finite is noted under its dotted name."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        nonfinite[name] = str(value)
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}", nonfinite) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{name}.{index}", nonfinite) for index, item in enumerate(value)]
    return str(value)


class MetricsLog:
    """Event-bus subscriber that appends to ``metrics.jsonl``.

    Args:
        path: the log; made when missing.
        resume_step: step of the checkpoint the run goes on from (0: from the beginning). Records beyond it are cut, so
            that the log holds exactly one record per step.
        clock: wall clock in Unix seconds.

    Raises IntegrityError when the log is damaged anywhere but in its last line, StorageError.
    """

    def __init__(self, path: Path, *, resume_step: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._pending: deque[dict[str, Any]] = deque(maxlen=_MAX_PENDING)
        self._is_failing = False
        self._log = JsonlAppender(path)
        self._log.truncate_after(lambda record: _step_of(record) > resume_step)

    def __call__(self, event: Event) -> None:
        """Append the record of an event, after those that still wait."""
        record = make_record(event, self._clock())
        if record is None:
            return
        self._pending.append(record)
        try:
            self._write_pending()
        except StorageError as error:
            if not self._is_failing:
                logger.warning("%s; records wait in memory until the disk takes them", error)
            self._is_failing = True

    def close(self) -> None:
        """Give the file back; the next event would open it again."""
        with suppress(StorageError):
            self._log.close()

    def _write_pending(self) -> None:
        while self._pending:
            record = self._pending[0]
            if record["kind"] in _SYNCED_KINDS:
                with JsonlAppender(self.path, fsync=True) as synced_log:
                    synced_log.append(record)
            else:
                self._log.append(record)
            self._pending.popleft()
        if self._is_failing:
            logger.info("%s is written again, complete", self.path)
        self._is_failing = False


def _step_of(record: Mapping[str, Any]) -> int:
    step = record.get("step")
    return step if isinstance(step, int) else 0
