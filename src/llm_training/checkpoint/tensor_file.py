"""Tensors in the safetensors format, streamed both ways.

The format is eight bytes of header length, a JSON header (name, dtype, shape, offsets) and the raw bytes. The library of
that name serialises a whole file in memory and maps files when it reads; here tensors go from their own memory to the disk
and back, hashed on the way, so a read costs one pass and what was hashed is what is used. The tests read our files with
the library and the library's with ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from llm_training.checkpoint.trust import describe_untrusted
from llm_training.errors import IntegrityError
from llm_training.storage.durable import DurableFile
from llm_training.storage.hashing import FileRecord
from llm_training.storage.reading import RegularFile

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA_KEY = "__metadata__"
_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit
_RESTORE = "restore it from a copy"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: bytes ``start`` to ``end`` after the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def raw_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, without a copy."""
    return memoryview(cast("Any", tensor.detach().reshape(-1).view(torch.uint8).numpy()))


def file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names with the widest element first, then by name, as the library orders them: every tensor stays aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def header_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The length and header for these tensors in `file_order`, padded so that the data starts at a multiple of eight.

    Raises ValueError for a dtype that the format lacks.
    """
    header: dict[str, Any] = {_METADATA_KEY: {"format": "pt"}}  # transformers refuses a file that does not say so
    offset = 0
    for name in file_order(tensors):
        tensor = tensors[name]
        if tensor.dtype not in _DTYPE_NAMES or name == _METADATA_KEY:
            raise ValueError(f"{name} ({tensor.dtype}) cannot be stored as safetensors")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_HEADER_LENGTH_BYTES, "little") + text


def write_tensors(sink: DurableFile, tensors: Mapping[str, Tensor]) -> None:
    """Write contiguous CPU tensors of any shape as one safetensors file. Raises StorageError."""
    sink.write(header_bytes(tensors))
    for name in file_order(tensors):
        sink.write(raw_bytes(tensors[name]))


def _parse_entry(name: str, value: Any) -> TensorEntry:
    dtype = DTYPES[value["dtype"]]
    shape = tuple(value["shape"])
    start, end = value["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise ValueError(f"{name} has a shape or offsets that are not counts")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {end - start} bytes for the shape {list(shape)}")
    return TensorEntry(name, dtype, shape, start, end)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name occurs twice")
    return content


def parse_header(text: bytes, num_data_bytes: int) -> list[TensorEntry]:
    """The tensors a header promises, in the order of their bytes, which must fill the file exactly. Raises ValueError."""
    header = json.loads(text.decode("utf-8"), object_pairs_hook=_refuse_duplicates)
    entries = [_parse_entry(name, value) for name, value in header.items() if name != _METADATA_KEY]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    position = 0
    for entry in entries:
        if entry.start != position:
            raise ValueError(f"{entry.name} starts at byte {entry.start}, expected {position}")
        position = entry.end
    if position != num_data_bytes:
        raise ValueError(f"the tensors take {position} bytes, the file has {num_data_bytes}")
    return entries


def _read_header(file: RegularFile) -> list[TensorEntry]:
    head = bytearray(min(file.num_bytes, _HEADER_LENGTH_BYTES + 1))
    file.read_exactly(memoryview(head))
    kind = describe_untrusted(bytes(head), file.num_bytes)
    if kind is not None:
        raise ValueError(f"this is {kind}, refused by its type")
    length = int.from_bytes(head[:_HEADER_LENGTH_BYTES], "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"the header claims {length} bytes")
    rest = bytearray(length - 1)
    file.read_exactly(memoryview(rest))
    return parse_header(bytes(head[_HEADER_LENGTH_BYTES:] + rest), file.num_bytes - _HEADER_LENGTH_BYTES - length)


def iterate_tensors(path: Path, expected: FileRecord | None = None) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file, one at a time, on the CPU.

    With ``expected`` the content is hashed on the way, and the end of the iteration is reached only when size and hash are
    right: nothing may be used before. Raises IntegrityError (also for anything that is not safetensors), StorageError.
    """
    with RegularFile(path) as file:
        if expected is not None and file.num_bytes != expected.num_bytes:
            raise IntegrityError(
                f"size is {file.num_bytes} bytes, the manifest says {expected.num_bytes}", where=str(path), remedy=_RESTORE
            )
        try:
            entries = _read_header(file)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"not a usable safetensors file ({error})", where=str(path), remedy=_RESTORE) from error
        for entry in entries:
            tensor = torch.empty(entry.shape, dtype=entry.dtype)
            file.read_exactly(raw_bytes(tensor))
            yield entry.name, tensor
        actual = file.record
    if expected is not None and actual != expected:
        raise IntegrityError(
            f"{expected.algorithm} is {actual.digest}, the manifest says {expected.digest}", where=str(path), remedy=_RESTORE
        )


def read_tensors(path: Path, expected: FileRecord | None = None) -> dict[str, Tensor]:
    """All tensors of a safetensors file, verified; see `iterate_tensors`."""
    return dict(iterate_tensors(path, expected))
