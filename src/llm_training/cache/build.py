"""Builds the chunks of a store: which ones are due, in what order they are committed, and by how many processes.

A chunk is committed by two durable steps: its file, then its record in the journal. A builder killed at any point leaves
records of whole files only, so the next one goes on where it stopped, and since chunk k depends on nothing but the
plan, the settings and k, the finished store has the same bytes however often it was killed and whoever built what.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llm_training.cache.arrow_file import check_compression
from llm_training.cache.chunk import ChunkRecord, write_chunk
from llm_training.cache.encoding import DocumentLike, EncoderLike, encode_slice
from llm_training.cache.ray_workers import in_ray
from llm_training.cache.store import JOURNAL_NAME, METADATA_NAME, VALIDATION, ChunkStore, LeftOut, Problem, StoreSettings
from llm_training.cache.swap import beside, recover, replaced, swap
from llm_training.cache.workers import in_this_process, in_threads, in_worker_processes
from llm_training.config.data import Engine
from llm_training.errors import ConfigError, IntegrityError, LockedError, StorageError
from llm_training.storage.append import JsonlAppender
from llm_training.storage.directories import remove_leftovers
from llm_training.storage.durable import TEMPORARY_PREFIX, remove_tree, write_bytes
from llm_training.storage.faults import crash_point
from llm_training.storage.locks import FileLock

# Another may be about to end, or only look whether anything is to be done.
_LOCK_SECONDS = 2.0

MODES = ("normal", "inverse", "force_rebuild")

ReadSlice = Callable[[int], Iterable[DocumentLike]]
OpenSource = Callable[[], tuple[ReadSlice, EncoderLike]]


@runtime_checkable
class Accounting(Protocol):
    """A reader of slices that counts what it does not hand out."""

    def left_out(self) -> LeftOut | None:
        """Of the slice that was read last, to its end; None when nothing was."""
        ...


@dataclass(frozen=True)
class BuiltSlice:
    """Records of the chunks of a slice, by split, and what is in none of them."""

    records: Mapping[str, ChunkRecord]
    left_out: LeftOut | None


@dataclass(frozen=True)
class BuildResult:
    """What a build did. ``is_complete`` is false when it was asked to stop before the last chunk.

    ``text_bytes`` and ``num_tokens`` are of the chunks built now, all splits together; ``damaged`` were found and replaced;
    ``left_out`` has the slices built now of which something is in no chunk.
    """

    built: tuple[int, ...]
    damaged: tuple[Problem, ...]
    text_bytes: int
    num_tokens: int
    seconds: float
    is_complete: bool
    strangers: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class BuildProgress:
    """So far: chunks of the chunks due, and text bytes of both splits."""

    done_chunks: int
    due_chunks: int
    text_bytes: int


def lock_of(directory: Path) -> Path:
    """The lock file of a store; it lies beside, since a forced rebuild swaps the directory itself."""
    return directory.with_name(f".{directory.name}.lock")


def build_store(
    directory: Path,
    settings: StoreSettings,
    slices: Sequence[Any],
    open_source: OpenSource,
    *,
    mode: str = "normal",
    max_chunks: int | None = None,
    workers: int = 1,
    threads: int = 1,
    engine: Engine = "local",
    progress: Callable[[BuildProgress], None] | None = None,
    notify: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> BuildResult:
    """Build what is missing of a store.

    Args:
        directory: ``<cache>/store/<dataset>``.
        settings: of the store; an existing one must have the same.
        slices: the plan, JSON-able; slices recorded earlier must come first and be unchanged.
        open_source: gives a function from slice number to documents, and the tokenizer. Called once in every process, so
            with several ``workers`` or on a cluster it must be picklable (a module's function, or a `functools.partial` of one).
        mode: ``normal`` builds slices without a chunk of the right size, and needs no lock where there are none; ``inverse``
            also checks the content of all others and rebuilds the damaged; ``force_rebuild`` builds all anew beside the old
            store and then swaps.
        max_chunks: build so many of the slices that are due, the first ones; None builds all.
        workers: processes; 1 builds in this one. On a Ray cluster: actors; 0 takes one for each CPU.
        threads: of this process, where it builds itself.
        engine: where chunks are built.
        progress: called after each chunk.
        notify: told in a line where a Ray cluster builds.
        should_stop: asked after each chunk; True ends the build early, to be continued by the next.

    Raises:
        ConfigError: unknown mode or compression, or a compression other than the store's.
        IntegrityError: the store holds other data, another tokenizer, or its plan no longer fits the source.
        LockedError: another process has been building here for some seconds.
        StorageError: the disk refuses; what was committed stays.
        PeerError: a worker died, or there is no cluster.
        DataError: from the source.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown build mode {mode!r}", remedy=f"choose one of {', '.join(MODES)}")
    check_compression(settings.compression)
    build = _Build(settings, slices, open_source, max_chunks, workers, threads, engine, progress, notify, should_stop)
    whole = build.of_whole(directory) if mode == "normal" else None
    if whole is not None and not lock_of(directory).exists():
        return whole
    wait_seconds = _LOCK_SECONDS if whole is None else 0.0
    try:
        with FileLock(lock_of(directory), what=f"the cache {directory.name}", wait_seconds=wait_seconds):
            recover(directory)
            if mode == "force_rebuild" and (directory / METADATA_NAME).exists():
                return _rebuild(directory, build)
            return build.run(directory, check_content=mode == "inverse")
    except LockedError:
        if whole is None:
            raise
        return whole


def _rebuild(directory: Path, build: _Build) -> BuildResult:
    """Build beside, swap, delete after: the old store is whole until the new one is."""
    place = beside(directory)
    if place.exists() and not build.can_continue(place):
        remove_tree(place)
    result = build.run(place, check_content=False)
    if result.is_complete:
        swap(directory)
    return result


@dataclass(frozen=True)
class _Build:
    """One call's arguments, applicable to the store's own directory or to one beside it."""

    settings: StoreSettings
    slices: Sequence[Any]
    open_source: OpenSource
    max_chunks: int | None
    workers: int
    threads: int
    engine: Engine
    progress: Callable[[BuildProgress], None] | None
    notify: Callable[[str], None] | None
    should_stop: Callable[[], bool] | None

    def can_continue(self, directory: Path) -> bool:
        """True when a half-built store there is of the same settings and plan."""
        try:
            store = ChunkStore.open(directory)
        except IntegrityError:
            return False
        return store.settings == self.settings and list(store.plan) == list(self.slices)

    def of_whole(self, directory: Path) -> BuildResult | None:
        """The result of a build that finds nothing to do, without the lock; None where there is, or may be, anything to do."""
        began = time.monotonic()
        if replaced(directory).exists() or (directory / JOURNAL_NAME).exists():
            return None
        try:
            store = ChunkStore.open(directory)
        except (IntegrityError, StorageError):
            return None
        if store.settings != self.settings or list(store.plan) != list(self.slices) or store.unbuilt() or store.problems(hashes=False):
            return None
        if any(path.name.startswith(TEMPORARY_PREFIX) for place in (directory, directory / VALIDATION) for path in place.iterdir()):
            return None
        strangers = tuple(path.name for path in store.strangers())
        return BuildResult((), (), 0, 0, time.monotonic() - began, is_complete=True, strangers=strangers)

    def run(self, directory: Path, *, check_content: bool) -> BuildResult:
        began = time.monotonic()
        store = self._open(directory)
        damaged = store.problems(hashes=check_content)
        for problem in damaged:
            del store.records[problem.split][problem.number]
        due = store.unbuilt()
        built = self._build_chunks(store, due[: self.max_chunks]) if due else {}
        store.commit()
        crash_point("cache.after_commit")
        records = [record for entry in built.values() for record in entry.records.values()]
        return BuildResult(
            built=tuple(sorted(built)),
            damaged=tuple(damaged),
            text_bytes=sum(record.text_bytes for record in records),
            num_tokens=sum(record.num_tokens for record in records),
            seconds=time.monotonic() - began,
            is_complete=len(built) == len(due),
            strangers=tuple(path.name for path in store.strangers()),
            left_out=tuple(entry.left_out for entry in built.values() if entry.left_out is not None),
        )

    def _open(self, directory: Path) -> ChunkStore:
        if not (directory / METADATA_NAME).exists():
            # Without metadata nothing vouches for what lies there: begin again, over whatever a killed first build left.
            store = ChunkStore.create(directory, self.settings)
        else:
            store = ChunkStore.open(directory)
            _require_same(store, self.settings)
        for place in (directory, directory / VALIDATION):
            remove_leftovers(place)
        store.record_plan(self.slices)
        return store

    def _way(self, num_due: int) -> tuple[Callable[..., Any], int]:
        if self.engine == "ray":
            return functools.partial(in_ray, notify=self.notify), self.workers
        if min(self.workers, num_due) > 1:
            return in_worker_processes, self.workers
        return (in_threads, min(self.threads, num_due)) if min(self.threads, num_due) > 1 else (in_this_process, 1)

    def _build_chunks(self, store: ChunkStore, due: Sequence[int]) -> dict[int, BuiltSlice]:
        job = SliceJob(store.directory, store.settings, store.validation_slices, self.open_source)
        run, count = self._way(len(due))
        built: dict[int, BuiltSlice] = {}
        text_bytes = 0
        with JsonlAppender(store.directory / JOURNAL_NAME, fsync=True) as journal, closing(run(job, due, count)) as results:
            for number, made in results:
                journal.append(_journal_entry(number, made))
                crash_point("cache.after_record")
                built[number] = made
                store.left_out.pop(number, None)
                if made.left_out is not None:
                    store.left_out[number] = made.left_out
                for split, record in made.records.items():
                    store.records[split][number] = record
                    text_bytes += record.text_bytes
                if self.progress is not None:
                    self.progress(BuildProgress(len(built), len(due), text_bytes))
                if self.should_stop is not None and self.should_stop():
                    break
        return built


def _journal_entry(number: int, made: BuiltSlice) -> dict[str, Any]:
    entry: dict[str, Any] = {split: asdict(record) for split, record in made.records.items()}
    return entry if made.left_out is None else {**entry, "number": number, "left_out": made.left_out.to_json()}


def _require_same(store: ChunkStore, settings: StoreSettings) -> None:
    where = str(store.directory)
    if store.settings.fingerprint != settings.fingerprint:
        remedy = "choose another cache name, or build with --force-rebuild"
        raise IntegrityError(f"the cache {store.settings.dataset} holds other data", where=where, remedy=remedy)
    store.require_tokenizer(settings.tokenizer)
    if store.settings.compression != settings.compression:
        what = f"the cache is compressed with {store.settings.compression}, {settings.compression} was asked for"
        raise ConfigError(
            what, where=where, remedy=f"keep its compression (--compression {store.settings.compression}), or build with --force-rebuild"
        )


@dataclass(frozen=True)
class SliceJob:
    """Builds the chunks of one slice after another; picklable. `open` is called once in the process that runs it."""

    directory: Path
    settings: StoreSettings
    validation_slices: int
    open_source: OpenSource

    def files(self, number: int) -> list[Path]:
        """The chunks of slice ``number``."""
        store = self._store()
        return [store.path(split, number) for split in store.splits_of(number)]

    def _store(self) -> ChunkStore:
        return ChunkStore(self.directory, self.settings, [], self.validation_slices, {})

    def open(self) -> Callable[[int], BuiltSlice]:
        """The function from slice number to what was made of it; its chunks are on the disk when it returns."""
        read_slice, encoder = self.open_source()
        store = self._store()
        store.require_tokenizer(encoder.fingerprint)

        def build(number: int) -> BuiltSlice:
            splits = store.splits_of(number)
            tables = encode_slice(read_slice(number), encoder, splits)
            records: dict[str, ChunkRecord] = {}
            for split in splits:
                data, records[split] = write_chunk(tables[split], store.header(split, number), self.settings.compression)
                write_bytes(store.path(split, number), data)
                crash_point("cache.after_chunk")
            return BuiltSlice(records, read_slice.left_out() if isinstance(read_slice, Accounting) else None)

        return build
