"""The checkpoints of one run: save them, find the one to resume from, keep the right ones.

The truth is what verifies on the disk; ``latest`` and the other pointers are hints for people and for
``from_pretrained``. One process writes at a time (the run's lock sees to it); readers may come at any moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_training.checkpoint.background import BackgroundWorker
from llm_training.checkpoint.layout import BEST, LATEST, SET_ASIDE_PREFIX, CheckpointRef, Refusal, hidden_name, scan, step_name
from llm_training.checkpoint.load import load_model_tensors, load_optimizer_tensors, load_state, verify_checkpoint
from llm_training.checkpoint.resume import find_checkpoint
from llm_training.checkpoint.retention import RetentionPolicy, by_loss, execute_retention, plan_retention, remove_superseded
from llm_training.checkpoint.save import MAX_SHARD_BYTES, write_checkpoint
from llm_training.checkpoint.snapshot import FrozenSnapshot, Snapshot, StagingBuffers, freeze
from llm_training.errors import IntegrityError
from llm_training.storage.directories import remove_leftovers
from llm_training.storage.durable import make_directory, rename
from llm_training.storage.faults import crash_point
from llm_training.storage.links import is_pointer, read_pointer, replace_symlink
from llm_training.storage.manifest import MANIFEST_NAME
from llm_training.storage.oserrors import require_free_space

logger = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class SaveReport:
    """What a save did. ``stall_seconds`` is how long the caller waited for it, ``write_seconds`` how long the disk took."""

    path: Path
    step: int
    num_bytes: int
    stall_seconds: float
    write_seconds: float
    labels: tuple[str, ...] = ()
    is_best: bool = False
    removed: tuple[tuple[Path, str], ...] = ()


class CheckpointStore:
    """Checkpoints under ``root``.

    Args:
        root: made at the first save.
        retention: what is removed after each save.
        max_shard_bytes: weights above this are split over several files.
    """

    def __init__(self, root: Path, *, retention: RetentionPolicy | None = None, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self.root = root
        self._retention = retention or RetentionPolicy()
        self._max_shard_bytes = max_shard_bytes
        self._buffers = StagingBuffers()
        self._worker: BackgroundWorker[SaveReport] = BackgroundWorker("checkpoint-writer")
        self._protected_steps: set[int] = set()
        self._verified: dict[Path, tuple[Signature, CheckpointRef]] = {}

    def save(self, snapshot: Snapshot) -> SaveReport:
        """Write a checkpoint and return when it is committed; waits for a background save first.

        Raises what a background save raised, NumericError for NaN or infinity, StorageError.
        """
        started = time.monotonic()
        self._worker.wait()
        return self._commit(freeze(snapshot), started)

    def save_async(self, snapshot: Snapshot) -> float:
        """Copy the snapshot, start writing it in the background and return the seconds this took.

        The copy is complete when this returns, so training may go on. At most one save is in flight: a second one waits.
        Raises what the save before raised; then nothing new was started.
        """
        started = time.monotonic()
        self._worker.wait()
        frozen = freeze(snapshot, self._buffers)
        crash_point("ckpt.after_copy")
        stall_seconds = time.monotonic() - started
        self._worker.submit(lambda: self._commit(frozen, time.monotonic(), stall_seconds))
        return stall_seconds

    def wait(self) -> list[SaveReport]:
        """Wait for the background save; the reports of background saves not collected yet. Raises what it raised."""
        self._worker.wait()
        return self._worker.collect()

    def collect(self) -> list[SaveReport]:
        """Reports of background saves that ended since the last call, without waiting. Raises what a save raised, once."""
        return self._worker.collect()

    @property
    def is_saving(self) -> bool:
        """True while a background save runs."""
        return self._worker.is_busy

    def _commit(self, frozen: FrozenSnapshot, started: float, stall_seconds: float | None = None) -> SaveReport:
        make_directory(self.root)
        remove_leftovers(self.root)
        ref = write_checkpoint(self.root, frozen, max_shard_bytes=self._max_shard_bytes)
        self._remember(ref)
        crash_point("ckpt.before_latest")
        is_best = self._update_pointers(ref, frozen.labels)
        crash_point("ckpt.after_latest")
        removed = self.prune()
        seconds = time.monotonic() - started
        return SaveReport(
            path=ref.path,
            step=ref.step,
            num_bytes=ref.num_bytes,
            stall_seconds=seconds if stall_seconds is None else stall_seconds,
            write_seconds=seconds,
            labels=frozen.labels,
            is_best=is_best,
            removed=tuple((gone.path, reason) for gone, reason in removed),
        )

    def _update_pointers(self, ref: CheckpointRef, labels: Iterable[str]) -> bool:
        """Point ``latest``, the labels and, when a loss is known, ``best_model`` at the right steps; True when ``ref`` is best."""
        for label in (LATEST, *labels):
            self._point(label, ref.path.name)
        best = by_loss(self.list_valid())[:1]
        for checkpoint in best:
            if read_pointer(self.root / BEST) != checkpoint.path.name:
                self._point(BEST, checkpoint.path.name)
        return bool(best) and best[0].step == ref.step

    def _point(self, label: str, target: str) -> None:
        path = self.root / label
        if path.is_symlink() or not path.exists() or is_pointer(path):
            replace_symlink(path, target)
        else:
            logger.warning("%s is not a pointer of this program and is left alone; it should point at %s", path, target)

    def protect(self, step: int) -> None:
        """Never remove this step while this object lives: it is what the run was resumed from."""
        self._protected_steps.add(step)

    def prune(self) -> list[tuple[CheckpointRef, str]]:
        """Remove what the retention policy does not keep, with reasons. Raises StorageError."""
        valid = self.list_valid()
        remove_superseded(self.root, valid)
        plan = plan_retention(valid, self._retention, protected_steps=self._protected_steps)
        execute_retention(self.root, plan)
        for ref, reason in plan:
            self._verified.pop(ref.path, None)
            logger.debug("removed %s: %s", ref.path.name, reason)
        return plan

    def list_valid(self) -> list[CheckpointRef]:
        """The checkpoints that verify, newest first; the others are left where they are. Raises StorageError."""
        refs: list[CheckpointRef] = []
        for candidate in scan(self.root):
            known = self._verified.get(candidate.path)
            if known is not None and known[0] and known[0] == _signature(known[1]):
                refs.append(known[1])
                continue
            try:
                ref = verify_checkpoint(candidate.path)
            except IntegrityError as error:
                logger.debug("%s does not count: %s", candidate.path.name, error)
                continue
            self._remember(ref)
            refs.append(ref)
        return refs

    def _remember(self, ref: CheckpointRef) -> None:
        """Spare hashing it again while none of its files was touched."""
        self._verified[ref.path] = (_signature(ref), ref)

    def find(self, resume: str | Path | int = "auto", *, strict: bool = False, quarantine: bool = True) -> CheckpointRef | None:
        """The checkpoint to resume from, which retention leaves alone from now on; see `find_checkpoint`."""
        ref = find_checkpoint(self.root, resume, strict=strict, quarantine=quarantine)
        if ref is not None:
            self._remember(ref)
            if ref.path.parent == self.root:
                self.protect(ref.step)
        return ref

    load_model_tensors = staticmethod(load_model_tensors)
    load_optimizer_tensors = staticmethod(load_optimizer_tensors)
    load_state = staticmethod(load_state)

    def set_aside_after(self, step: int) -> list[Refusal]:
        """Hide the checkpoints later than ``step``: a run that starts again there leaves that branch. Raises StorageError.

        Otherwise the next automatic resume would find the newest of the branch that was left. Nothing is deleted.
        """
        moved: list[Refusal] = []
        for candidate in scan(self.root):
            if candidate.step > step:
                place = candidate.path.with_name(hidden_name(SET_ASIDE_PREFIX, step_name(candidate.step)))
                rename(candidate.path, place)
                moved.append(Refusal(candidate.path, f"later than step {step}, where the run starts again", place))
        return moved

    def check_space(self, snapshot: Snapshot) -> None:
        """Refuse to start when what will be kept, and one more, cannot fit on the disk. Raises StorageError with both numbers."""
        num_bytes = snapshot.num_tensor_bytes
        existing = sum(ref.num_bytes for ref in self.list_valid())
        needed = num_bytes * (self._retention.num_kept + 1) - existing
        require_free_space(self.root, max(needed, num_bytes), f"{self._retention.num_kept + 1} checkpoints")


def _signature(ref: CheckpointRef) -> Signature:
    """Size, time and inode of every file, to see that nothing was touched. Empty when a file is missing, which matches nothing."""
    try:
        files = [(name, (ref.path / name).lstat()) for name in (*ref.manifest.files, MANIFEST_NAME)]
    except OSError:
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in files)
