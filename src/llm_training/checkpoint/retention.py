"""What is kept and what goes: a pure plan, and the executor that follows it.

Only verified checkpoints are counted, and a plan never names the newest, the best or a protected one, so whatever fails
there is something to resume from. Removal takes the manifest first: from then on nothing mistakes the rest for a
checkpoint, and a removal that was cut short is finished by the next.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_training.checkpoint.layout import (
    QUARANTINE_PREFIX,
    REMOVED_PREFIX,
    SET_ASIDE_PREFIX,
    SUPERSEDED_PREFIX,
    CheckpointRef,
    hidden_name,
    scan_labels,
)
from llm_training.storage.directories import remove_leftovers
from llm_training.storage.durable import TEMPORARY_PREFIX, remove_file, remove_tree, rename
from llm_training.storage.faults import crash_point
from llm_training.storage.links import is_pointer, read_pointer
from llm_training.storage.manifest import MANIFEST_NAME
from llm_training.storage.oserrors import storage_errors

_LEFTOVERS = {
    TEMPORARY_PREFIX: "an unfinished save",
    REMOVED_PREFIX: "an unfinished removal",
    SET_ASIDE_PREFIX: "of a branch that the run left",
}


@dataclass(frozen=True)
class RetentionPolicy:
    """How many checkpoints stay.

    Args:
        save_total_limit: at most so many, the oldest go first; None for no limit.
        keep_best: so many with the lowest validation loss stay; None says nothing about them.
        keep_last: so many of the newest stay; None says nothing about them.

    With a limit, the other two say what the limit may not touch. Without one, whatever they do not keep goes. Nothing set
    removes nothing.
    """

    save_total_limit: int | None = None
    keep_best: int | None = None
    keep_last: int | None = None

    @property
    def num_kept(self) -> int:
        """About how many checkpoints this leaves; 0 when all stay."""
        return self.save_total_limit or (self.keep_best or 0) + (self.keep_last or 0)


def by_loss(refs: Sequence[CheckpointRef]) -> list[CheckpointRef]:
    """Checkpoints with a finite validation loss, the best first; of equals the earlier."""
    measured = [ref for ref in refs if ref.validation_loss is not None]
    return sorted(measured, key=lambda ref: (ref.validation_loss, ref.step))


def plan_retention(
    refs: Sequence[CheckpointRef], policy: RetentionPolicy, *, protected_steps: Collection[int] = ()
) -> list[tuple[CheckpointRef, str]]:
    """The checkpoints to remove, oldest first, each with the reason.

    Args:
        refs: the verified checkpoints, in any order; steps decide, never file times.
        policy: what to keep.
        protected_steps: steps in use, such as the one the run was resumed from.
    """
    if policy == RetentionPolicy() or not refs:
        return []
    ordered = sorted(refs, key=lambda ref: ref.step)
    kept = set(protected_steps)
    kept |= {ref.step for ref in ordered[-max(1, policy.keep_last or 0) :]}
    kept |= {ref.step for ref in by_loss(ordered)[: max(1, policy.keep_best or 0)]}
    removable = [ref for ref in ordered if ref.step not in kept]
    if policy.save_total_limit is None:
        return [(ref, _not_kept(policy)) for ref in removable]
    excess = max(0, len(ordered) - max(1, policy.save_total_limit))
    return [(ref, f"more than save_total_limit={policy.save_total_limit}") for ref in removable[:excess]]


def _not_kept(policy: RetentionPolicy) -> str:
    rules = [f"{name}={value}" for name, value in (("keep_best", policy.keep_best), ("keep_last", policy.keep_last)) if value is not None]
    return f"not among {', '.join(rules)}"


def remove_checkpoint(path: Path) -> None:
    """Remove one checkpoint; may be cut short and called again at any point. Raises StorageError."""
    crash_point("retention.before_manifest")
    remove_file(path / MANIFEST_NAME)
    crash_point("retention.after_manifest")
    removed = path.with_name(hidden_name(REMOVED_PREFIX, path.name))
    rename(path, removed)
    crash_point("retention.after_rename")
    remove_tree(removed)


def plan_leftovers(root: Path) -> list[tuple[Path, str]]:
    """What lies hidden in a store and will never be loaded, with the reason it is there; for a cleanup that people ask for.

    Unfinished saves are among them, so only for a store whose run is not being trained. Raises StorageError.
    """
    if not root.is_dir():
        return []
    with storage_errors("list checkpoints", root):
        entries = sorted(root.iterdir())
    return [(entry, reason) for entry in entries for prefix, reason in _LEFTOVERS.items() if entry.name.startswith(prefix)]


def list_quarantined(root: Path) -> list[str]:
    """Hidden names of checkpoints that were put aside because they did not verify; nothing of ours removes them."""
    return sorted(entry.name for entry in root.iterdir() if entry.name.startswith(QUARANTINE_PREFIX)) if root.is_dir() else []


def remove_superseded(root: Path, valid: Sequence[CheckpointRef]) -> None:
    """Remove the former holders of a step's name where the new one is known to be good. Raises StorageError."""
    for ref in valid:
        for former in sorted(root.glob(f"{SUPERSEDED_PREFIX}{ref.path.name}-*")):
            remove_file(former / MANIFEST_NAME)
            remove_tree(former)


def execute_retention(root: Path, plan: Sequence[tuple[CheckpointRef, str]]) -> None:
    """Remove what the plan names, finish removals that were cut short, and drop pointers that lead nowhere. Raises StorageError."""
    for ref, _ in plan:
        remove_checkpoint(ref.path)
    remove_leftovers(root, prefix=REMOVED_PREFIX)
    for entry in scan_labels(root):
        target = read_pointer(entry)
        if target is not None and is_pointer(entry) and not (root / target).exists():
            remove_file(entry)
