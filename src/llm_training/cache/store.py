"""The token store of one dataset: its plan, its chunks and the metadata that vouches for them.

    store/<dataset>/plan.json                        slices, append-only
    store/<dataset>/cache_metadata.json              settings, and size, hash and counts of every chunk
    store/<dataset>/build.jsonl                      records of chunks built since; only while a build is under way or was killed
    store/<dataset>/chunk_000000.arrow               training documents of slice 0
    store/<dataset>/validation/chunk_000000.arrow    its held-out documents, for slices of the first plan only

The held-out set is frozen with the first plan, so that figures of one dataset can be compared for as long as it grows:
held-out documents of later slices are neither trained on nor added to it. ``test`` documents are never stored.
A chunk exists when a record of it does; the record is written after the file. This module reads and writes the store,
`build` decides what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from llm_training.cache.arrow_file import REPAIR, check_bytes
from llm_training.cache.chunk import ChunkHeader, ChunkRecord, ChunkTokens, Provenance, read_chunk, read_provenance
from llm_training.cache.files import LOCAL_FILES, CacheFiles
from llm_training.cache.sealed import parse_content, read_sealed, sealed_bytes
from llm_training.cache.swap import mark_of, settled
from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.append import read_jsonl
from llm_training.storage.durable import make_directory, remove_file, write_bytes
from llm_training.storage.links import is_plain_name

METADATA_NAME = "cache_metadata.json"
PLAN_NAME = "plan.json"
JOURNAL_NAME = "build.jsonl"
TRAIN, VALIDATION = "train", "validation"
VERSION = 1
_METADATA_KIND, _PLAN_KIND = "llm-training token store", "llm-training plan"

# A swap takes moments and is met by chance; each begins the reading anew.
_MAX_SWAPS = 10

_Content = TypeVar("_Content")

Records = dict[str, dict[int, ChunkRecord]]


@dataclass(frozen=True)
class StoreSettings:
    """What decides the bytes of every chunk, beside the plan.

    Attributes:
        dataset: directory name of the dataset.
        fingerprint: sha256 of what the dataset is made from (`catalog.Identity`).
        tokenizer: fingerprint of the tokenizer.
        vocab_size, separator_id: of the tokenizer.
        compression: ``lz4``, ``zstd`` or ``none``.
    """

    dataset: str
    fingerprint: str
    tokenizer: str
    vocab_size: int
    separator_id: int
    compression: str = "lz4"


@dataclass(frozen=True)
class LeftOut:
    """Documents of a slice that are in no chunk, and those that are there with U+FFFD for bytes that are no UTF-8.

    Attributes:
        num_bad: those that should not have been in the source at all.
        reasons: all of them, by reason.
        example: reason and place of a bad one; empty without.
        num_replaced: those read with U+FFFD.
        first_replaced: file and offset of the first such byte.
    """

    num_bad: int
    reasons: Mapping[str, int]
    example: str = ""
    num_replaced: int = 0
    first_replaced: tuple[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; what was replaced is named only where something was."""
        content = asdict(self)
        return content if self.num_replaced else {name: content[name] for name in ("num_bad", "reasons", "example")}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> LeftOut:
        """Of a JSON object. Raises TypeError or ValueError for what is none."""
        found = LeftOut(**content)
        place = found.first_replaced
        if place is not None:
            key, offset = place
            found = replace(found, first_replaced=(str(key), int(offset)))
        if not all(type(number) is int and number >= 0 for number in (found.num_bad, found.num_replaced, *dict(found.reasons).values())):
            raise ValueError(f"counts of documents left out are {content!r}")
        return found


@dataclass(frozen=True)
class Problem:
    """A chunk that is not what it should be, and how."""

    split: str
    number: int
    reason: str


def chunk_name(number: int) -> str:
    """File name of chunk ``number`` in the store."""
    return f"chunk_{number:06d}.arrow"


def planned_slices(directory: Path) -> list[Any]:
    """The slices that the store ``directory`` was planned with; none when there is no plan. Raises IntegrityError, StorageError."""
    path = settled(directory) / PLAN_NAME
    if not path.exists():
        return []
    plan = read_sealed(path, _PLAN_KIND, VERSION)
    return parse_content(path, lambda: list(plan["slices"]))


def recorded_compression(directory: Path) -> str | None:
    """How the chunks of the store ``directory`` are compressed; None when there is no store that can be read."""
    with suppress(IntegrityError, StorageError, KeyError, TypeError):
        return str(read_sealed(settled(directory) / METADATA_NAME, _METADATA_KIND, VERSION)["settings"]["compression"])
    return None


class ChunkStore:
    """A store on disk. Holds no open files; many may read while one process (which holds the lock) builds."""

    def __init__(
        self,
        directory: Path,
        settings: StoreSettings,
        plan: Sequence[Any],
        validation_slices: int,
        records: Records,
        files: CacheFiles = LOCAL_FILES,
        left_out: Mapping[int, LeftOut] | None = None,
    ) -> None:
        self.directory = directory
        self.files = files
        self.settings = settings
        self.plan = plan
        self.validation_slices = validation_slices
        self.records = records
        self.left_out = dict(left_out or {})

    @staticmethod
    def create(directory: Path, settings: StoreSettings) -> ChunkStore:
        """A store without chunks; nothing but directories is written until a plan is recorded. Raises StorageError.

        A plan that is there already (a kill came before the metadata, or the metadata was lost) goes on to hold, since
        it says which slices the frozen validation set has.
        """
        make_directory(directory / VALIDATION)
        slices, validation_slices = [], 0
        with suppress(IntegrityError, StorageError):
            plan = read_sealed(directory / PLAN_NAME, _PLAN_KIND, VERSION)
            if plan["fingerprint"] == settings.fingerprint:
                slices, validation_slices = plan["slices"], plan["validation_slices"]
        return ChunkStore(directory, settings, slices, validation_slices, {TRAIN: {}, VALIDATION: {}})

    @staticmethod
    def open(directory: Path, files: CacheFiles = LOCAL_FILES) -> ChunkStore:
        """Read plan, metadata and journal; ``files`` says where chunks come from.

        Raises:
            IntegrityError: there is none, or one is damaged.
            StorageError: one cannot be read.
        """
        for _ in range(_MAX_SWAPS):
            place = settled(directory)
            mark = mark_of(place)
            try:
                store = ChunkStore._read_indexes(directory, place, files)
            except (IntegrityError, StorageError):
                if mark_of(settled(directory)) == mark:
                    raise
                continue
            if mark_of(settled(directory)) == mark:  # else some of what was read is of the old store, some of the new
                return store
        raise IntegrityError("the cache is rebuilt all the time", where=str(directory), remedy="wait for the builders, or stop them")

    @staticmethod
    def _read_indexes(directory: Path, place: Path, files: CacheFiles) -> ChunkStore:
        """The store ``directory``, whose files are in ``place`` now."""
        if not (place / METADATA_NAME).exists():
            raise IntegrityError("no cache here", where=str(directory), remedy="build it with llm-build-cache")
        # The journal first: a builder that commits meanwhile moves its records into the metadata and removes it. The plan last: it
        # is written before the chunks of its slices, so it knows every slice that has a record.
        journal = list(read_jsonl(place / JOURNAL_NAME))
        metadata = read_sealed(place / METADATA_NAME, _METADATA_KIND, VERSION)
        plan = read_sealed(place / PLAN_NAME, _PLAN_KIND, VERSION)

        def parse() -> ChunkStore:
            settings = StoreSettings(**metadata["settings"])
            if not is_plain_name(settings.dataset):  # it becomes a part of paths
                raise ValueError(f"{settings.dataset!r} is no name of a dataset")
            records = {split: _by_number(metadata[split]) for split in (TRAIN, VALIDATION)}
            left_out = {int(number): LeftOut.from_json(entry) for number, entry in metadata.get("left_out", {}).items()}
            return ChunkStore(directory, settings, plan["slices"], plan["validation_slices"], records, files, left_out)

        store = parse_content(place / METADATA_NAME, parse)
        if plan["fingerprint"] != store.settings.fingerprint:
            raise IntegrityError("plan and metadata belong to different datasets", where=str(place), remedy=REPAIR)
        store._merge(journal)
        return store

    def _merge(self, journal: Iterable[Mapping[str, Any]]) -> None:
        for entry in journal:
            for split in self.records:
                if split in entry:
                    record = parse_content(self.directory / JOURNAL_NAME, lambda content=entry[split]: ChunkRecord.from_json(content))
                    self.records[split][record.number] = record
            if "left_out" in entry:
                self.left_out[entry["number"]] = parse_content(
                    self.directory / JOURNAL_NAME, lambda content=entry["left_out"]: LeftOut.from_json(content)
                )

    def record_plan(self, slices: Sequence[Any]) -> None:
        """Make ``slices`` (JSON-able, in order) the plan. The first plan fixes the validation slices.

        Raises:
            IntegrityError: the slices known so far are not a prefix of ``slices``: a source was edited, not added to.
            StorageError: the disk refuses.
        """
        for number, (known, given) in enumerate(zip(self.plan, slices, strict=False)):
            if known != given:
                self._refuse_plan(f"slice {number} of the source is not what it was when the cache was planned")
        if len(slices) < len(self.plan):
            self._refuse_plan(f"the source has {len(slices)} slices, {len(self.plan)} were planned")
        if not self.plan:
            self.validation_slices = len(slices)
        if list(slices) != list(self.plan) or not (self.directory / PLAN_NAME).exists():
            self.plan = list(slices)
            write_bytes(self.directory / PLAN_NAME, self.plan_bytes())
        if not (self.directory / METADATA_NAME).exists():
            self.commit()

    def _refuse_plan(self, what: str) -> None:
        raise IntegrityError(what, where=str(self.directory), remedy="give the changed data another name, or build with --force-rebuild")

    def plan_bytes(self) -> bytes:
        """The plan file of this store as it is in memory."""
        content = {
            "kind": _PLAN_KIND,
            "version": VERSION,
            "fingerprint": self.settings.fingerprint,
            "validation_slices": self.validation_slices,
            "slices": list(self.plan),
        }
        return sealed_bytes(content)

    def metadata_bytes(self) -> bytes:
        """The metadata file of this store as it is in memory, records of the journal included."""
        content = {"kind": _METADATA_KIND, "version": VERSION, "settings": asdict(self.settings), "totals": self.totals()}
        for split, records in self.records.items():
            content[split] = [asdict(records[number]) for number in sorted(records)]
        if self.left_out:
            content["left_out"] = {str(number): self.left_out[number].to_json() for number in sorted(self.left_out)}
        return sealed_bytes(content)

    def commit(self) -> None:
        """Fold everything known into the metadata and drop the journal. Raises StorageError."""
        write_bytes(self.directory / METADATA_NAME, self.metadata_bytes())
        remove_file(self.directory / JOURNAL_NAME)

    def totals(self) -> dict[str, dict[str, int]]:
        """Chunks, documents, tokens, text bytes and file bytes of each split."""
        names = ("num_documents", "num_tokens", "text_bytes", "num_bytes")
        return {
            split: {"num_chunks": len(records), **{name: sum(getattr(record, name) for record in records.values()) for name in names}}
            for split, records in self.records.items()
        }

    def splits_of(self, number: int) -> tuple[str, ...]:
        """The splits that slice ``number`` has a chunk of."""
        return (TRAIN, VALIDATION) if number < self.validation_slices else (TRAIN,)

    def path(self, split: str, number: int) -> Path:
        """File of a chunk, as things lie now."""
        place = settled(self.directory)
        return (place if split == TRAIN else place / VALIDATION) / chunk_name(number)

    def header(self, split: str, number: int) -> ChunkHeader:
        """What the chunk's schema must say."""
        settings = self.settings
        return ChunkHeader(number, split, settings.tokenizer, settings.vocab_size, settings.separator_id)

    def require_tokenizer(self, fingerprint: str) -> None:
        """Raise IntegrityError unless the store was built with this tokenizer."""
        if fingerprint != self.settings.tokenizer:
            what = f"the cache was built with tokenizer {self.settings.tokenizer[:8]}, not with {fingerprint[:8]}"
            raise IntegrityError(what, where=str(self.directory), remedy="use that tokenizer, or build a cache with this one")

    def read(self, split: str, number: int) -> ChunkTokens:
        """Read, check and decode a chunk. Raises IntegrityError naming the file; StorageError."""
        return self._decoded(split, number, read_chunk)

    def provenance(self, split: str, number: int) -> list[Provenance]:
        """Where each document of a chunk came from. Raises IntegrityError, StorageError."""
        return self._decoded(split, number, read_provenance)

    def _decoded(self, split: str, number: int, decode: Callable[[bytes, ChunkRecord, ChunkHeader, str], _Content]) -> _Content:
        try:
            return self._decoded_once(split, number, decode)
        except (IntegrityError, StorageError):
            if not self._is_rebuilt(split, number):
                raise
        return self._decoded_once(split, number, decode)

    def _decoded_once(self, split: str, number: int, decode: Callable[[bytes, ChunkRecord, ChunkHeader, str], _Content]) -> _Content:
        path = self.path(split, number)
        record = self.records[split].get(number)
        if record is None or self.files.size(path) is None:
            raise IntegrityError(f"chunk {number} is missing", where=str(path), remedy=REPAIR)
        return decode(self.files.read(path, record.num_bytes, record.sha256), record, self.header(split, number), str(path))

    def _is_rebuilt(self, split: str, number: int) -> bool:
        """True when a store with the same tokens in this chunk has taken the place of this one; its record is then the record."""
        try:
            newest = ChunkStore.open(self.directory, self.files)
        except (IntegrityError, StorageError):
            return False
        known, found = self.records[split].get(number), newest.records[split].get(number)
        if known is None or found is None or found.content != known.content:
            return False
        self.records[split][number] = found
        return True

    def problems(self, *, hashes: bool) -> list[Problem]:
        """Recorded chunks whose file is missing or wrong: in size, and with ``hashes`` in content. Not raised but listed."""
        found: list[Problem] = []
        for split, records in self.records.items():
            for number, record in sorted(records.items()):
                if reason := self._fault(self.path(split, number), record, hashes):
                    found.append(Problem(split, number, reason))
        return found

    def _fault(self, path: Path, record: ChunkRecord, hashes: bool) -> str:
        size = self.files.size(path)
        if size is None:
            return f"{path}: no such file"
        if size != record.num_bytes:
            return f"{path}: {size} bytes, expected {record.num_bytes}"
        if hashes:
            try:
                check_bytes(self.files.read(path, record.num_bytes, record.sha256), record.num_bytes, record.sha256, str(path))
            except (IntegrityError, StorageError) as error:
                return f"{path}: {error.what}"
        return ""

    def unbuilt(self) -> list[int]:
        """Slices of the plan that lack the record of one of their chunks."""
        return [number for number in range(len(self.plan)) if any(number not in self.records[split] for split in self.splits_of(number))]

    def strangers(self) -> list[Path]:
        """Chunk-like files of no slice of the plan: ignored by every reader, worth a warning. (A stopped build may have been ahead.)"""
        known = {self.path(split, number) for number in range(len(self.plan)) for split in self.splits_of(number)}
        found = [*self.directory.glob("chunk_*.arrow"), *(self.directory / VALIDATION).glob("chunk_*.arrow")]
        return sorted(set(found) - known)


def _by_number(entries: Iterable[Mapping[str, Any]]) -> dict[int, ChunkRecord]:
    records = [ChunkRecord.from_json(entry) for entry in entries]
    by_number = {record.number: record for record in records}
    if len(by_number) != len(records):
        raise ValueError("a chunk number occurs twice")
    return by_number
