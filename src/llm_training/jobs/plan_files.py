"""The plan of a corpus as a file of the cache: continued by whoever looks at the sources, replaced only by a forced rebuild.

    plans/<name>-<fingerprint>.json                         the plan
    plans/.<name>-<fingerprint>.<dataset>.rebuilding        that of a forced rebuild, until the rebuilt store is in place

Every store keeps the slices it was built from. File and store must not contradict each other, or nothing can be added any
more: so a forced rebuild changes the file only after the store, and what a kill leaves in between is finished by the next look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from llm_training.cache.catalog import STORES_DIRECTORY
from llm_training.cache.sealed import read_sealed, write_sealed
from llm_training.cache.store import planned_slices
from llm_training.config.root import Config
from llm_training.corpus import REPEATED, Corpus, Plan, make_plan
from llm_training.corpus.plan import PlannedFile, Slice
from llm_training.errors import IntegrityError
from llm_training.events import EventBus, Notice
from llm_training.jobs.remote_data import PLAN_KIND, PLAN_VERSION
from llm_training.storage.durable import make_directory, remove_file, write_bytes
from llm_training.storage.locks import FileLock
from llm_training.storage.runs import safe_name

PLANS_DIRECTORY = "plans"
# The convention of bford.info/cachedir.
CACHE_TAG, CACHE_SIGNATURE = "CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n# A token cache of llm-training.\n"
# Held while a plan is written, and while what arrived since another command's look is read.
_LOCK_SECONDS = 600.0


class PlanFile:
    """The plan of a corpus in a local cache.

    Args:
        corpus: the sources.
        config: names the cache, and a dataset in it if a person chose the name.
    """

    def __init__(self, corpus: Corpus, config: Config) -> None:
        self._corpus = corpus
        self._cache = Path(config.cache.dir)
        self._is_named = config.cache.name is not None
        self._name = safe_name(config.cache.name or corpus.name)
        self.path = self._cache / PLANS_DIRECTORY / f"{self._name}-{corpus.fingerprint[:8]}.json"

    def read(self) -> Plan | None:
        """The plan as it is; None when there is none. Raises IntegrityError, StorageError."""
        return _read(self.path)

    def fresh(self, bus: EventBus) -> Plan:
        """A plan made anew, for a forced rebuild; nothing is written. Raises as `make_plan`."""
        plan = self._continued(None, bus)
        tell_skipped(plan, bus)
        return plan

    def continued(self, bus: EventBus, *, may_rescan: bool) -> Plan:
        """The plan, continued with what was added to the sources since (without ``may_rescan`` only made where there is none).

        Reading the sources takes long, so the lock is held for the writing only. What another command wrote meanwhile is continued
        instead (most is not read again): two plans from one beginning would divide what was added differently, and a store may
        already hold slices of the other.

        Raises:
            DataError, IntegrityError: as `make_plan`.
            LockedError: another command has been writing the plan for ten minutes.
            StorageError: it cannot be written.
        """
        previous = self._standing()
        if previous is not None and not may_rescan:
            return previous
        plan = self._continued(previous, bus)
        if plan == previous:
            return plan
        tell_skipped(plan, bus)
        self._make_place()
        with self._locked():
            if (found := self.read()) != previous:
                plan = self._continued(found, bus)
            if plan != found:
                _write(self.path, plan)
        return plan

    def keep_beside(self, plan: Plan, dataset: str) -> None:
        """Write the plan of a forced rebuild of the store ``dataset``, before that begins. Raises StorageError."""
        self._make_place()
        _write(self._beside(dataset), plan)

    def put_in_place(self, dataset: str) -> None:
        """Make what `keep_beside` wrote the plan, after the store is in place. Raises LockedError, StorageError."""
        with self._locked():
            plan = _read(self._beside(dataset))
            if plan is not None:  # else the look of another command did it
                self._replace(plan, dataset)

    def _replace(self, plan: Plan, dataset: str) -> None:
        _write(self.path, plan)
        remove_file(self._beside(dataset))

    def _continued(self, previous: Plan | None, bus: EventBus) -> Plan:
        return make_plan(self._corpus, previous, notify=lambda line: bus.publish(Notice(message=line)))

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.name}.lock"), what=f"the plan {self.path}", wait_seconds=_LOCK_SECONDS)

    def _beside(self, dataset: str) -> Path:
        return self.path.with_name(f".{self.path.stem}.{dataset}.rebuilding")

    def _make_place(self) -> None:
        """Make the folder, and mark the cache for backup programs, and for us when somebody trains on a folder around it."""
        make_directory(self.path.parent)
        if not (self._cache / CACHE_TAG).exists():
            write_bytes(self._cache / CACHE_TAG, CACHE_SIGNATURE)

    def _standing(self) -> Plan | None:
        """The plan that the stores stand by: the file, or what it has to become after a kill or a restored copy of it."""
        found = self.read()
        if self._rebuilt(found) is None and self._longest(found) is None:
            return found
        with self._locked():
            found = self.read()
            if (rebuilt := self._rebuilt(found)) is not None:
                self._replace(*rebuilt)
                found = rebuilt[0]
            if (longest := self._longest(found)) is not None:
                _write(self.path, longest)
                found = longest
        return found

    def _rebuilt(self, found: Plan | None) -> tuple[Plan, str] | None:
        """The plan of a forced rebuild whose store is in place while the file is still of the store before; with the dataset."""
        before = f".{self.path.stem}."
        for path in sorted(self.path.parent.glob(f"{before}*.rebuilding")):
            dataset = path.name.removeprefix(before).removesuffix(".rebuilding")
            recorded = _slices_of(self._cache / STORES_DIRECTORY / dataset)
            if not recorded or _agree(found, recorded):
                continue
            with suppress(IntegrityError):
                plan = _read(path)
                if _agree(plan, recorded):
                    assert plan is not None
                    return plan, dataset
        return None

    def _longest(self, found: Plan | None) -> Plan | None:
        """The plan with the slices that a store has beyond it; None when no store has more."""
        if found is None:
            return None
        longest: Sequence[Any] = ()
        for directory in self._stores():
            recorded = _slices_of(directory)
            if len(recorded) > max(len(longest), len(found.slices)) and _agree(found, recorded):
                longest = recorded
        return _with_slices(found, longest) if longest else None

    def _stores(self) -> Iterator[Path]:
        folder = self._cache / STORES_DIRECTORY
        yield from [folder / self._name] if self._is_named else sorted(folder.glob(f"{self._name}-????????"))


def tell_skipped(plan: Plan, bus: EventBus) -> None:
    """One line on files and folders that are left out, by reason."""
    skipped = {reason: count for reason, count in plan.skipped.items() if reason != REPEATED}  # of these the planning told
    if skipped:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()))
        bus.publish(Notice(message=f"left out of the sources: {counts}", level="warning"))


def _read(path: Path) -> Plan | None:
    return Plan.from_json(read_sealed(path, PLAN_KIND, PLAN_VERSION)["plan"]) if path.exists() else None


def _write(path: Path, plan: Plan) -> None:
    write_sealed(path, {"kind": PLAN_KIND, "version": PLAN_VERSION, "plan": plan.to_json()})


def plain_slices(plan: Plan) -> list[Any]:
    """The slices of a plan as a store records them."""
    return [orjson.loads(orjson.dumps(piece.to_json())) for piece in plan.slices]


def _slices_of(store: Path) -> Sequence[Any]:
    """What the store records; nothing when it cannot say."""
    with suppress(IntegrityError):
        return planned_slices(store)
    return ()


def _agree(plan: Plan | None, recorded: Sequence[Any]) -> bool:
    """True when one goes on from the other."""
    count = 0 if plan is None else min(len(plan.slices), len(recorded))
    return plan is not None and plain_slices(replace(plan, slices=plan.slices[:count])) == list(recorded[:count])


def _with_slices(plan: Plan, recorded: Sequence[Any]) -> Plan | None:
    """The plan with further slices that a store records; their files are read and compared by the next look.

    None when they are of a source that the plan does not know.
    """
    slices = Plan.from_json({**plan.to_json(), "slices": list(recorded)}).slices
    added: Sequence[Slice] = slices[len(plan.slices) :]
    if any(piece.source >= len(plan.sources) for piece in added):
        return None
    files = {file.key: file for file in plan.files}
    for piece in added:
        for span in piece.spans:
            known = files.get(span.file, PlannedFile(span.file, piece.source, piece.split, "", 0, 0))
            files[span.file] = replace(known, stamp="", planned_end=span.stop, num_records=span.first + span.count)
    return replace(plan, files=tuple(files.values()), slices=slices)
