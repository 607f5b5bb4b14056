"""A JSON file that is one array of records, read element by element with bounded memory.

Elements are found by walking over strings and brackets, without building the array. A stretch covers whole elements,
so a file that is written again with more elements at its end keeps the stretches it had.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from llm_training.corpus.sources.jsonl import parse_record
from llm_training.corpus.sources.record import Cut, LimitedFormat, Limits, Record
from llm_training.corpus.streams import ByteStream
from llm_training.errors import DataError

_BLOCK_BYTES = 1 << 20
# No parser of JSON here goes deeper; a record within a block that does is refused as it is parsed.
_MAX_DEPTH = 1_000
# What a string holds, up to its quote or to where the buffer ends. Possessive: nothing is ever tried twice, and a long
# string takes no memory to go back in.
_INSIDE = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_REST_OF_STRING = re.compile(_INSIDE, re.DOTALL)
# A whole string, a structural character, or the quote of a string that goes on beyond the buffer.
_TOKEN = re.compile(rb'"' + _INSIDE + rb'"|[\[\]{},]|"', re.DOTALL)
_SPACES = frozenset(b" \t\n\r\x0b\x0c")
_DEPTH_CHANGE = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class _ElementFinder:
    """Walks over a growing buffer and reports where elements of the outermost array begin and end."""

    def __init__(self, is_inside: bool) -> None:
        self.depth = 1 if is_inside else 0
        self._scanned = 0
        self._start: int | None = None
        self._is_in_string = False

    def feed(self, buffer: bytes | bytearray) -> Iterator[tuple[int, int]]:
        """Elements that end in the buffer; scanning goes on where it stopped, also inside of a string."""
        if self._is_in_string:
            self._pass_string(buffer)
        if self._is_in_string:
            return
        for match in _TOKEN.finditer(buffer, self._scanned):
            token = match.group()
            self._scanned = match.end()
            if token == b'"':
                self._pass_string(buffer)
                break
            if token == b"," and self.depth == 1:
                yield from self._finish(buffer, match.start())
                self._start = match.end()
                continue
            change = _DEPTH_CHANGE.get(token, 0)
            if change < 0 and self.depth == 1:
                yield from self._finish(buffer, match.start())
                self._start = None
            self.depth += change
            if change > 0 and self.depth == 1:
                self._start = match.end()

    def _pass_string(self, buffer: bytes | bytearray) -> None:
        """Go to the end of the string, or of the buffer; a backslash there waits for what it escapes."""
        rest = _REST_OF_STRING.match(buffer, self._scanned)
        self._scanned = rest.end() if rest else self._scanned
        self._is_in_string = buffer[self._scanned : self._scanned + 1] != b'"'
        self._scanned += not self._is_in_string

    def _finish(self, buffer: bytes | bytearray, end: int) -> Iterator[tuple[int, int]]:
        if self._start is None:
            return
        start = self._start
        while start < end and buffer[start] in _SPACES:
            start += 1
        while end > start and buffer[end - 1] in _SPACES:
            end -= 1
        if start < end:
            yield start, end

    @property
    def needed_from(self) -> int:
        """Offset in the buffer before which nothing is needed any more."""
        return self._scanned if self._start is None else self._start

    def drop(self, num_bytes: int) -> None:
        """The caller cut this many bytes off the front of the buffer."""
        self._scanned -= num_bytes
        if self._start is not None:
            self._start -= num_bytes


class JsonArrayFormat(LimitedFormat):
    """Records that are elements of one array."""

    name = "json"
    is_cuttable = False
    head_bytes = 0

    def cuts(self, stream: ByteStream, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """See :class:`Format`. Raises DataError for an array that is not closed or an element over the limit."""
        stream.seek(start)
        finder, buffer, base = _ElementFinder(is_inside=start > 0), bytearray(), start
        group: list[tuple[int, int]] = []
        most = max(limits.record_bytes, limits.stretch_bytes)  # a longer stretch is read as one record over the limit
        while data := stream.read(_BLOCK_BYTES):
            buffer += data
            for element in finder.feed(buffer):
                if group and element[1] - group[0][0] > most:
                    yield _cut(base, buffer, group)
                    group = []
                group.append(element)
                if group[-1][1] - group[0][0] >= limits.stretch_bytes:
                    yield _cut(base, buffer, group)
                    group = []
            if finder.depth > _MAX_DEPTH:
                raise DataError(
                    f"JSON is nested deeper than {_MAX_DEPTH:,} levels",
                    where=f"{stream.path}, byte offset {base + len(buffer) - len(data)}",
                    remedy="write the file again, as an array of flat records",
                )
            kept_from = group[0][0] if group else finder.needed_from
            if kept_from > _BLOCK_BYTES and not group:
                del buffer[:kept_from]
                base += kept_from
                finder.drop(kept_from)
            if len(buffer) > limits.record_bytes + limits.stretch_bytes + 2 * _BLOCK_BYTES:
                raise DataError(
                    f"JSON record is longer than {limits.record_bytes:,} bytes",
                    where=f"{stream.path}, byte offset {base}",
                    remedy="raise data.max_document_bytes",
                )
        if group:
            yield _cut(base, buffer, group)
        if finder.depth > 0:
            raise DataError("JSON array is not closed", where=str(stream.path), remedy="write the file again, or as JSON Lines")

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """See :class:`Format`."""
        finder = _ElementFinder(is_inside=False)
        closed = b"[" + data + b"]"
        for number, (start, end) in enumerate(finder.feed(closed)):
            yield parse_record(closed[start:end], first + number, start - 1, limits)


def _cut(base: int, buffer: bytearray, group: list[tuple[int, int]]) -> Cut:
    start, stop = group[0][0], group[-1][1]
    return Cut(base + start, base + stop, len(group), stop - start, hashlib.sha256(memoryview(buffer)[start:stop]).hexdigest())
