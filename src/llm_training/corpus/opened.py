"""A source file that is open: one face for byte formats and for rows, and a small cache of open ones.

Readers that go through a plan in order find the file where the last slice left it, so compressed files are read once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.sources.arrow import ArrowRows
from llm_training.corpus.sources.connector import ConnectorRows
from llm_training.corpus.sources.hub import HubRows
from llm_training.corpus.sources.kinds import ARROW_KIND, CONNECTOR_KIND, FORMATS, HUB_KIND, PARQUET_KIND, SourceFile
from llm_training.corpus.sources.parquet import ParquetRows
from llm_training.corpus.sources.record import START_BYTES, Cut, Limits, Record
from llm_training.corpus.sources.rows import RowFile, RowSource
from llm_training.corpus.sources.text import TextFormat, line_boundary
from llm_training.corpus.split import SINGLE_DOCUMENT_TRAIN_FRACTION
from llm_training.corpus.streams import ByteStream, lines_after, place_in_words, stamp_of

_BOUNDARY_BYTES = 1 << 16
_MAX_OPEN_FILES = 4

ROWS: dict[str, Callable[[SourceFile, CorpusSettings], RowSource]] = {
    HUB_KIND: HubRows,
    PARQUET_KIND: ParquetRows,
    ARROW_KIND: ArrowRows,
    CONNECTOR_KIND: ConnectorRows,
}


class OpenFile(Protocol):
    """Records of one file, addressed by offsets."""

    def stamp(self) -> str:
        """A cheap mark that changes when the file is written."""
        ...

    def cuts(self, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """Divide ``[start, stop)`` into stretches."""
        ...

    def read(self, cut: Cut, first: int, limits: Limits) -> tuple[list[Record], str]:
        """The records of a stretch and the hash of its content as it is now."""
        ...

    def locate(self, offset: int) -> str:
        """An offset in words: path, line, byte."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class ByteFile:
    """A file in one of the byte formats."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.format = FORMATS[file.kind]
        self._stream = ByteStream(file.place)

    def stamp(self) -> str:
        """See :class:`OpenFile`."""
        return stamp_of(self.file.place)

    def cuts(self, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """See :class:`OpenFile`."""
        return self.format.cuts(self._stream, start, stop, limits)

    def read(self, cut: Cut, first: int, limits: Limits) -> tuple[list[Record], str]:
        """See :class:`OpenFile`."""
        size = cut.stop - cut.start
        if size > max(limits.record_bytes, limits.stretch_bytes):
            self._stream.seek(cut.start)
            return [self.format.oversized(self._stream.read(START_BYTES), first, size, limits)], cut.sha256
        head = b""
        if cut.start and self.format.head_bytes:
            head = self._head(self.format.head_bytes)
        self._stream.seek(cut.start)
        data = self._stream.read(size)
        records = list(self.format.records(data, first, head or b"\n" * bool(cut.start), limits))
        return records, hashlib.sha256(data).hexdigest()

    def _head(self, size: int) -> bytes:
        stream = ByteStream(self.file.place)
        try:
            return stream.read(size)
        finally:
            stream.close()

    def tail_start(self) -> int:
        """Offset at which the last tenth begins: at a line break when one is near, else where the format can be divided."""
        aim = int(self._stream.size() * SINGLE_DOCUMENT_TRAIN_FRACTION)
        low = max(0, aim - _BOUNDARY_BYTES)
        self._stream.seek(low)
        data = self._stream.read(aim - low)
        return low + (self.format.tail_boundary(data) if isinstance(self.format, TextFormat) else line_boundary(data))

    def line_from(self, offset: int) -> int | None:
        """Where the line after ``offset`` begins, when the last line read ends there; None when that line goes on.

        A last line may be read without its line break, which a writer then adds before it goes on.
        """
        self._stream.seek(offset)
        last, following = self._stream.byte_before(), self._stream.read(2)
        self._stream.unread(following)  # a compressed file could not go back
        if last == b"\n" or not following:
            return offset
        if following == b"\r\n":
            return offset + 2
        if following.startswith(b"\n") or (following.startswith(b"\r") and last != b"\r"):
            return offset + 1
        return offset if last == b"\r" else None

    @property
    def position(self) -> int:
        """Offset up to which the file was read."""
        return self._stream.position

    def lines_after(self, offset: int) -> tuple[int, int]:
        """Number of the line at an offset, and how many there are from it to the end. Reads the file."""
        return lines_after(self.file.place, offset)

    def locate(self, offset: int) -> str:
        """See :class:`OpenFile`. Reads the file up to the offset to count its lines: only errors need it."""
        return place_in_words(self.file.place, offset)

    def close(self) -> None:
        """See :class:`OpenFile`."""
        self._stream.close()


def open_file(file: SourceFile, settings: CorpusSettings) -> OpenFile:
    """Open a source file. Raises DataError, StorageError, ConfigError."""
    rows = ROWS.get(file.kind)
    return RowFile(rows(file, settings)) if rows else ByteFile(file)


class OpenFiles:
    """The files used last, still open."""

    def __init__(self, settings: CorpusSettings) -> None:
        self._settings = settings
        self._open: OrderedDict[str, OpenFile] = OrderedDict()

    def get(self, file: SourceFile) -> OpenFile:
        """The open file; the one unused longest is closed when there are too many."""
        found = self._open.pop(file.key, None) or open_file(file, self._settings)
        self._open[file.key] = found
        if len(self._open) > _MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return found

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()
