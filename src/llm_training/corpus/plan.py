"""The plan: which bytes of which files make which slice, written before anything is built from them.

It is append-only. A slice, once planned, never changes: appended bytes and new files make new slices, and bytes that
changed under a slice are an error. Everything a slice's documents depend on is in it or in the plan's head, so a chunk
built from slice k is the same whoever builds it, and when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from llm_training.errors import IntegrityError

FORMAT_VERSION = 1
# How documents without a split by name are divided.
BY_HASH, BY_TAIL, BY_RECORD_TAIL = "hash", "tail", "record-tail"


@dataclass(frozen=True, slots=True)
class Span:
    """Whole records of one file.

    Attributes:
        file: key of the file.
        start, stop: range of its decompressed bytes (``hf:``: of rows).
        first: position of the first record; ``count`` records follow (the first ones of the range, where documents are limited).
        num_bytes: bytes of content, for progress and sizes.
        sha256: hash of that content.
        is_continued: True when the last record goes on in the next span.
    """

    file: str
    start: int
    stop: int
    first: int
    count: int
    num_bytes: int
    sha256: str
    is_continued: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """The documents of one chunk.

    Attributes:
        number: index in the plan, from 0.
        source: index of the source it belongs to.
        split: the split of all its documents, or None when each document's hash decides.
        spans: where they are.
    """

    number: int
    source: int
    split: str | None
    spans: tuple[Span, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of content."""
        return sum(span.num_bytes for span in self.spans)

    @property
    def num_records(self) -> int:
        """Records, dropped ones included."""
        return sum(span.count for span in self.spans)

    @property
    def first_position(self) -> tuple[str, int]:
        """File and position of the first record."""
        return self.spans[0].file, self.spans[0].first

    @property
    def last_position(self) -> tuple[str, int]:
        """File and position of the last record."""
        return self.spans[-1].file, self.spans[-1].first + self.spans[-1].count - 1

    def to_json(self) -> dict[str, object]:
        """The slice as plain values: its identity."""
        return asdict(self)

    @property
    def identity(self) -> str:
        """sha256 (hex) of everything the slice says."""
        return hashlib.sha256(orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """How the documents of one source are divided.

    A source of few documents has the exact share held out: ``held_out`` and ``kept`` are digests of documents that are
    placed in validation and in training whatever their hash says.
    """

    uri: str
    rule: str
    held_out: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """How far a file has been planned. ``stamp`` is a cheap mark of its state: while it is equal, nothing is read."""

    key: str
    source: int
    split: str | None
    stamp: str
    planned_end: int
    num_records: int


@dataclass(frozen=True)
class Plan:
    """All slices of a corpus in order, and what they rest on.

    Attributes:
        settings: those corpus settings that decide what documents are.
        skipped: files and documents left out while planning, counted by reason.
    """

    settings: Mapping[str, Any]
    sources: tuple[PlannedSource, ...]
    files: tuple[PlannedFile, ...]
    slices: tuple[Slice, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of content in all slices."""
        return sum(piece.num_bytes for piece in self.slices)

    def to_json(self) -> dict[str, object]:
        """The plan as plain values."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Plan:
        """The inverse of :meth:`to_json`. Raises IntegrityError for anything it did not write."""
        try:
            return cls._read(data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"plan is malformed ({type(error).__name__}: {error})"
            raise IntegrityError(what, remedy="build the cache again with --force-rebuild") from None

    @classmethod
    def _read(cls, data: Any) -> Plan:
        if data["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {data['format_version']}, this program reads {FORMAT_VERSION}")
        slices = tuple(Slice(entry["number"], entry["source"], entry["split"], _spans(entry["spans"])) for entry in data["slices"])
        if [piece.number for piece in slices] != list(range(len(slices))):
            raise ValueError("slices are not numbered from 0")
        return cls(
            settings=dict(data["settings"]),
            sources=tuple(
                PlannedSource(entry["uri"], entry["rule"], tuple(entry["held_out"]), tuple(entry["kept"])) for entry in data["sources"]
            ),
            files=tuple(PlannedFile(**entry) for entry in data["files"]),
            slices=slices,
            skipped=dict(data["skipped"]),
        )


def _spans(entries: Sequence[Mapping[str, Any]]) -> tuple[Span, ...]:
    spans = tuple(Span(**entry) for entry in entries)
    if not spans:
        raise ValueError("a slice has no spans")
    return spans
