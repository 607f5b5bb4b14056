"""Where a run keeps its things, and how run directories are named and numbered."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llm_training.storage.durable import make_directory, sync_directory
from llm_training.storage.filesystem import filesystem
from llm_training.storage.oserrors import storage_errors

RUNS_DIRECTORY = "runs"
_RUN_NAME = re.compile(r"(?P<size>[^_]+)_(?P<dataset>.+)_(?P<sequence_length>\d+)_run_(?P<number>\d+)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10)})
_MAX_PART_LENGTH = 64


@dataclass(frozen=True)
class RunName:
    """The four parts of a run's name, ``<size>_<dataset>_<sequence length>_run_<number>``."""

    size: str
    dataset: str
    sequence_length: int
    number: int

    def __str__(self) -> str:
        return f"{self.size}_{self.dataset}_{self.sequence_length}_run_{self.number}"


@dataclass(frozen=True)
class RunLayout:
    """The places inside a run directory."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, with origins."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Root of the checkpoint store."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Text logs."""
        return self.path / "logs"

    @property
    def metrics(self) -> Path:
        """One JSON record per event."""
        return self.path / "metrics.jsonl"

    @property
    def decisions(self) -> Path:
        """Every choice that depended on timing, written before it took effect."""
        return self.path / "decisions.jsonl"

    @property
    def training_logs(self) -> Path:
        """The JSON run logs."""
        return self.path / "training_logs"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.path / "plots"

    @property
    def samples(self) -> Path:
        """Text that the model wrote."""
        return self.path / "samples"

    @property
    def lock(self) -> Path:
        """Held while the run's directory is written to."""
        return self.path / "run.lock"


def safe_name(text: str) -> str:
    """``text`` as a name for a file on any system: letters, digits, ``.``, ``_`` and ``-``, at most 64; never empty or hidden."""
    name = _UNSAFE.sub("-", text).strip("-._")[:_MAX_PART_LENGTH].rstrip("-._") or "unnamed"
    return f"{name}-" if name.split(".")[0].lower() in _RESERVED else name


def make_run_name(size: str, dataset: str, sequence_length: int, number: int) -> RunName:
    """A run name with safe parts; the size loses its underscores, which separate the parts."""
    return RunName(safe_name(size).replace("_", "-"), safe_name(dataset), sequence_length, number)


def parse_run_name(name: str) -> RunName | None:
    """The parts of a run directory's name; None when it is not one."""
    found = _RUN_NAME.fullmatch(name)
    return RunName(found["size"], found["dataset"], int(found["sequence_length"]), int(found["number"])) if found else None


def list_runs(root: Path) -> list[tuple[RunName, Path]]:
    """The run directories under ``root``, by number within each series. Links are not followed. Raises StorageError."""
    if not root.is_dir():
        return []
    with storage_errors("list runs", root):
        entries = [entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink()]
    runs = [(name, entry) for entry in entries if (name := parse_run_name(entry.name))]
    return sorted(runs, key=lambda run: (run[0].size, run[0].dataset, run[0].sequence_length, run[0].number))


def create_run_directory(root: Path, *, size: str, dataset: str, sequence_length: int) -> RunLayout:
    """Make the next run directory of this series under ``root``; two processes at once get two numbers. Raises StorageError."""
    make_directory(root)
    wanted = make_run_name(size, dataset, sequence_length, 0)
    series = (wanted.size, wanted.dataset, wanted.sequence_length)
    taken = [name.number for name, _ in list_runs(root) if (name.size, name.dataset, name.sequence_length) == series]
    number = max(taken, default=0) + 1
    while True:
        path = root / str(RunName(*series, number))
        with storage_errors("make a run directory", path), suppress(FileExistsError):
            filesystem().mkdir(path, 0o700)
            sync_directory(root)
            return RunLayout(path)
        number += 1
