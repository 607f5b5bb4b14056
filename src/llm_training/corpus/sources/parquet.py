"""Parquet files, read column by column and row group by row group with bounded memory.

Memory is bounded by the pages of the file (1 MB where the writer was not told otherwise) and by a few megabytes of rows.
Only the text and columns of short values are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.sources.columnar import columnar_errors, rows_of_batch, unpacked, wanted_columns
from llm_training.corpus.sources.kinds import SourceFile
from llm_training.corpus.sources.rows import Row
from llm_training.corpus.streams import compression_of, open_raw, stamp_of
from llm_training.errors import DataError

_BUFFER_BYTES = 1 << 20
_BATCH_BYTES = 4 << 20
# Few, because a dictionary of the file may hold one long text for all of them (up to 1 MB as files are usually written).
_MAX_BATCH_ROWS = 128
# A row group up to this size is read whatever it claims.
_HARMLESS_BYTES = 128 << 20


class ParquetRows:
    """The rows of one file; see :class:`llm_training.corpus.sources.rows.RowSource`."""

    def __init__(self, file: SourceFile, settings: CorpusSettings) -> None:
        self.shown = str(file.place)
        self._place = file.place
        self._settings = settings
        self._raw: Any = None
        if compression_of(file.path):
            raise DataError("a compressed Parquet file cannot be read in parts", where=self.shown, remedy="decompress it")

    def stamp(self) -> str:
        """See :func:`llm_training.corpus.streams.stamp_of`."""
        return stamp_of(self._place)

    def rows_from(self, start: int) -> Iterator[Row]:
        """Rows from ``start`` on. Raises DataError, StorageError."""
        with columnar_errors("Parquet", self._place):
            file = self._open()
            columns = wanted_columns(file.schema_arrow, self._settings.text_field, self.shown)
            skip = start
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                if skip >= group.num_rows:
                    skip -= group.num_rows
                    continue
                for batch in file.iter_batches(self._batch_rows(group), [number], columns, use_threads=False):
                    if skip < batch.num_rows:
                        yield from unpacked(rows_of_batch(batch, columns, skip), file.schema_arrow)
                    skip = max(0, skip - batch.num_rows)

    def _open(self) -> Any:
        import pyarrow.parquet

        self.close()
        self._raw = open_raw(self._place, needs_seeking=True)
        return pyarrow.parquet.ParquetFile(self._raw, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def _batch_rows(self, group: Any) -> int:
        """Rows that make a few megabytes. A group whose rows claim more than a document may have is refused unread."""
        name = self._settings.text_field
        columns = (group.column(index) for index in range(group.num_columns))
        size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == name)
        rows = max(1, group.num_rows)
        if size < 0 or (size > _HARMLESS_BYTES and size // rows > self._settings.max_document_bytes):
            raise DataError(
                f"a row group of {group.num_rows:,} rows claims {size:,} bytes of text",
                where=self.shown,
                remedy="raise data.max_document_bytes if that is true",
            )
        return max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * rows // max(1, size)))

    def close(self) -> None:
        """Close the file."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None
