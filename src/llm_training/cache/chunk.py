"""One chunk of the token store: a slice's documents as an Arrow IPC file, one Arrow row per document.

A document of more than `PART_BYTES` of tokens takes several rows, numbered by ``part``; only the last of them ends with
the separator. A record batch holds at most as much, so that decoding needs little memory beside the result: LZ4 finds
repetitions in 16-bit tokens distinctly better in blocks below 64 KiB (1.63 bytes a GPT-2 token instead of 1.75), where
it keeps two-byte positions. Zstandard finds more in 256 KiB, the largest block it has its own tuning for (1.28 bytes
instead of 1.36), and decodes it faster.

The bytes of the file are a pure function of the documents' tokens and the header, which names what the chunk is: its
number, split and tokenizer, so that a chunk in another's place is refused even where its hash would be believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from llm_training.cache.arrow_file import REPAIR, check_bytes, declared_bytes, read_arrow, write_arrow
from llm_training.cache.encoding import TokenTable, token_type
from llm_training.errors import IntegrityError
from llm_training.storage.hashing import record_of

FORMAT_VERSION = 1
PART_BYTES = 1 << 16
ZSTD_BATCH_PARTS = 4
_BATCH_ROWS = 1 << 12


@dataclass(frozen=True)
class ChunkHeader:
    """What a chunk is, stored in its schema."""

    number: int
    split: str
    tokenizer: str
    vocab_size: int
    separator_id: int

    def schema(self) -> pa.Schema:
        """The Arrow schema, header included as metadata."""
        fields = [
            pa.field("id", pa.utf8(), nullable=False),
            pa.field("source", pa.utf8(), nullable=False),
            pa.field("position", pa.int64(), nullable=False),
            pa.field("part", pa.int32(), nullable=False),
            pa.field("text_bytes", pa.int64(), nullable=False),
            pa.field("num_tokens", pa.int32(), nullable=False),
            pa.field("tokens", pa.list_(pa.field("item", self.arrow_token_type(), nullable=False)), nullable=False),
        ]
        header = {"format": "llm-training token chunk", "version": FORMAT_VERSION, **asdict(self)}
        return pa.schema(fields, metadata={key: str(value) for key, value in header.items()})

    def arrow_token_type(self) -> pa.DataType:
        """The smallest unsigned type that holds the vocabulary."""
        return pa.from_numpy_dtype(token_type(self.vocab_size))


_TEXT_FIELDS = frozenset({"sha256", "content"})


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """What the metadata states about a chunk.

    Attributes:
        number: of the chunk.
        num_bytes, sha256: of the file.
        content: xxh3-128 of document lengths and tokens: equal for equal tokens, whatever the compression or pyarrow version.
        decoded_bytes: of all Arrow buffers after decompression.
        num_documents, num_rows, num_tokens, text_bytes: totals; tokens count separators, text bytes do not.
    """

    number: int
    num_bytes: int
    sha256: str
    content: str
    decoded_bytes: int
    num_documents: int
    num_rows: int
    num_tokens: int
    text_bytes: int

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> ChunkRecord:
        """The record of a JSON object. Raises TypeError or ValueError for missing, unknown or mistyped fields."""
        for name, value in content.items():  # written so because a cache may have a million
            if type(value) is int:
                if value >= 0 and name not in _TEXT_FIELDS:
                    continue
            elif type(value) is str and name in _TEXT_FIELDS:
                continue
            raise ValueError(f"{name} is {value!r}")
        return ChunkRecord(**content)


@dataclass(frozen=True, eq=False)
class ChunkTokens:
    """A decoded chunk: ``tokens`` ``[N]`` and ``document_offsets`` ``[D + 1]`` into it."""

    tokens: NDArray[np.unsignedinteger]
    document_offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Provenance:
    """Where a document of a chunk came from."""

    id: str
    source: str
    position: int


def content_digest(lengths: NDArray[np.int64], tokens: NDArray[np.unsignedinteger]) -> str:
    """xxh3-128, hexadecimal, of the token type, the lengths as int64 and the tokens, little-endian."""
    hasher = xxhash.xxh3_128(tokens.dtype.name.encode())
    hasher.update(np.ascontiguousarray(lengths, dtype="<i8").data)
    hasher.update(np.ascontiguousarray(tokens, dtype=tokens.dtype.newbyteorder("<")).data)
    return hasher.hexdigest()


def write_chunk(table: TokenTable, header: ChunkHeader, compression: str) -> tuple[pa.Buffer, ChunkRecord]:
    """The file of a chunk and its record."""
    part_tokens = PART_BYTES // table.tokens.itemsize
    num_parts = np.maximum(1, -(-table.lengths // part_tokens))
    batch_tokens = part_tokens * (ZSTD_BATCH_PARTS if compression == "zstd" else 1)
    batches = _batches(table, header.schema(), num_parts, part_tokens, batch_tokens)
    data = write_arrow(header.schema(), batches, compression)
    record = ChunkRecord(
        number=header.number,
        num_bytes=data.size,
        sha256=record_of(data).digest,
        content=content_digest(table.lengths, table.tokens),
        decoded_bytes=declared_bytes(data),
        num_documents=len(table.lengths),
        num_rows=int(num_parts.sum()),
        num_tokens=len(table.tokens),
        text_bytes=int(table.text_bytes.sum()),
    )
    return data, record


def _batches(
    table: TokenTable, schema: pa.Schema, num_parts: NDArray[np.int64], part_tokens: int, batch_tokens: int
) -> Iterator[pa.RecordBatch]:
    documents = np.repeat(np.arange(len(table.lengths)), num_parts)
    parts = np.arange(len(documents)) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    lengths = np.minimum(table.lengths[documents] - parts * part_tokens, part_tokens)
    # A document's text is counted once, at its first part, so that the column sums to the text of the chunk.
    text_bytes = np.where(parts == 0, table.text_bytes[documents], 0)
    ends = np.cumsum(lengths)
    start = 0
    while start < len(documents):
        before = int(ends[start] - lengths[start])
        stop = min(int(np.searchsorted(ends, before + batch_tokens, side="right")), start + _BATCH_ROWS)
        part = slice(start, stop)
        offsets = np.concatenate([np.zeros(1, dtype=np.int32), (ends[part] - before).astype(np.int32)])
        columns = [
            pa.array([table.ids[document] for document in documents[part]], pa.utf8()),
            pa.array([table.sources[document] for document in documents[part]], pa.utf8()),
            pa.array(table.positions[documents[part]]),
            pa.array(parts[part].astype(np.int32)),
            pa.array(text_bytes[part]),
            pa.array(lengths[part].astype(np.int32)),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(table.tokens[before : ends[stop - 1]]), type=schema.field("tokens").type),
        ]
        yield pa.record_batch(columns, schema=schema)
        start = stop


def read_chunk(data: bytes, record: ChunkRecord, header: ChunkHeader, where: str) -> ChunkTokens:
    """Check and decode a chunk.

    Memory is taken only after size, hash and decoded size agree with the record.

    Raises:
        IntegrityError: the file is not what the record and the header say, or holds an id outside the vocabulary.
    """
    check_bytes(data, record.num_bytes, record.sha256, where)
    width = token_type(header.vocab_size).itemsize
    if record.num_tokens * width > record.decoded_bytes:
        raise IntegrityError(f"{record.num_tokens} tokens cannot be in {record.decoded_bytes} bytes", where=where, remedy=REPAIR)
    tokens = np.empty(record.num_tokens, dtype=token_type(header.vocab_size))
    lengths: list[NDArray[np.int64]] = []
    parts: list[NDArray[np.int32]] = []
    filled = 0
    for batch in read_arrow(data, header.schema(), record.decoded_bytes, where, ("part", "num_tokens", "tokens")):
        batch_lengths, values = _batch_tokens(batch, where)
        if filled + len(values) > len(tokens):
            raise IntegrityError(f"file holds more than the {len(tokens)} tokens of its metadata", where=where, remedy=REPAIR)
        tokens[filled : filled + len(values)] = values
        filled += len(values)
        lengths.append(batch_lengths)
        parts.append(batch.column("part").to_numpy())
    chunk = ChunkTokens(tokens[:filled], _document_offsets(lengths, parts))
    _check_totals(record, header, chunk, sum(map(len, lengths)), where)
    return chunk


def _batch_tokens(batch: pa.RecordBatch, where: str) -> tuple[NDArray[np.int64], NDArray[np.unsignedinteger]]:
    column = batch.column("tokens")
    offsets, values = column.offsets.to_numpy().astype(np.int64), column.values.to_numpy()
    lengths = batch.column("num_tokens").to_numpy().astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(values) or not np.array_equal(np.diff(offsets), lengths):
        raise IntegrityError("token counts and token lists disagree", where=where, remedy=REPAIR)
    return lengths, values


def _document_offsets(lengths: list[NDArray[np.int64]], parts: list[NDArray[np.int32]]) -> NDArray[np.int64]:
    """Offsets of documents, from lengths of rows: the parts of one document follow each other, the first numbered 0."""
    ends = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *lengths]))
    firsts = np.flatnonzero(np.concatenate([np.zeros(0, dtype=np.int32), *parts]) == 0)
    return np.append(ends[firsts], ends[-1])


def _check_totals(record: ChunkRecord, header: ChunkHeader, chunk: ChunkTokens, num_rows: int, where: str) -> None:
    found = {"num_tokens": len(chunk.tokens), "num_rows": num_rows, "num_documents": len(chunk.document_offsets) - 1}
    for name, value in found.items():
        if value != getattr(record, name):
            raise IntegrityError(f"{name} is {value}, its metadata says {getattr(record, name)}", where=where, remedy=REPAIR)
    if len(chunk.tokens) and int(chunk.tokens.max()) >= header.vocab_size:
        what = f"token id {int(chunk.tokens.max())} is outside the vocabulary of {header.vocab_size}"
        raise IntegrityError(what, where=where, remedy="build the cache again with the tokenizer that will be used")
    if content_digest(np.diff(chunk.document_offsets), chunk.tokens) != record.content:
        raise IntegrityError("decoded tokens differ from the digest in the metadata", where=where, remedy=REPAIR)


def read_provenance(data: bytes, record: ChunkRecord, header: ChunkHeader, where: str) -> list[Provenance]:
    """Name, source and position of each document of a chunk. Raises IntegrityError as `read_chunk`."""
    check_bytes(data, record.num_bytes, record.sha256, where)
    found: list[Provenance] = []
    for batch in read_arrow(data, header.schema(), record.decoded_bytes, where, ("id", "source", "position", "part")):
        columns = (batch.column(name).to_pylist() for name in ("id", "source", "position", "part"))
        found.extend(Provenance(id, source, position) for id, source, position, part in zip(*columns, strict=True) if part == 0)
    return found
