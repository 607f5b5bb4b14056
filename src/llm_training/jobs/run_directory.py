"""Which directory a run lives in: a given one, an unfinished one of the same configuration, or the next number."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_training.config.load import load_config
from llm_training.config.root import Config
from llm_training.errors import ConfigError, IntegrityError, LlmTrainingError
from llm_training.runtime.world import World
from llm_training.storage.durable import make_directory, write_bytes, write_json
from llm_training.storage.locks import FileLock
from llm_training.storage.reading import read_json
from llm_training.storage.runs import RUNS_DIRECTORY, RunLayout, create_run_directory, list_runs

FINAL = "final"
RUN_FILE = "run.json"
# What may differ between two sessions of one run: where it lies, what is shown, and when it stops early.
NOT_IDENTITY: Mapping[str, tuple[str, ...]] = {
    "training": ("output_dir", "run_name", "resume", "max_training_hours", "logging_steps", "save_total_limit"),
    "monitoring": ("console", "plots", "log_level"),
    "resources": ("device", "threads", "distributed_backend", "world_size", "timeout_seconds"),
    "data": ("engine",),
    "cache": ("workers", "validation", "growth_check_steps"),
}


@dataclass(frozen=True)
class RunPlace:
    """A run directory and how it was found: ``is_new``, or with checkpoints of earlier sessions."""

    layout: RunLayout
    is_new: bool
    remark: str | None = None

    @property
    def name(self) -> str:
        """The directory's name, for people."""
        return self.layout.path.resolve().name


def fingerprint(config: Config) -> str:
    """sha256 (hex) of everything in a configuration that makes a run what it is."""
    content = config.model_dump(mode="json")
    for section, names in NOT_IDENTITY.items():
        for name in names:
            content[section].pop(name, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def shared_by_ranks(config: Config) -> dict[str, object]:
    """What the ranks of one run must agree on, by dotted name: everything but their devices and what is shown."""
    content = config.model_dump(mode="json")
    return {
        f"{section}.{name}": value
        for section, values in content.items()
        if section not in ("resources", "monitoring")
        for name, value in values.items()
    }


def changed_fields(layout: RunLayout, config: Config) -> dict[str, tuple[object, object]]:
    """Identity fields whose value is not that of the run's config.yaml: dotted name to (old, new)."""
    recorded = load_config([str(layout.config)]).config.model_dump(mode="json")
    now = config.model_dump(mode="json")
    return {
        f"{section}.{name}": (recorded[section][name], value)
        for section, values in now.items()
        for name, value in values.items()
        if name not in NOT_IDENTITY.get(section, ()) and recorded[section][name] != value
    }


def is_finished(layout: RunLayout) -> bool:
    """True when the run reached its end; the last checkpoint then carries the label ``final``."""
    return (layout.checkpoints / FINAL).exists()


def find_same(config: Config, root: Path = Path(RUNS_DIRECTORY)) -> tuple[RunLayout | None, RunLayout | None]:
    """The newest unfinished and the newest finished run of this very configuration under ``root``."""
    wanted = fingerprint(config)
    unfinished = finished = None
    for _, path in list_runs(root):
        layout = RunLayout(path)
        with contextlib.suppress(LlmTrainingError, KeyError, TypeError):
            if read_json(path / RUN_FILE)["fingerprint"] == wanted:
                if is_finished(layout):
                    finished = layout
                else:
                    unfinished = layout
    return unfinished, finished


def given_place(config: Config) -> RunPlace | None:
    """The directory that the configuration names, or an unfinished run to go on with; None when a new one is to be made.

    Raises:
        ConfigError: --resume never into a directory that holds a run.
    """
    training = config.training
    if training.output_dir is not None:
        layout = RunLayout(Path(training.output_dir))
        has_run = (layout.path / RUN_FILE).exists()
        if has_run and training.resume == "never":
            raise ConfigError(
                "the directory holds a run and training.resume is never",
                where=str(layout.path),
                remedy="choose another --output-dir, or remove that run",
            )
        return RunPlace(layout, is_new=not has_run)
    if training.resume == "never":
        return None
    if training.resume != "auto":
        named = _run_of(Path(training.resume))
        if named is not None:
            return RunPlace(RunLayout(named), is_new=False)
    unfinished, _ = find_same(config)
    if unfinished is None:
        return None
    return RunPlace(unfinished, is_new=False, remark=f"found the unfinished run {unfinished.path} of this configuration: resuming it")


def _run_of(checkpoint: Path) -> Path | None:
    """The run directory that a checkpoint, a store or a run itself lies in."""
    place = checkpoint.resolve()
    return next((folder for folder in (place, *place.parents[:2]) if (folder / RUN_FILE).is_file()), None)


def new_place(config: Config, *, size: str, dataset: str, sequence_length: int) -> RunPlace:
    """Make the next run directory of this series."""
    _, finished = find_same(config)
    layout = create_run_directory(Path(RUNS_DIRECTORY), size=size, dataset=dataset, sequence_length=sequence_length)
    remark = f"{finished.path} has finished with this configuration; this is a new run" if finished is not None else None
    return RunPlace(layout, is_new=True, remark=remark)


@contextlib.contextmanager
def opened(place: RunPlace, config: Config, *, config_text: str, world: World) -> Iterator[RunLayout]:
    """Make the directory, hold its lock, and record configuration and identity; ranks other than the first only wait for it.

    Raises:
        LockedError: a live process trains here.
        IntegrityError: the directory holds a run of another identity format.
        StorageError: the disk refuses.
    """
    layout = place.layout
    if not world.is_main:
        world.barrier()
        yield layout
        return
    make_directory(layout.path)
    with FileLock(layout.lock, what=f"the run {layout.path}"):
        for directory in (layout.checkpoints, layout.training_logs, layout.plots, layout.samples):
            make_directory(directory)
        if place.is_new:
            write_bytes(layout.config, config_text.encode())
            # Written last: a directory with it is a run, one without it is begun again.
            write_json(
                layout.path / RUN_FILE, {"format": 1, "fingerprint": fingerprint(config), "name": config.training.run_name or place.name}
            )
        else:
            _require_readable(layout)
        world.barrier()
        yield layout


def _require_readable(layout: RunLayout) -> None:
    found: Any = read_json(layout.path / RUN_FILE)
    if not isinstance(found, dict) or found.get("format") != 1:
        raise IntegrityError(
            "run.json is not of this format", where=str(layout.path), remedy="use the version that made it, or a new directory"
        )
