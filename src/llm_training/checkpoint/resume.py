"""Which checkpoint to resume from: newest to oldest, the first that verifies, saying what was passed over and why."""

from __future__ import annotations

import logging
from pathlib import Path

from llm_training.checkpoint.layout import (
    LATEST,
    MODEL_FILE,
    QUARANTINE_PREFIX,
    Candidate,
    CheckpointRef,
    Refusal,
    hidden_name,
    parse_step,
    scan,
    scan_labels,
    step_name,
)
from llm_training.checkpoint.load import verify_checkpoint
from llm_training.checkpoint.trust import refuse_untrusted_path
from llm_training.errors import ConfigError, IntegrityError, StorageError
from llm_training.storage.durable import rename
from llm_training.storage.links import is_pointer, read_pointer
from llm_training.storage.manifest import MANIFEST_NAME

logger = logging.getLogger(__name__)

AUTO = "auto"
_CHECKPOINTS_DIRECTORY = "checkpoints"  # a run directory may be named for the checkpoints in it


def find_checkpoint(root: Path, resume: str | Path | int = AUTO, *, strict: bool = False, quarantine: bool = True) -> CheckpointRef | None:
    """The checkpoint to resume from.

    Args:
        root: the store that ``auto``, labels and numbers refer to.
        resume: ``auto`` or ``latest`` for the newest valid one; a step (``1000``, ``step-00001000``); a label (``best_model``,
            ``epoch-3``); the path of a checkpoint, of a pointer at one, of a store or of a run directory. One that is named is
            taken or refused, never exchanged for another.
        strict: refuse rather than fall back when the newest does not verify.
        quarantine: rename refused checkpoints so that they are not met again; false for readers who do not own the run.

    Returns None when there are no checkpoints at all. Raises IntegrityError when there are some and none (or, with ``strict``,
    not the newest) verifies, or the named one does not; ConfigError when the named one does not exist; StorageError when the
    disk fails, since an unreadable checkpoint is not a bad one.
    """
    if resume in (AUTO, LATEST):
        return _find_newest(root, strict=strict, quarantine=quarantine)
    place = _locate_named(root, resume)
    if _is_store(place):
        return _find_newest(place, strict=strict, quarantine=quarantine)
    if _is_store(place / _CHECKPOINTS_DIRECTORY):
        return _find_newest(place / _CHECKPOINTS_DIRECTORY, strict=strict, quarantine=quarantine)
    refuse_untrusted_path(place)
    if not place.is_dir():
        raise IntegrityError(
            "a checkpoint is a directory with a manifest",
            where=str(place),
            remedy="give the directory, or start a new run from its weights",
        )
    return verify_checkpoint(place)


def _is_store(place: Path) -> bool:
    return not (place / MANIFEST_NAME).exists() and not (place / MODEL_FILE).exists() and bool(scan(place))


def _locate_named(root: Path, resume: str | Path | int) -> Path:
    """The path meant, pointers resolved once, so that a ``latest`` that moves meanwhile cannot mix two checkpoints."""
    text = str(resume)
    choices = [root / step_name(int(text))] if text.isdecimal() else []
    choices += [Path(text), root / text]
    for choice in choices:
        if is_pointer(choice):
            target = read_pointer(choice)
            if target is not None and (choice.parent / target).exists():
                return choice.parent / target
            if choice.name == LATEST:
                return choice.parent
            raise IntegrityError(f"the pointer {choice.name} leads nowhere", where=str(choice), remedy=_known(choice.parent))
        if choice.exists():
            return choice
    raise ConfigError(f"there is no checkpoint {text!r}", where=str(root), remedy=_known(root))


def _known(root: Path) -> str:
    names = [step_name(candidate.step) for candidate in scan(root)] + [entry.name for entry in scan_labels(root) if is_pointer(entry)]
    return f"there are {', '.join(names[:12])}" if names else "there are no checkpoints yet"


def _find_newest(root: Path, *, strict: bool, quarantine: bool) -> CheckpointRef | None:
    refused: list[Refusal] = []
    for candidate in scan(root):
        try:
            ref = verify_checkpoint(candidate.path)
        except IntegrityError as error:
            if strict:
                raise IntegrityError(
                    f"the newest checkpoint does not verify ({error.what})", where=error.where, remedy="resume without strict to fall back"
                ) from error
            refused.append(_refuse(candidate, error, quarantine=quarantine))
            continue
        if parse_step(ref.path.name) is None:
            ref = _restore_name(ref)
        return CheckpointRef(path=ref.path, step=ref.step, manifest=ref.manifest, refused=tuple(refused))
    if refused:
        raise IntegrityError(
            f"there are checkpoints but none verifies ({'; '.join(map(str, refused[:4]))})",
            where=str(root),
            remedy="restore one from a copy, or choose another output directory to start anew",
        )
    if any(entry.name.startswith(QUARANTINE_PREFIX) for entry in (root.iterdir() if root.is_dir() else ())):
        raise IntegrityError(
            "all checkpoints were refused before and none is left",
            where=str(root),
            remedy=f"look at {QUARANTINE_PREFIX}*, or choose another output directory",
        )
    return None


def _refuse(candidate: Candidate, error: IntegrityError, *, quarantine: bool) -> Refusal:
    """Put a bad checkpoint out of the way under a hidden name; nothing is deleted, somebody may want to look at it."""
    moved_to: Path | None = None
    if quarantine:
        moved_to = candidate.path.with_name(hidden_name(QUARANTINE_PREFIX, step_name(candidate.step)))
        try:
            rename(candidate.path, moved_to)
        except StorageError as failure:
            logger.warning("%s stays where it is: %s", candidate.path.name, failure)
            moved_to = None
    refusal = Refusal(candidate.path, str(error), moved_to)
    logger.warning("%s", refusal)
    return refusal


def _restore_name(ref: CheckpointRef) -> CheckpointRef:
    """Give a superseded checkpoint its name back: what was to replace it never came."""
    place = ref.path.with_name(step_name(ref.step))
    try:
        rename(ref.path, place)
    except StorageError as failure:
        logger.warning("%s keeps its hidden name: %s", ref.path.name, failure)
        return ref
    return CheckpointRef(path=place, step=ref.step, manifest=ref.manifest)
