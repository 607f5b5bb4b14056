"""Sources that are rows rather than bytes: Parquet, Arrow, ``hf:`` data sets and a user's own connectors.

Rows are addressed by number. A stretch is hashed over the texts of its rows, so that a file written again with more
rows at its end, or in another compression, keeps the stretches it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from llm_training.corpus.sources.decoding import NOT_REPLACED, decode
from llm_training.corpus.sources.jsonl import record_of_value
from llm_training.corpus.sources.record import UNDECODABLE, Cut, Limits, Record, too_long

Row = Mapping[str, Any]


class RowSource(Protocol):
    """Something that gives rows in a stable order. A text that is not UTF-8 may be given as its bytes."""

    shown: str  # what messages call it: no machine keys, no secrets

    def stamp(self) -> str:
        """A cheap mark that changes when the rows change."""
        ...

    def rows_from(self, start: int) -> Iterator[Row]:
        """Rows from number ``start`` on."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class RowFile:
    """The records of a row source, read forward; see ``corpus.opened.OpenFile``."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._rows: Iterator[Row] = iter(())
        self._next_row = -1

    def stamp(self) -> str:
        """A cheap mark that changes when the source is written."""
        return self._source.stamp()

    def _take(self, start: int) -> Iterator[Row]:
        """Rows from ``start`` on; continues where the last reading stopped when it can."""
        if start != self._next_row:
            self._rows = iter(self._source.rows_from(start))
            self._next_row = start
        for row in self._rows:
            self._next_row += 1
            yield row

    def cuts(self, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """Group rows into stretches of about ``limits.stretch_bytes`` of text; a longer row is a stretch of its own."""
        digest, size, first, number = hashlib.sha256(), 0, start, start
        for row in self._take(start):
            if number == stop:
                break
            text = _text_bytes(row, limits.text_field)
            if number > first and size + len(text) > limits.stretch_bytes:
                yield Cut(first, number, number - first, size, digest.hexdigest())
                digest, size, first = hashlib.sha256(), 0, number
            _add(digest, text)
            size += len(text)
            number += 1
        if number > first:
            yield Cut(first, number, number - first, size, digest.hexdigest())

    def read(self, cut: Cut, first: int, limits: Limits) -> tuple[list[Record], str]:
        """The records of a stretch and the hash of what was read."""
        digest = hashlib.sha256()
        records: list[Record] = []
        for index, row in zip(range(cut.stop - cut.start), self._take(cut.start), strict=False):
            text = _text_bytes(row, limits.text_field)
            _add(digest, text)
            records.append(_record(row, text, first + index, index, limits))
        return records, digest.hexdigest()

    def locate(self, offset: int) -> str:
        """Where a record is, for people."""
        return f"{self._source.shown}, row {offset}"

    def close(self) -> None:
        """Close the source and forget the rows."""
        self._rows, self._next_row = iter(()), -1
        self._source.close()


def _record(row: Row, text: bytes, position: int, offset: int, limits: Limits) -> Record:
    if len(text) > limits.record_bytes:
        return too_long(position, offset, len(text), limits)
    bad = NOT_REPLACED
    if isinstance(row.get(limits.text_field), bytes):
        if not limits.replaces_bad_bytes:
            return Record(position, offset, reason=UNDECODABLE, detail="not valid utf-8")
        replaced, bad = decode(text, replaces=True)
        row = {**row, limits.text_field: replaced}
    record = record_of_value(row, position, offset, limits.text_field)
    record.replaced_at = bad if bad == NOT_REPLACED else offset
    if _has_lone_surrogate(record):
        return Record(position, offset, reason="lone surrogate", detail="the text or a field holds half of a surrogate pair")
    return record


def _has_lone_surrogate(record: Record) -> bool:
    fields = record.metadata or {}
    strings = (record.text, record.id or "", *fields, *(value for value in fields.values() if isinstance(value, str)))
    try:
        for string in strings:
            string.encode()
    except UnicodeEncodeError:
        return True
    return False


def _text_bytes(row: Row, text_field: str) -> bytes:
    text = row.get(text_field)
    if isinstance(text, bytes):
        return text
    return text.encode(errors="surrogatepass") if isinstance(text, str) else repr(text).encode()


def _add(digest: Any, text: bytes) -> None:
    """Hash a text with its length before it, so that moving bytes from one row to the next shows."""
    digest.update(len(text).to_bytes(8, "little"))
    digest.update(text)
