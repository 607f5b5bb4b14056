"""Names inside a checkpoint store, and what is taken for a checkpoint.

    <root>/step-00001000/          a Hugging Face model directory
        model.safetensors          or model-00001-of-00002.safetensors ... with model.safetensors.index.json
        config.json  generation_config.json  tokenizer.json ...
        training_state/optimizer.safetensors
        training_state/state.json
        manifest.json              last: size and sha256 of each file
    <root>/latest  best_model  epoch-3  time-limit  final      pointers at a step, hints only

Hidden names are never loaded by themselves: ``.tmp-`` unfinished, ``.quarantine-`` refused, ``.removed-`` half deleted,
``.set-aside-`` belonging to a branch of the run that was left. ``.superseded-`` is the former holder of a step's name while
the new one takes its place; it counts as that step while nothing else does.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_training.storage.links import is_plain_name
from llm_training.storage.manifest import Manifest
from llm_training.storage.oserrors import storage_errors

MODEL_FILE = "model.safetensors"
MODEL_INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
OPTIMIZER_FILE = "training_state/optimizer.safetensors"
STATE_FILE = "training_state/state.json"

LATEST = "latest"
BEST = "best_model"
ARTEFACT_KIND = "checkpoint"

QUARANTINE_PREFIX = ".quarantine-"
REMOVED_PREFIX = ".removed-"
SET_ASIDE_PREFIX = ".set-aside-"
SUPERSEDED_PREFIX = ".superseded-"

_STEP_NAME = re.compile(r"step-(\d{8,18})")
_SUPERSEDED_NAME = re.compile(re.escape(SUPERSEDED_PREFIX) + r"(step-\d{8,18})-[0-9a-f]+")
_LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Refusal:
    """A checkpoint that was not loaded, and why. ``moved_to`` is where it was put, if it was."""

    path: Path
    reason: str
    moved_to: Path | None = None

    def __str__(self) -> str:
        moved = f"; kept as {self.moved_to.name}" if self.moved_to else ""
        return f"{self.path.name} refused: {self.reason}{moved}"


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint that verified. ``refused`` lists the newer ones that were passed over to reach it."""

    path: Path
    step: int
    manifest: Manifest
    refused: tuple[Refusal, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return self.manifest.num_bytes

    @property
    def validation_loss(self) -> float | None:
        """Nats per token when the checkpoint was saved; None when not measured or not finite."""
        return loss_from(self.manifest.extra)


@dataclass(frozen=True)
class Candidate:
    """A directory that claims to be the checkpoint of a step."""

    step: int
    path: Path


def loss_from(facts: Mapping[str, Any]) -> float | None:
    """The validation loss among a manifest's or a state's facts when it is a finite number."""
    value = facts.get("validation_loss")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def step_name(step: int) -> str:
    """``step-00001000`` for 1000 completed optimizer steps."""
    if step < 0:
        raise ValueError(f"a step counts completed optimizer steps, {step} is negative")
    return f"step-{step:08d}"


def parse_step(name: str) -> int | None:
    """The step of a directory name; None when it is not one that `step_name` makes."""
    found = _STEP_NAME.fullmatch(name)
    step = int(found[1]) if found else None
    return step if step is not None and step_name(step) == name else None


def hidden_name(prefix: str, name: str) -> str:
    """A fresh hidden name for what was called ``name``."""
    return f"{prefix}{name}-{secrets.token_hex(4)}"


def check_label(label: str) -> str:
    """Return a label that may point at a step. Raises ValueError."""
    if not _LABEL.fullmatch(label) or not is_plain_name(label) or parse_step(label) is not None or label in (LATEST, BEST):
        raise ValueError(f"{label!r} is not a label: lower-case letters, digits, '.', '_' and '-', and not a name the store uses itself")
    return label


def scan(root: Path) -> list[Candidate]:
    """Everything under ``root`` that claims to be a checkpoint, newest step first; links are not followed. Raises StorageError."""
    if not root.is_dir():
        return []
    with storage_errors("list checkpoints", root):
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink())
    found = {step: name for name in names if (step := parse_step(name)) is not None}
    for name in names:
        superseded = _SUPERSEDED_NAME.fullmatch(name)
        step = parse_step(superseded[1]) if superseded else None
        if step is not None:
            found.setdefault(step, name)
    return [Candidate(step, root / found[step]) for step in sorted(found, reverse=True)]


def scan_labels(root: Path) -> list[Path]:
    """Every visible entry of ``root`` that is not a step: pointers, if they are well. Raises StorageError."""
    if not root.is_dir():
        return []
    with storage_errors("list checkpoints", root):
        return sorted(entry for entry in root.iterdir() if not entry.name.startswith(".") and parse_step(entry.name) is None)
