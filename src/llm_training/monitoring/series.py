"""A finished or running run as arrays, read from whatever it left: its directory, ``metrics.jsonl`` or the JSON run log."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from llm_training.errors import DataError, IntegrityError
from llm_training.storage.append import read_jsonl
from llm_training.storage.durable import read_json

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One held-out figure."""

    step: int
    loss_nats: float
    bits_per_byte: float | None
    perplexity: float


@dataclass(frozen=True, kw_only=True)
class RunSeries:
    """Columns of equal length, one entry per recorded step; NaN where a value is missing or was not finite.

    ``tokenizer`` is the fingerprint of the run's tokenizer; empty where it was not recorded.
    """

    name: str
    total_steps: int
    step: Array
    loss_nats: Array
    learning_rate: Array
    tokens_per_second: Array
    memory_gb: Array
    elapsed_seconds: Array
    cumulative_tokens: Array
    evaluations: tuple[Evaluation, ...] = ()
    final: Evaluation | None = None
    growth_steps: tuple[int, ...] = ()
    plan_lines: tuple[str, ...] = field(default=())
    tokenizer: str = ""

    @property
    def progress_percent(self) -> Array:
        """Share of the planned steps."""
        return 100 * self.step / max(1, self.total_steps)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of least loss; None without one."""
        finite = [evaluation for evaluation in self.evaluations if math.isfinite(evaluation.loss_nats)]
        return min(finite, key=lambda evaluation: evaluation.loss_nats, default=None)

    @property
    def headline(self) -> Evaluation | None:
        """What the run is told by: the final figures (all held-out text), else the best evaluation within training."""
        return self.final or self.best


def read_run(path: Path) -> RunSeries:
    """The run at ``path``: a run directory, a ``.jsonl`` of metrics, or a JSON run log.

    Raises DataError when there is none or it has no step yet, IntegrityError when it is damaged, StorageError.
    """
    source = _find_source(path)
    series = _from_run_log(source) if source.suffix == ".json" else _from_metrics(source)
    if not len(series.step):
        raise DataError("the run has no recorded step yet", where=str(source), remedy="plot it once training has begun")
    return series


def _find_source(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError("no such run", where=str(path), remedy="name a run directory, a metrics.jsonl or a JSON run log")
    metrics = path / "metrics.jsonl"
    if metrics.is_file():
        return metrics
    logs = sorted((path / "training_logs").glob("*_run_*.json"))
    if not logs:
        raise DataError("not a run: neither metrics.jsonl nor training_logs/*.json", where=str(path), remedy="name a run directory")
    return logs[-1]


def _from_metrics(path: Path) -> RunSeries:
    rows: list[dict[str, Any]] = []
    evaluations, growth_steps, final, name, lines, tokenizer = [], [], None, "", (), ""
    for record in read_jsonl(path):
        kind = record.get("kind")
        if kind == "step":
            rows.append(record)
        elif kind == "evaluation" and record.get("source", "validation") == "validation":
            evaluations.append(_evaluation(record))
        elif kind == "evaluation" and record.get("source") == "final":
            final = _evaluation(record)
        elif kind == "growth":
            growth_steps.append(int(record["step"]))
        elif kind == "plan":
            name, lines = str(record.get("run_name", "")), tuple(record.get("lines", ()))
            tokenizer = str((record.get("facts") or {}).get("tokenizer", ""))
    return RunSeries(
        name=name or path.absolute().parent.name,
        total_steps=int(rows[-1].get("total_steps") or rows[-1]["step"]) if rows else 0,
        step=_column(rows, "step"),
        loss_nats=_column(rows, "loss"),
        learning_rate=_column(rows, "lr"),
        tokens_per_second=_column(rows, "tokens_per_second"),
        memory_gb=_column(rows, "memory_bytes") / 1e9,
        elapsed_seconds=_column(rows, "elapsed_seconds"),
        cumulative_tokens=np.cumsum(np.nan_to_num(_column(rows, "tokens"))),
        evaluations=tuple(evaluations),
        final=final,
        growth_steps=tuple(growth_steps),
        plan_lines=lines,
        tokenizer=tokenizer,
    )


def _from_run_log(path: Path) -> RunSeries:
    document = read_json(path)
    try:
        metadata, rows = document["metadata"], document["training_data"]
        total_steps, target_tokens = int(metadata["total_steps"]), float(metadata["target_tokens"])
        step = _column(rows, "step")
        return RunSeries(
            name=path.stem,
            total_steps=total_steps,
            step=step,
            loss_nats=_column(rows, "loss"),
            learning_rate=_column(rows, "lr"),
            tokens_per_second=_column(rows, "tokens_per_sec"),
            memory_gb=_column(rows, "gpu_memory_gb"),
            elapsed_seconds=_elapsed(row["timestamp"] for row in rows),
            cumulative_tokens=step * (target_tokens / max(1, total_steps)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"not a JSON run log ({type(error).__name__}: {error})", where=str(path), remedy="name the file that the run wrote"
        ) from None


def _evaluation(record: dict[str, Any]) -> Evaluation:
    return Evaluation(
        step=int(record["step"]),
        loss_nats=_number(record.get("loss")),
        bits_per_byte=record.get("bits_per_byte"),
        perplexity=_number(record.get("perplexity")),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _column(rows: list[dict[str, Any]], key: str) -> Array:
    return np.array([_number(row.get(key)) for row in rows], dtype=np.float64)


def _elapsed(timestamps: Iterable[str]) -> Array:
    seconds = np.array([datetime.fromisoformat(text).timestamp() for text in timestamps])
    return seconds - seconds[0] if len(seconds) else seconds
