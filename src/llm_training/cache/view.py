"""The view of a store for one row length and packing strategy: a small plan of rows for each chunk, and its own metadata.

    packed_sequences/<T>/<dataset>/cache_metadata.json
    packed_sequences/<T>/<dataset>/packed_chunk_000000.arrow     rows over store/<dataset>/chunk_000000.arrow

A view holds no tokens. It is a pure function of document lengths, so it is rebuilt in moments for another length
(curriculum, longer context) without tokenising again. Strategies other than the default have ``.<strategy>`` after the
dataset's name, so that runs with different strategies do not overwrite each other's view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from llm_training.cache.arrow_file import REPAIR, declared_bytes
from llm_training.cache.chunk import ChunkRecord
from llm_training.cache.files import LOCAL_FILES, CacheFiles
from llm_training.cache.packing import PackingStats, RowPlan, measure, pack, strategy_named
from llm_training.cache.row_plan import DEFAULT_STRATEGY, PlanRecord, ViewSettings, decode_plan, encode_plan
from llm_training.cache.sealed import parse_content, read_sealed, sealed_bytes
from llm_training.cache.store import METADATA_NAME, TRAIN, ChunkStore
from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.directories import remove_leftovers
from llm_training.storage.durable import make_directory, write_bytes
from llm_training.storage.faults import crash_point
from llm_training.storage.hashing import record_of
from llm_training.storage.locks import FileLock

VIEWS_DIRECTORY = "packed_sequences"
VERSION = 1
_KIND = "llm-training packed view"
_COMMIT_CHUNKS = 512
# A builder and trainers of one cache extend the same view, each for moments.
_LOCK_SECONDS = 60.0


def packed_chunk_name(number: int) -> str:
    """File name of the row plan of chunk ``number``."""
    return f"packed_chunk_{number:06d}.arrow"


def view_directory(cache_directory: Path, settings: ViewSettings) -> Path:
    """Where the view lies."""
    return cache_directory / VIEWS_DIRECTORY / str(settings.sequence_length) / settings.directory_name


class PackedView:
    """A view on disk, ready to read. ``records`` holds the row plans by chunk number."""

    def __init__(self, directory: Path, settings: ViewSettings, records: dict[int, PlanRecord], files: CacheFiles = LOCAL_FILES) -> None:
        self.directory = directory
        self.files = files
        self.settings = settings
        self.records = records

    @staticmethod
    def open(directory: Path, files: CacheFiles = LOCAL_FILES) -> PackedView:
        """Read the metadata; ``files`` says where row plans come from.

        Raises:
            IntegrityError: there is none, or it is damaged.
            StorageError: it cannot be read.
        """
        path = directory / METADATA_NAME
        if not path.exists():
            raise IntegrityError("no packed view here", where=str(directory), remedy="build it with llm-build-cache")
        metadata = read_sealed(path, _KIND, VERSION)

        def parse() -> PackedView:
            records = [PlanRecord(**entry) for entry in metadata["chunks"]]
            return PackedView(directory, ViewSettings(**metadata["settings"]), {record.number: record for record in records}, files)

        return parse_content(path, parse)

    @property
    def stats(self) -> PackingStats:
        """Rows, tokens, padding and cut documents of all chunks together."""
        names = ("num_rows", "num_tokens", "num_padding_tokens", "num_dropped_tokens", "num_documents", "num_cut_documents")
        return PackingStats(**{name: sum(getattr(record, name) for record in self.records.values()) for name in names})

    def metadata_bytes(self) -> bytes:
        """The metadata file of this view as it is in memory."""
        totals = {**asdict(self.stats), "num_chunks": len(self.records)}
        chunks = [asdict(self.records[number]) for number in sorted(self.records)]
        content = {"kind": _KIND, "version": VERSION, "settings": asdict(self.settings), "totals": totals, "chunks": chunks}
        return sealed_bytes(content)

    def commit(self) -> None:
        """Write the metadata. Raises StorageError."""
        write_bytes(self.directory / METADATA_NAME, self.metadata_bytes())

    def over(self, chunks: Mapping[int, ChunkRecord]) -> PackedView:
        """The row plans of these chunks alone, as far as they are of the same tokens."""
        kept = {number: record for number, record in self.records.items() if number in chunks and chunks[number].content == record.content}
        return PackedView(self.directory, self.settings, kept, self.files)

    def path(self, number: int) -> Path:
        """File of a row plan."""
        return self.directory / packed_chunk_name(number)

    def is_current(self, number: int, chunk: ChunkRecord) -> bool:
        """True when the row plan of that chunk is recorded, is of these tokens, and its file has the right size."""
        record = self.records.get(number)
        if record is None or record.content != chunk.content:
            return False
        return self.files.size(self.path(number)) == record.num_bytes

    def problems(self) -> list[str]:
        """Recorded row plans that cannot be read and verified, as one line each; reads them all."""
        return [reason for number in sorted(self.records) if (reason := self._fault(number))]

    def _fault(self, number: int) -> str:
        try:
            self.read_plan(number)
        except (IntegrityError, StorageError) as error:
            return f"{error.where}: {error.what}"
        return ""

    def read_plan(self, number: int) -> RowPlan:
        """Read, check and decode the row plan of a chunk. Raises IntegrityError naming the file; StorageError."""
        path, record = self.path(number), self.records.get(number)
        if record is None or self.files.size(path) is None:
            raise IntegrityError(f"row plan {number} is missing", where=str(path), remedy=REPAIR)
        data = self.files.read(path, record.num_bytes, record.sha256)
        return decode_plan(data, record, self.settings, str(path))


def build_view(
    cache_directory: Path,
    store: ChunkStore,
    sequence_length: int,
    strategy: str = DEFAULT_STRATEGY,
    *,
    check_content: bool = False,
    progress: Callable[[int, int], None] | None = None,
    damaged: Callable[[str], None] | None = None,
) -> PackedView:
    """Plan the rows of every training chunk that has no current plan, and return the view.

    Args:
        cache_directory: the directory that holds ``store`` and ``packed_sequences``.
        store: with the chunks to plan for; all records are planned, gaps are left out. Its records may be older than what is on the
            disk (the lock may be long in coming): plans of chunks that it does not know stay on the disk, but are not in what is returned.
        sequence_length, strategy: of the rows.
        check_content: read existing plans and replace the damaged (mode ``inverse``).
        progress: called with plans done and plans due.
        damaged: told, in a line each, of the plans that ``check_content`` finds damaged.

    Raises:
        ConfigError: unknown strategy.
        IntegrityError: a chunk of the store is damaged.
        LockedError: another process has been building this view for a minute.
        StorageError: the disk refuses.
    """
    strategy_named(strategy)
    wanted = ViewSettings(store.settings.dataset, store.settings.fingerprint, store.settings.tokenizer, sequence_length, strategy)
    directory = view_directory(cache_directory, wanted)
    lock = FileLock(directory.with_name(f".{directory.name}.lock"), what=f"the packed view {directory}", wait_seconds=_LOCK_SECONDS)
    with lock:
        make_directory(directory)
        remove_leftovers(directory)
        view = _open_or_empty(directory, wanted)
        newest = ChunkStore.open(store.directory, store.files)
        chunks = newest.records[TRAIN]
        faults = {number: reason for number in sorted(view.records) if (reason := view._fault(number))} if check_content else {}
        for reason in faults.values():
            if damaged is not None:
                damaged(reason)
        current = (number for number, chunk in chunks.items() if view.is_current(number, chunk))
        view.records = {number: view.records[number] for number in current if number not in faults}
        asked = store.records[TRAIN].keys() & chunks.keys()
        due = sorted(asked - view.records.keys())
        for done, number in enumerate(due, 1):
            view.records[number] = _build_plan(view, newest, number)
            crash_point("cache.after_plan")
            if done % _COMMIT_CHUNKS == 0:
                view.commit()
            if progress is not None:
                progress(done, len(due))
        view.commit()
        return PackedView(directory, wanted, {number: view.records[number] for number in sorted(asked)})


def _open_or_empty(directory: Path, wanted: ViewSettings) -> PackedView:
    """The view there, or an empty one in its place: a damaged view, or one of other data, costs nothing to replace."""
    try:
        view = PackedView.open(directory)
    except IntegrityError:
        return PackedView(directory, wanted, {})
    return view if view.settings == wanted else PackedView(directory, wanted, {})


def _build_plan(view: PackedView, store: ChunkStore, number: int) -> PlanRecord:
    offsets = store.read(TRAIN, number).document_offsets
    plan = pack(offsets, view.settings.sequence_length, view.settings.strategy)
    data = encode_plan(plan, number, view.settings)
    write_bytes(view.path(number), data)
    return PlanRecord(
        number=number,
        num_bytes=data.size,
        sha256=record_of(data).digest,
        decoded_bytes=declared_bytes(data),
        content=store.records[TRAIN][number].content,
        **asdict(measure(plan, offsets)),
    )
