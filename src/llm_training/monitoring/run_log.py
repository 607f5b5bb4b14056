"""The JSON run log: one document per run with its metadata and a table of points, for people and spreadsheets.

``training_logs/<model>_run_<n>.json`` is a view of ``metrics.jsonl``, which is the record: it is replaced as a whole at
intervals, and a resumed run draws its past from the metrics, so nothing is lost between two writings. Its cost is
bounded: at most ``max_points`` points (every second one goes when there are more), and at most 0.5 % of the run's time.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_training.errors import IntegrityError, StorageError
from llm_training.events import CacheGrown, Event, PlanReady, RunFinished, StepCompleted
from llm_training.storage.append import read_jsonl
from llm_training.storage.durable import make_directory, write_bytes
from llm_training.storage.reading import read_json
from llm_training.storage.runs import parse_run_name, safe_name

logger = logging.getLogger(__name__)

_COST_FACTOR = 200


def run_log_path(directory: Path, run_name: str) -> Path:
    """``<directory>/<model>_run_<n>.json``; a run name without a number counts as run 1."""
    name = run_name if parse_run_name(run_name) else f"{safe_name(run_name)}_run_1"
    return directory / f"{name}.json"


def model_name(run_name: str) -> str:
    """The run name without its number: ``415M_FineWeb_512``."""
    parsed = parse_run_name(run_name)
    return f"{parsed.size}_{parsed.dataset}_{parsed.sequence_length}" if parsed else run_name


class RunLog:
    """Event-bus subscriber that keeps the JSON run log.

    Args:
        path: the document; see `run_log_path`.
        name: of the run or the model; the metadata hold it without the run number.
        metrics: the run's ``metrics.jsonl``, from which a resumed run takes its past.
        logging_steps: steps between points.
        interval_seconds: least time between two writings; the first is at the plan, the last at the end.
        max_points: points kept.
        clock: wall clock in Unix seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        metrics: Path | None = None,
        resume_step: int = 0,
        logging_steps: int = 10,
        interval_seconds: float = 30.0,
        max_points: int = 5_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._max_points = max_points
        self._stride_steps = max(1, logging_steps)
        self._tokens_per_step = 0
        self._metadata: dict[str, Any] = {
            "model_name": model_name(name),
            "start_time": _started(path) if resume_step else None,
            "total_steps": 0,
            "target_tokens": 0,
        }
        self._points: list[dict[str, Any]] = []
        self._newest: dict[str, Any] | None = None
        self._next_write_seconds = -math.inf
        self._has_warned = False
        if resume_step and metrics is not None:
            self._recover(read_jsonl(metrics), resume_step)

    def __call__(self, event: Event) -> None:
        """Take in an event; write when it is time."""
        if isinstance(event, StepCompleted):
            self._set_total(event.total_steps)
            self._add(
                _table_row(event.step, self._clock(), event.loss_nats, event.learning_rate, event.tokens_per_second, event.memory_bytes)
            )
            self._write_if_due()
        elif isinstance(event, PlanReady):
            self._tokens_per_step = event.tokens_per_step
            self._set_total(event.total_steps)
            self._metadata["start_time"] = self._metadata["start_time"] or _timestamp(self._clock())
            self._write()
        elif isinstance(event, CacheGrown):
            self._set_total(event.new_total_steps)
        elif isinstance(event, RunFinished):
            self._write()

    def document(self) -> dict[str, Any]:
        """The document as it would be written now."""
        newest = [self._newest] if self._newest is not None and self._newest not in self._points[-1:] else []
        return {"metadata": self._metadata, "training_data": [*self._points, *newest]}

    def _set_total(self, total_steps: int) -> None:
        self._metadata["total_steps"] = total_steps
        self._metadata["target_tokens"] = total_steps * self._tokens_per_step

    def _add(self, point: dict[str, Any]) -> None:
        total_steps = self._metadata["total_steps"]
        point["progress_pct"] = round(100 * point["step"] / total_steps, 1) if total_steps else 0.0
        self._newest = point
        if point["step"] % self._stride_steps == 0 or point["step"] == 1:
            self._points.append(point)
        if len(self._points) > self._max_points:
            self._stride_steps *= 2
            self._points = [kept for kept in self._points if kept["step"] % self._stride_steps == 0 or kept["step"] == 1]

    def _recover(self, records: Iterable[dict[str, Any]], resume_step: int) -> None:
        for record in records:
            if record.get("kind") == "step" and record["step"] <= resume_step:
                self._metadata["total_steps"] = record["total_steps"]
                self._add(
                    _table_row(
                        record["step"], record["time"], record["loss"], record["lr"], record["tokens_per_second"], record["memory_bytes"]
                    )
                )

    def _write_if_due(self) -> None:
        if time.monotonic() >= self._next_write_seconds:
            self._write()

    def _write(self) -> None:
        start = time.monotonic()
        try:
            make_directory(self.path.parent)
            write_bytes(self.path, _encoded(self.document()))
        except StorageError as error:
            if not self._has_warned:
                logger.warning("%s; the JSON run log is written again later", error)
            self._has_warned = True
        end = time.monotonic()
        self._next_write_seconds = end + max(self._interval_seconds, _COST_FACTOR * (end - start))


def _timestamp(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds).isoformat(timespec="seconds")


def _table_row(
    step: int, unix_seconds: float, loss_nats: float | None, learning_rate: float | None, tokens_per_second: float | None, memory_bytes: int
) -> dict[str, Any]:
    return {
        "step": step,
        "timestamp": _timestamp(unix_seconds),
        "loss": _finite(loss_nats),
        "lr": _finite(learning_rate),
        "tokens_per_sec": round(_finite(tokens_per_second) or 0.0),
        "gpu_memory_gb": round(memory_bytes / 1e9, 3),
        "progress_pct": 0.0,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _encoded(document: dict[str, Any]) -> bytes:
    """Metadata indented, one row per line: as readable as a table, and quick to encode."""
    metadata = json.dumps(document["metadata"], indent=4)[:-1] + "  }"
    rows = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in document["training_data"])
    return f'{{\n  "metadata": {metadata},\n  "training_data": [\n{rows}\n  ]\n}}\n'.encode("ascii")


def _started(path: Path) -> str | None:
    """When the run began, as its log says; None without a readable log."""
    try:
        return str(read_json(path)["metadata"]["start_time"])
    except (StorageError, IntegrityError, KeyError, TypeError):
        return None
