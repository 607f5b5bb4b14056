"""Job: draw the figures of one run, or of several in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llm_training.monitoring.plots import plot_training_progress
from llm_training.storage.runs import RUNS_DIRECTORY


def plot(runs: Sequence[str], output: str | None = None) -> str:
    """Draw the runs and return the picture's path.

    Args:
        runs: run directories, names of runs under ``runs/``, ``metrics.jsonl`` files or JSON run logs.
        output: picture to write (.png, .svg, .pdf); by default ``plots/training.png`` in the run, ``comparison.png``
            here for several.

    Raises ConfigError (no matplotlib, unknown picture type), DataError (no such run, nothing recorded), IntegrityError, StorageError.
    """
    return str(plot_training_progress([_located(run) for run in runs], output))


def _located(run: str) -> Path:
    """The path as given, or the run of that name under ``runs/``."""
    path = Path(run)
    named = Path(RUNS_DIRECTORY) / run
    return named if not path.exists() and named.is_dir() else path
