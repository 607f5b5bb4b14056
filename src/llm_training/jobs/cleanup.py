"""Job: remove old checkpoints of a run by rule, or say what would be removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_training.checkpoint.layout import CheckpointRef, scan
from llm_training.checkpoint.retention import RetentionPolicy, list_quarantined, plan_leftovers, plan_retention
from llm_training.checkpoint.store import CheckpointStore
from llm_training.errors import ConfigError
from llm_training.monitoring.wording import size
from llm_training.storage.durable import remove_tree
from llm_training.storage.locks import FileLock
from llm_training.storage.runs import RunLayout

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class CleanupEntry:
    """One checkpoint and what becomes of it. ``reason`` is empty for one that stays."""

    name: str
    step: int
    num_bytes: int
    validation_loss: float | None
    reason: str = ""

    @property
    def size_text(self) -> str:
        """Size for people."""
        return size(self.num_bytes)

    @property
    def loss_text(self) -> str:
        """Held-out loss for people."""
        return "" if self.validation_loss is None else f"{self.validation_loss:.4f}"

    @property
    def verdict(self) -> str:
        """Stays or goes, and why."""
        return f"remove: {self.reason}" if self.reason else "keep"


@dataclass(frozen=True)
class CleanupResult:
    """What a cleanup found.

    Attributes:
        entries: the checkpoints that verify, newest first.
        leftovers: hidden names (unfinished saves and removals) and why they are there; all of them go.
        invalid: checkpoints that do not verify, also those put aside under a hidden name; they are left alone.
        is_dry_run: nothing was removed yet.
    """

    directory: str
    entries: tuple[CleanupEntry, ...]
    leftovers: tuple[tuple[str, str], ...]
    invalid: tuple[str, ...]
    is_dry_run: bool

    @property
    def removed(self) -> tuple[CleanupEntry, ...]:
        """Those that go."""
        return tuple(entry for entry in self.entries if entry.reason)

    def summary(self) -> str:
        """Lines about the whole."""
        freed = size(sum(entry.num_bytes for entry in self.removed))
        count = len(self.leftovers)
        rest = f" and {count} leftover{'s' if count > 1 else ''}" if count else ""
        lines = [f"leftover {name}: {reason}" for name, reason in self.leftovers]
        if not self.removed and not self.leftovers:
            lines.append("Nothing to remove.")
        elif self.is_dry_run:
            lines.append(f"Would remove {len(self.removed)} of {len(self.entries)} checkpoints ({freed}){rest}; add --yes to do it.")
        else:
            lines.append(f"Removed {len(self.removed)} of {len(self.entries)} checkpoints ({freed}){rest}.")
        if self.invalid:
            lines.append(f"Left alone because they do not verify: {', '.join(self.invalid)}")
        return "\n".join(lines)


def cleanup(checkpoint_dir: str, *, keep_best: int = 1, keep_last: int = 1, is_dry_run: bool = True) -> CleanupResult:
    """Remove the checkpoints that the rules do not keep.

    Args:
        checkpoint_dir: a run directory or the checkpoints directory in it.
        keep_best: with the lowest validation loss; at least one stays in any case.
        keep_last: the newest; at least one stays in any case.
        is_dry_run: only say what would go.

    Raises:
        ConfigError: no checkpoints there, or negative numbers.
        LockedError: the run is training.
        StorageError: the disk refuses.
    """
    if keep_best < 0 or keep_last < 0:
        raise ConfigError(f"--keep-best is {keep_best} and --keep-last is {keep_last}, neither may be negative")
    root = _store(Path(checkpoint_dir))
    policy = RetentionPolicy(keep_best=keep_best, keep_last=keep_last)
    store = CheckpointStore(root, retention=policy)
    if is_dry_run:
        return _result(root, store, policy, is_dry_run=True)
    with FileLock(RunLayout(root.parent).lock, what=f"the run {root.parent}"):
        result = _result(root, store, policy, is_dry_run=False)
        store.prune()
        for path, _ in plan_leftovers(root):
            remove_tree(path)
    return result


def _store(given: Path) -> Path:
    """Only a directory of checkpoints is ever cleaned; links are not followed."""
    place = given / CHECKPOINTS if (given / CHECKPOINTS).is_dir() else given
    if not place.is_dir():
        raise ConfigError("there is no such directory", where=str(given), remedy="give a run directory or its checkpoints directory")
    if place.is_symlink() or not scan(place):
        raise ConfigError(
            "this is not a directory of checkpoints", where=str(place), remedy="give a run directory or its checkpoints directory"
        )
    return place.resolve()


def _result(root: Path, store: CheckpointStore, policy: RetentionPolicy, *, is_dry_run: bool) -> CleanupResult:
    refs = store.list_valid()
    reasons = {ref.step: reason for ref, reason in plan_retention(refs, policy)}
    valid = {ref.path.name for ref in refs}
    invalid = (*(candidate.path.name for candidate in scan(root) if candidate.path.name not in valid), *list_quarantined(root))
    leftovers = tuple((path.name, reason) for path, reason in plan_leftovers(root))
    return CleanupResult(str(root), tuple(_entry(ref, reasons.get(ref.step, "")) for ref in refs), leftovers, invalid, is_dry_run)


def _entry(ref: CheckpointRef, reason: str) -> CleanupEntry:
    return CleanupEntry(ref.path.name, ref.step, ref.num_bytes, ref.validation_loss, reason)
