"""CSV and TSV: a header, then one record a row; the text is a named column, the others are metadata.

Rows are found by Python's own reader, once to divide the file and once to read it, so both agree on what a quote means.
It is fed Latin-1, in which every byte is one character: offsets stay bytes, and a row that is not UTF-8 is one bad row.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from llm_training.corpus.sources.decoding import NOT_REPLACED, decode, first_bad_byte
from llm_training.corpus.sources.jsonl import record_of_value
from llm_training.corpus.sources.record import NEVER_CLOSED, UNDECODABLE, Cut, LimitedFormat, Limits, Record, too_long
from llm_training.corpus.streams import ByteStream, place_in_words
from llm_training.errors import DataError

_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
# A quote that is still open this far before the end of the file is a mistake, not a row that is being written.
_MAX_TORN_BYTES = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A whole field in quotes. Possessive: nothing is tried twice, and a long field takes no memory to go back in.
_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')


Place = Callable[[int], str]  # an offset in words


class _Row(NamedTuple):
    """A row: its fields (Latin-1), or what is wrong with it, and its bytes, with the mark at the start of the file."""

    fields: list[str]
    problem: str
    data: bytes


class _Header(NamedTuple):
    """Names of the columns, what divides them, and how long the row is, bytes."""

    names: list[str]
    delimiter: str
    num_bytes: int


class _Feed:
    """Lines for the parser, which takes one at a time; remembers those of the row at hand."""

    def __init__(self, lines: Iterable[bytes], limits: Limits, place: Place, *, has_mark: bool) -> None:
        self._lines = iter(lines)
        self._may_be_mark = has_mark
        self._place = place
        self._start = 0  # of the row at hand, bytes from the first line
        self._limits = limits
        self._taken: list[bytes] = []
        self._size = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        self._size += len(line)
        if self._size > self._limits.record_bytes + _BLOCK_BYTES:
            raise _too_long(self._limits, self._place(self._start))
        if self._may_be_mark:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._may_be_mark = False
        return line.decode("latin-1")

    def row_bytes(self) -> bytes:
        data = b"".join(self._taken)
        self._start += len(data)
        self._taken, self._size = [], 0
        return data


def _too_long(limits: Limits, shown: object) -> DataError:
    what = f"CSV record is longer than {limits.record_bytes:,} bytes"
    return DataError(what, where=str(shown), remedy="look for a quote that is never closed, or raise data.max_document_bytes")


def _rows(lines: Iterable[bytes], delimiter: str, limits: Limits, place: Place, *, is_start: bool) -> Iterator[_Row]:
    """All rows; after one that the parser refuses it starts again at the next line. At the start of a file its mark is passed over."""
    csv.field_size_limit(max(csv.field_size_limit(), limits.record_bytes + 2 * _BLOCK_BYTES))
    feed = _Feed(lines, limits, place, has_mark=is_start)
    while True:
        try:
            for fields in csv.reader(feed, delimiter=delimiter):
                yield _Row(fields, "", feed.row_bytes())
            return
        except csv.Error as error:
            yield _Row([], str(error), feed.row_bytes())


def _line_end(head: bytes) -> bytes:
    """What ends lines: a carriage return only where a start of that length holds nothing else."""
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"


def _lines_of(stream: ByteStream, stop: int | None, limits: Limits, line_end: bytes) -> Iterator[bytes]:
    """Lines with their ends, up to offset ``stop``."""
    rest: list[bytes] = []
    size = 0
    while data := stream.read(_BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - stream.position)):
        for line in _split_lines(data, line_end):
            rest.append(line)
            size += len(line)
            if size > limits.record_bytes + _BLOCK_BYTES:
                raise _too_long(limits, stream.path)
            if line.endswith(line_end):
                yield rest[0] if len(rest) == 1 else b"".join(rest)
                rest, size = [], 0
    if rest:
        yield b"".join(rest)


def _split_lines(data: bytes, line_end: bytes) -> list[bytes]:
    parts = data.split(line_end)
    lines = [part + line_end for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _read_header(lines: Sequence[bytes], limits: Limits, shown: object) -> _Header:
    """The first row, divided by the first of the usual delimiters that makes it name the text. Raises DataError."""
    names: list[str] = []
    for delimiter in _DELIMITERS:
        row = next(_rows(lines, delimiter, limits, lambda _: str(shown), is_start=True), _Row([], "", b""))
        found = [_decode(name) for name in row.fields]
        if found.count(limits.text_field) > 1:
            what = f"{found.count(limits.text_field)} columns are called {limits.text_field!r}"
            raise DataError(what, where=str(shown), remedy="rename all but the one that holds the text")
        if limits.text_field in found:
            return _Header(found, delimiter, len(row.data))
        names = names or found
    if not names:
        what = "the first row, which names the columns, is blank" if lines else "the file is empty"
        raise DataError(what, where=str(shown), remedy="give a file of rows, the first with the names of their columns")
    shown_names = ", ".join(" ".join(name.split()) for name in names[:8])[:200]
    raise DataError(f"no column {limits.text_field!r} (columns: {shown_names})", where=str(shown), remedy="name it with --text-field")


def _head_lines(lines: Iterable[bytes]) -> list[bytes]:
    """The lines that the header may take: the first, whatever its length, and what follows it closely."""
    taken: list[bytes] = []
    size = 0
    for line in lines:
        taken.append(line)
        size += len(line)
        if size >= _HEAD_BYTES:
            break
    return taken


def _decode(field: str) -> str:
    return field.encode("latin-1").decode(errors="replace")


def _open_quote(row: _Row, delimiter: str) -> int | None:
    """Offset in the row of the quote inside of which the file ends; None when all are closed."""
    if row.problem or b'"' not in row.data:
        return None
    position = 0
    field_end = re.compile(rb"[^\r\n" + re.escape(delimiter.encode()) + rb"]*+")
    while position < len(row.data):
        if row.data[position : position + 1] == b'"':
            quoted = _QUOTED.match(row.data, position)
            if quoted is None:
                return position
            position = quoted.end()
        found = field_end.match(row.data, position)
        position = (found.end() if found else position) + 1
    return None


class DelimitedFormat(LimitedFormat):
    """Records that are rows under a header."""

    name = "csv"
    is_cuttable = False
    head_bytes = _HEAD_BYTES

    def cuts(self, stream: ByteStream, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """See :class:`Format`. A last row that may still be written is left out. Raises DataError without a text column."""
        stream.seek(0)
        head = stream.read(_HEAD_BYTES)
        line_end = _line_end(head)
        stream.unread(head)
        header = _read_header(_head_lines(_lines_of(stream, None, limits, line_end)), limits, stream.path)
        stream.seek(start)
        lines = _lines_of(stream, stop, limits, line_end)
        rows = _rows(lines, header.delimiter, limits, lambda offset: place_in_words(stream.path, start + offset), is_start=start == 0)
        digest, size, count, position = hashlib.sha256(), 0, 0, start
        if start == 0 and (first := next(rows, None)) is not None:
            digest.update(first.data)
            size = len(first.data)
        for row in self._whole(rows, header, line_end):
            if count and size + len(row.data) > limits.stretch_bytes:
                yield Cut(position, position + size, count, size, digest.hexdigest())
                position, digest, size, count = position + size, hashlib.sha256(), 0, 0
            digest.update(row.data)
            size += len(row.data)
            count += 1
        if count:
            yield Cut(position, position + size, count, size, digest.hexdigest())

    def _whole(self, rows: Iterator[_Row], header: _Header, line_end: bytes) -> Iterator[_Row]:
        """All rows but a torn last one: in an open quote, or with too few fields and no line break at its end."""
        last: _Row | None = None
        for row in rows:
            if last is not None:
                yield last
            last = row
        if last is None:
            return
        if _open_quote(last, header.delimiter) is not None:
            is_torn = len(last.data) <= _MAX_TORN_BYTES
        else:
            is_torn = len(last.fields) != len(header.names) and not last.data.endswith(line_end)
        if not is_torn:
            yield last

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """See :class:`Format`."""
        line_end = _line_end((head or data)[:_HEAD_BYTES])
        lines = _split_lines(data, line_end)
        header = _read_header(_head_lines(_split_lines(head, line_end) if head else lines), limits, "the header")
        rows = _rows(lines, header.delimiter, limits, lambda _: "a row", is_start=not head)
        offset = 0
        if not head:
            next(rows, None)
            offset = header.num_bytes
        for number, row in enumerate(rows):
            is_last = offset + len(row.data) == len(data)
            quote = _open_quote(row, header.delimiter) if is_last and len(row.data) <= limits.record_bytes else None
            if quote is None:
                yield _record(row, header.names, first + number, offset, limits)
            else:
                yield _never_closed(first + number, offset + quote, len(row.data) - quote)
            offset += len(row.data)


def _never_closed(position: int, offset: int, num_bytes: int) -> Record:
    detail = f"all that follows, {num_bytes:,} bytes to the end of the file, would be one field"
    return Record(position, offset, reason=NEVER_CLOSED, detail=detail)


def _record(row: _Row, names: list[str], position: int, offset: int, limits: Limits) -> Record:
    if len(row.data) > limits.record_bytes:
        return too_long(position, offset, len(row.data), limits)
    if row.problem:
        return Record(position, offset, reason="invalid csv", detail=row.problem)
    if not row.fields:
        return Record(position, offset, reason="blank line")
    if len(row.fields) != len(names):
        return Record(position, offset, reason="wrong number of fields", detail=f"{len(row.fields)}, the header has {len(names)}")
    try:
        found = [decode(field.encode("latin-1"), replaces=limits.replaces_bad_bytes) for field in row.fields]
    except UnicodeDecodeError as error:
        offset += first_bad_byte(row.data)
        return Record(position, offset, reason=UNDECODABLE, detail=f"not valid utf-8: {error.reason}")
    record = record_of_value(dict(zip(names, (value for value, _ in found), strict=True)), position, offset, limits.text_field)
    if any(bad != NOT_REPLACED for _, bad in found):
        record.replaced_at = offset + first_bad_byte(row.data)
    return record
