"""Arrow IPC files in and out of memory, with the decoded size known before anything is decoded.

A compressed Arrow buffer states its decoded length in its first 8 bytes, and Arrow allocates what it states: 64 MB of
zeros fit in 276 kB of LZ4, and a forged header can claim 2^63 bytes. So a file is first walked message by message, the
lengths are read from the messages themselves (a few fields of flatbuffers, read here by hand) and compared with what
the metadata promised, and only then the very same messages are decoded.

Files are read whole into memory and never mapped: a mapped file that someone cuts short ends the process with SIGBUS.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from llm_training.errors import ConfigError, IntegrityError
from llm_training.storage.hashing import record_of

# Name to (codec, level). Zstandard's level 3 costs 10 ms more for a million GPT-2 tokens than its level 1 and saves 7 %; higher levels
# save 2 to 4 % more for two to four times the time.
COMPRESSIONS: dict[str, tuple[str, int | None] | None] = {"lz4": ("lz4", None), "zstd": ("zstd", 3), "none": None}
REPAIR_ALL = "llm-build-cache SOURCE --mode inverse rebuilds chunks and row plans of its settings, --force-rebuild lost metadata"
REPAIR = "rebuild the damaged part: llm-build-cache SOURCE --mode inverse, with the tokenizer and row length of the run"

_MAGIC = b"ARROW1\0\0"
_RECORD_BATCH_HEADER = 3
# Field numbers in the flatbuffers tables of Arrow's Message.fbs.
_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 1, 2
_BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 3


def check_compression(name: str) -> None:
    """Raise ConfigError, naming the known ones, when there is no such compression."""
    if name not in COMPRESSIONS:
        raise ConfigError(f"unknown compression {name!r}", remedy=f"choose one of {', '.join(COMPRESSIONS)}")


def write_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], compression: str) -> pa.Buffer:
    """An Arrow IPC file in memory; the same batches always give the same bytes (of one pyarrow version)."""
    sink = pa.BufferOutputStream()
    codec = COMPRESSIONS[compression]
    options = pa.ipc.IpcWriteOptions(
        compression=None if codec is None else pa.Codec(codec[0], compression_level=codec[1]), use_threads=False
    )
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def check_bytes(data: bytes, num_bytes: int, sha256: str, where: str) -> None:
    """Raise IntegrityError unless ``data`` has the size and the hash that the metadata states."""
    if len(data) != num_bytes:
        raise IntegrityError(f"file has {len(data)} bytes, its metadata says {num_bytes}", where=where, remedy=REPAIR)
    actual = record_of(data).digest
    if actual != sha256:
        raise IntegrityError(f"content hash is {actual[:16]}, expected {sha256[:16]}", where=where, remedy=REPAIR)


def read_arrow(data: bytes, schema: pa.Schema, decoded_bytes: int, where: str, columns: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Decode the record batches of an Arrow IPC file one after another.

    Args:
        data: the file.
        schema: what its schema must equal, metadata included.
        decoded_bytes: what its metadata says all buffers together decode to.
        where: named in errors.
        columns: decode these only; all when empty.

    Raises:
        IntegrityError: another schema, another decoded size, or not an Arrow file at all. Raised before decoding.
    """
    declared = declared_bytes(data, where)
    if declared != decoded_bytes:
        raise IntegrityError(f"file claims {declared} decoded bytes, its metadata says {decoded_bytes}", where=where, remedy=REPAIR)
    wanted = [index for index, name in enumerate(schema.names) if name in columns] if columns else None
    options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
    try:
        # The body of an IPC file is an IPC stream: reading it as one decodes exactly the messages that were measured.
        with pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(data).slice(len(_MAGIC)))) as plain:
            if not plain.schema.equals(schema, check_metadata=True):
                raise IntegrityError("schema differs from the one its metadata implies", where=where, remedy=REPAIR)
        with pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(data).slice(len(_MAGIC))), options=options) as reader:
            for batch in reader:
                batch.validate()
                yield batch
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"not a readable Arrow file ({error})", where=where, remedy=REPAIR) from error


def declared_bytes(data: bytes | pa.Buffer, where: str = "") -> int:
    """Bytes that all buffers of the file's record batches decode to, as the file itself claims.

    Raises:
        IntegrityError: not an Arrow IPC file, a message of an unexpected type, or a buffer outside its message.
    """
    buffer = pa.py_buffer(data)
    if buffer.size < len(_MAGIC) or buffer.slice(0, len(_MAGIC)).to_pybytes() != _MAGIC:
        raise IntegrityError("not an Arrow IPC file", where=where, remedy=REPAIR)
    total = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(buffer.slice(len(_MAGIC)))):
            if message.type == "record batch":
                total += _batch_bytes(memoryview(message.metadata), memoryview(message.body))
            elif message.type != "schema":
                raise IntegrityError(f"unexpected {message.type} message", where=where, remedy=REPAIR)
    except (pa.ArrowException, OSError, struct.error, ValueError) as error:
        raise IntegrityError(f"not a readable Arrow file ({error})", where=where, remedy=REPAIR) from error
    return total


def _batch_bytes(metadata: memoryview, body: memoryview) -> int:
    message = _unsigned(metadata, 0)
    header_type = _field(metadata, message, _MESSAGE_HEADER_TYPE)
    if not header_type or metadata[header_type] != _RECORD_BATCH_HEADER:
        raise ValueError("message header is not a record batch")
    header = _table(metadata, _field(metadata, message, _MESSAGE_HEADER))
    is_compressed = bool(_field(metadata, header, _BATCH_COMPRESSION))
    buffers = _table(metadata, _field(metadata, header, _BATCH_BUFFERS))
    total = 0
    for index in range(_unsigned(metadata, buffers)):
        offset, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * index)
        if offset < 0 or length < 0 or offset + length > len(body):
            raise ValueError("a buffer lies outside its message")
        total += _decoded_length(body, offset, length) if is_compressed and length else length
    return total


def _decoded_length(body: memoryview, offset: int, length: int) -> int:
    """The length a compressed buffer states; -1 marks one stored as it is because compression did not pay."""
    (stated,) = struct.unpack_from("<q", body, offset)
    if stated < -1:
        raise ValueError("a buffer states a negative length")
    return length - 8 if stated == -1 else stated


def _unsigned(data: memoryview, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]


def _table(data: memoryview, at: int) -> int:
    """Follow the relative offset stored at ``at``."""
    if not at:
        raise ValueError("a required field is missing")
    return at + _unsigned(data, at)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where field ``number`` of a flatbuffers table is stored; 0 when it is left out."""
    if not 0 <= table < len(data):
        raise ValueError("a table lies outside its message")
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError("a table lies outside its message")
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    relative = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + relative if relative else 0
