"""Arrow IPC, files and streams, read forward message by message and never mapped.

Both forms are a sequence of messages, so one reader serves both, plain or compressed. Each message is looked at before
pyarrow sees it: a batch that claims more memory than allowed, compressed buffers included, is refused, and batches before
the first row wanted are passed over unread.
"""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.sources.columnar import columnar_errors, rows_of_batch, wanted_columns
from llm_training.corpus.sources.kinds import SourceFile
from llm_training.corpus.sources.rows import Row
from llm_training.corpus.streams import ByteStream, stamp_of
from llm_training.errors import DataError

_FILE_MAGIC = b"ARROW1\x00\x00"
_FILE_END = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
_MAX_METADATA_BYTES = 64 << 20
_MIN_BATCH_LIMIT_BYTES = 512 << 20
_SKIP_BYTES = 1 << 20
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


class _Table:
    """A table of FlatBuffers, read with bounds checks; struct.error for anything that points outside."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position
        self._vtable = position - self.number("<i", position)
        self._vtable_bytes = self.number("<H", self._vtable)

    def number(self, layout: str, position: int) -> int:
        if position < 0:
            raise struct.error("negative offset")
        return int(struct.unpack_from(layout, self._data, position)[0])

    def place(self, field: int) -> int:
        """Where a field is; 0 when it is absent."""
        entry = 4 + 2 * field
        offset = self.number("<H", self._vtable + entry) if entry < self._vtable_bytes else 0
        return self.position + offset if offset else 0

    def value(self, field: int, layout: str) -> int:
        place = self.place(field)
        return self.number(layout, place) if place else 0

    def table(self, field: int) -> _Table:
        place = self.place(field)
        return _Table(self._data, place + self.number("<I", place))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of two 64-bit numbers each."""
        place = self.place(field)
        if not place:
            return []
        start = place + self.number("<I", place)
        count = self.number("<I", start)
        if count * 16 > len(self._data):
            raise struct.error("vector is longer than the message")
        return [struct.unpack_from("<qq", self._data, start + 4 + 16 * index) for index in range(count)]  # pyright: ignore[reportReturnType]


class _Message(NamedTuple):
    """The head of a message: its bytes, what it is, rows of a record batch, size of its body, and its compressed buffers."""

    head: bytes
    kind: int
    num_rows: int
    body_bytes: int
    compressed: list[tuple[int, int]]


def _parse(head: bytes, metadata: bytes) -> _Message:
    message = _Table(metadata, int(struct.unpack_from("<I", metadata)[0]))
    kind, body_bytes = message.value(1, "<B"), message.value(3, "<q")
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return _Message(head, kind, 0, body_bytes, [])
    batch = message.table(2) if kind == _RECORD_BATCH else message.table(2).table(1)
    return _Message(head, kind, batch.value(0, "<q"), body_bytes, batch.pairs(2) if batch.place(3) else [])


class _Messages(io.RawIOBase):
    """The messages of a file as a stream for pyarrow, checked, without the record batches before the first row wanted.

    Attributes:
        skipped_rows: rows of the batches left out.
    """

    def __init__(self, stream: ByteStream, start: int, max_batch_bytes: int) -> None:
        self._stream = stream
        self._start = start
        self._max_batch_bytes = max_batch_bytes
        self._waiting: deque[bytes] = deque()
        self._is_passing = True
        self.skipped_rows = 0
        head = stream.read(len(_FILE_MAGIC))
        self._is_file = head == _FILE_MAGIC
        if not self._is_file:
            stream.unread(head)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes for pyarrow, whole parts as they are."""
        while not self._waiting and self._next_message():
            pass
        parts: list[bytes] = []
        missing = size
        while missing > 0 and (self._waiting or self._next_message()):
            if not self._waiting:
                continue
            part = self._waiting.popleft()
            if len(part) > missing:
                self._waiting.appendleft(part[missing:])
                part = part[:missing]
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_message(self) -> bool:
        """Queue one message, or pass over it; False at the end."""
        message = self._read_head()
        if message is None:
            self._check_end()
            return False
        if not 0 <= message.body_bytes <= self._max_batch_bytes:
            raise self._too_large(message.body_bytes)
        end = self.skipped_rows + message.num_rows
        if message.kind == _RECORD_BATCH and self._is_passing and end <= self._start:
            self.skipped_rows = end
            self._pass_over(message.body_bytes)
            return True
        self._is_passing = self._is_passing and message.kind != _RECORD_BATCH
        body = self._exactly(message.body_bytes)
        claimed = sum(_claimed_bytes(body, *place) for place in message.compressed)
        if claimed > self._max_batch_bytes:
            raise self._too_large(claimed)
        self._waiting.extend((message.head, body) if body else (message.head,))
        return True

    def _read_head(self) -> _Message | None:
        prefix = self._stream.read(4)
        head = prefix
        if prefix == _CONTINUATION:
            prefix = self._exactly(4)
            head += prefix
        if len(prefix) < 4:
            if self._is_file or prefix:
                raise self._damaged("the file ends inside of a message")
            return None
        size = int.from_bytes(prefix, "little")
        if size == 0:
            return None
        if size > _MAX_METADATA_BYTES:
            raise self._damaged("not Arrow IPC")
        metadata = self._exactly(size)
        try:
            return _parse(head + metadata, metadata)
        except struct.error as error:
            raise self._damaged(f"malformed message: {error}") from None

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise self._damaged("the file ends inside of a message")
        return data

    def _pass_over(self, size: int) -> None:
        """Seek to the last byte and read it, so that a file that ends before is noticed."""
        if size:
            self._stream.seek(self._stream.position + size - 1)
            self._exactly(1)

    def _check_end(self) -> None:
        """A file ends with a footer and its magic; a stream that was cut between two messages cannot be told from a whole one."""
        if not self._is_file:
            return
        tail = b""
        while data := self._stream.read(_SKIP_BYTES):
            tail = (tail + data)[-len(_FILE_END) :]
        self._is_file = False
        if tail != _FILE_END:
            raise self._damaged("the footer is missing")

    def _damaged(self, what: str) -> DataError:
        return DataError(f"Arrow file is damaged or cut off ({what})", where=str(self._stream.path), remedy="copy or write the file again")

    def _too_large(self, size: int) -> DataError:
        what = f"a record batch of {size:,} bytes is larger than the {self._max_batch_bytes:,} held in memory"
        return DataError(what, where=str(self._stream.path), remedy="write smaller batches, or raise data.max_document_bytes")


def _claimed_bytes(body: bytes, offset: int, length: int) -> int:
    """Size of a compressed buffer after decompression, as its first eight bytes say; -1 there means stored as it is."""
    if length < 8 or offset < 0 or offset + 8 > len(body):
        return max(0, length)
    claimed = int.from_bytes(body[offset : offset + 8], "little", signed=True)
    return length if claimed == -1 else max(0, claimed)


class ArrowRows:
    """The rows of one file; see :class:`llm_training.corpus.sources.rows.RowSource`."""

    def __init__(self, file: SourceFile, settings: CorpusSettings) -> None:
        self.shown = str(file.place)
        self._place = file.place
        self._settings = settings
        self._stream: ByteStream | None = None

    def stamp(self) -> str:
        """See :func:`llm_training.corpus.streams.stamp_of`."""
        return stamp_of(self._place)

    def rows_from(self, start: int) -> Iterator[Row]:
        """Rows from ``start`` on. Raises DataError, StorageError."""
        self.close()
        self._stream = ByteStream(self._place)
        limit = max(_MIN_BATCH_LIMIT_BYTES, 2 * self._settings.max_document_bytes)
        messages = _Messages(self._stream, start, limit)
        with columnar_errors("Arrow", self._place):
            reader: Any = pa.ipc.open_stream(messages)
            columns = wanted_columns(reader.schema, self._settings.text_field, self.shown)
            skip: int | None = None
            for batch in reader:
                skip = start - messages.skipped_rows if skip is None else skip
                yield from rows_of_batch(batch, columns, skip)
                skip = max(0, skip - batch.num_rows)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
