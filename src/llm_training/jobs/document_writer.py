"""Documents to the files of a prepared folder, in batches for the encoder: JSON Lines or Parquet, token ids, statistics."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from llm_training.cleaning.duplicates import NONE, exact_duplicates
from llm_training.cleaning.shingles import content_key
from llm_training.cleaning.words import UInt64Array
from llm_training.corpus import TRAIN, VALIDATION, Document
from llm_training.corpus.sources.columnar import JSON_COLUMN_KEY
from llm_training.corpus.sources.prepared import documents_name
from llm_training.jobs.clean_slices import SPLIT_ORDER
from llm_training.jobs.prepared_folder import PreparedFolder
from llm_training.jobs.text_statistics import SplitStatistics, cut_to_length
from llm_training.tokenizer import Tokenizer

FORMATS: Final = ("jsonl", "parquet")
_BATCH_CHARACTERS: Final = 1 << 21
_SHARD_BYTES: Final = 512 << 20


class DocumentWriter:
    """Writes documents and counts them by split."""

    def __init__(
        self,
        folder: PreparedFolder,
        tokenizer: Tokenizer,
        max_length: int | None,
        *,
        with_ids: bool,
        with_lengths: bool,
        format: str = "jsonl",
    ) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._with_ids = with_ids
        self._encodes = with_ids or with_lengths
        self._keys = _ContentKeys()
        self._shards: dict[str, _Shards] | None = {} if format == "parquet" else None
        self.statistics: dict[str, SplitStatistics] = {split: SplitStatistics(with_lengths=with_lengths) for split in (TRAIN, VALIDATION)}

    def write(self, documents: Iterator[Document]) -> None:
        """Write documents in order."""
        batch: list[Document] = []
        size = 0
        for document in documents:
            batch.append(document)
            self._keys.add(document)
            size += len(document.text)
            if size >= _BATCH_CHARACTERS:
                self._write_batch(batch)
                batch, size = [], 0
        self._write_batch(batch)

    def count_leaks(self) -> int:
        """Documents of a split that stand, but for white space, in one that is more held out."""
        return self._keys.count_leaks()

    def close(self) -> list[str]:
        """Finish the shards; returns the names of all files of documents."""
        if self._shards is None:
            return [documents_name(split) for split in self.statistics]
        return [name for split in self.statistics if split in self._shards for name in self._shards[split].close()]

    def _write_batch(self, documents: Sequence[Document]) -> None:
        entries = [entry for document in documents for entry in self._entries(document)]
        counts: Sequence[int | None] = [None] * len(entries)
        if self._encodes and entries:
            ids, offsets = self._tokenizer.encode_documents([text for _, _, text in entries])
            counts = (offsets[1:] - offsets[:-1]).tolist()
            if self._with_ids:
                for (document, _, _), start, stop in zip(entries, offsets[:-1], offsets[1:], strict=True):
                    self._folder.write_ids(document.split, ids[start:stop], self._tokenizer.separator_id)
        for (document, name, text), count in zip(entries, counts, strict=True):
            statistics = self.statistics.setdefault(document.split, SplitStatistics(with_lengths=bool(self._encodes)))
            statistics.add(text, count)
            self._write_document(document.split, name, text, document.metadata)

    def _write_document(self, split: str, name: str, text: str, metadata: Mapping[str, object]) -> None:
        if self._shards is None:
            self._folder.write_document(split, {**metadata, "id": name, "text": text})
            return
        if split not in self._shards:
            self._shards[split] = _Shards(self._folder, split)
        self._shards[split].add(name, text, metadata)

    def _entries(self, document: Document) -> list[tuple[Document, str, str]]:
        pieces = [document.text] if self._max_length is None else cut_to_length(document.text, self._max_length, self._tokenizer.encode)
        if len(pieces) == 1:
            return [(document, document.id, document.text)]
        return [(document, f"{document.id}#{number}", piece) for number, piece in enumerate(pieces)]


class _Shards:
    """One split as Parquet files: id, text, and the other fields as JSON, since each document may have its own."""

    def __init__(self, folder: PreparedFolder, split: str) -> None:
        self._folder = folder
        self._split = split
        self._rows: list[tuple[str, str, str]] = []
        self._characters = self._shard_characters = 0
        self._writer: Any = None
        self._names: list[str] = []

    def add(self, name: str, text: str, metadata: Mapping[str, object]) -> None:
        """Append a document."""
        self._rows.append((name, text, orjson.dumps(metadata).decode()))
        self._characters += len(text)
        if self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def close(self) -> list[str]:
        """Write what is left; returns the names of the shards."""
        self._flush()
        self._end_shard()
        return self._names

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        if not self._rows:
            return
        columns = dict(zip(("id", "text", "metadata"), map(list, zip(*self._rows, strict=True)), strict=True))
        table = pa.table(columns).replace_schema_metadata({JSON_COLUMN_KEY: "metadata"})
        if self._writer is None:
            name, sink = self._folder.open_shard(self._split, len(self._names))
            self._names.append(name)
            self._writer = parquet.ParquetWriter(pa.PythonFile(sink, mode="w"), table.schema, compression="zstd")
        self._writer.write_table(table)
        self._shard_characters += self._characters
        self._rows, self._characters = [], 0
        if self._shard_characters >= _SHARD_BYTES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._shard_characters = None, 0


class _ContentKeys:
    """Content keys of everything written, 17 bytes a document, in the form that finding duplicates reads."""

    def __init__(self) -> None:
        self._halves = (array("Q"), array("Q"))
        self._splits = bytearray()

    @property
    def num_documents(self) -> int:
        """Documents so far."""
        return len(self._splits)

    def add(self, document: Document) -> None:
        """Take in a document."""
        for half, value in zip(self._halves, content_key(document.text), strict=True):
            half.append(value)
        self._splits.append(SPLIT_ORDER.index(document.split))

    def pieces(self, row: int) -> Generator[UInt64Array]:
        """See `KeyRows`."""
        yield np.frombuffer(self._halves[row], dtype=np.uint64)

    def count_leaks(self) -> int:
        """Documents whose first occurrence is in another split."""
        if not self._splits:
            return 0
        splits = np.frombuffer(bytes(self._splits), dtype=np.uint8)
        original = exact_duplicates(self, splits)
        repeats = np.flatnonzero(original != NONE)
        return int((splits[repeats] != splits[original[repeats]]).sum())
