"""The values that pass between file formats and the planner and reader, and the Protocol of a format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from llm_training.corpus.sources.decoding import NOT_REPLACED
from llm_training.corpus.streams import ByteStream

# Reasons that only count; every other reason is a bad record, which a strict reading refuses.
HARMLESS_REASONS = frozenset({"blank line", "empty text", "not a page"})

# Once in a file at most, so there is time to count the lines before it.
NEVER_CLOSED = "quote never closed"
UNDECODABLE, MISSING_TEXT = "undecodable", "missing text"


class Cut(NamedTuple):
    """A stretch of a file that holds whole records.

    Offsets count decompressed bytes (rows, for formats of rows); ``is_continued`` when the last record goes on in the next stretch.
    """

    start: int
    stop: int
    num_records: int
    num_bytes: int
    sha256: str
    is_continued: bool = False


# Not frozen: one is made for every line of every file, and freezing doubles the price.
@dataclass(slots=True)
class Record:
    """One record of a stretch: a text (or ids), or the reason why it has none.

    Attributes:
        position: index in the file, counted from 0.
        offset: where it starts, bytes from the start of the stretch.
        reason: empty for a good record.
        detail: what exactly is wrong, for people.
        replaced_at: where the first byte is that became U+FFFD, counted as ``offset``; -1 for none.
    """

    position: int
    offset: int = 0
    text: str = ""
    id: str | None = None
    metadata: Mapping[str, object] | None = None
    token_ids: tuple[int, ...] | None = None
    reason: str = ""
    detail: str = ""
    replaced_at: int = NOT_REPLACED

    @property
    def is_bad(self) -> bool:
        """True for a record that a strict reading refuses."""
        return bool(self.reason) and self.reason not in HARMLESS_REASONS


# So much of a record over the limit is read, to say what it is.
START_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What a format obeys: the aim for a stretch and the longest record held in memory, bytes; which field is the text.

    ``keep_html``: pages stay HTML, for a cleaning that extracts their text itself. ``replaces_bad_bytes``: bytes that are no text
    become U+FFFD, instead of the record being bad.
    """

    stretch_bytes: int
    record_bytes: int
    text_field: str = "text"
    keep_html: bool = False
    replaces_bad_bytes: bool = False


def too_long(position: int, offset: int, num_bytes: int | None, limits: Limits) -> Record:
    """The record that is over the limit; ``num_bytes`` is None where it was read no further than that."""
    limit = f"the limit is {limits.record_bytes:,}"
    detail = f"{limit} bytes" if num_bytes is None else f"{num_bytes:,} bytes, {limit}"
    return Record(position, offset, reason="longer than data.max_document_bytes", detail=detail)


class LimitedFormat:
    """A format whose records over the limit are all bad."""

    def oversized(self, start: bytes, position: int, num_bytes: int, limits: Limits) -> Record:
        """See :class:`Format`."""
        return too_long(position, 0, num_bytes, limits)


class Format(Protocol):
    """How bytes hold records."""

    name: str
    is_cuttable: bool  # True when any line boundary may divide a document (text), False for structured records
    head_bytes: int  # how much of the start of the file a later stretch needs

    def cuts(self, stream: ByteStream, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """Divide ``[start, stop)`` (``None``: to the end) into stretches of about ``limits.stretch_bytes``."""
        ...

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """The records of one stretch. ``head``: the start of the file when the stretch is not that, else empty."""
        ...

    def oversized(self, start: bytes, position: int, num_bytes: int, limits: Limits) -> Record:
        """The record of a stretch that is over the limit, of which only the first bytes (``START_BYTES``) are read."""
        ...
