from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from llm_training.checkpoint.tensor_file import DTYPES, header_bytes, read_tensors, write_tensors
from llm_training.errors import IntegrityError
from llm_training.storage.durable import write_bytes, write_stream
from llm_training.storage.hashing import FileRecord
from llm_training.storage.reading import hash_file

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def make_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    num_bytes = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (num_bytes,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape) if num_bytes else torch.empty(shape, dtype=dtype)


def write(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
    with write_stream(path) as sink:
        write_tensors(sink, tensors)
    return sink.record


def same_bits(one: Tensor, other: Tensor) -> bool:
    is_alike = one.dtype == other.dtype and one.shape == other.shape
    return is_alike and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "__metadata__"), st.tuples(st.sampled_from(sorted(DTYPES)), shapes), max_size=6
    )
)
def test_the_library_and_we_read_each_other(tmp_path: Path, spec: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    spec = {name.encode("utf-8", "replace").decode(): value for name, value in spec.items()}
    tensors = {name: make_tensor(DTYPES[dtype], shape, seed) for seed, (name, (dtype, shape)) in enumerate(spec.items())}
    record = write(tmp_path / "ours", tensors)
    theirs = safetensors.torch.save(tensors)
    write_bytes(tmp_path / "theirs", theirs)
    by_library = safetensors.torch.load((tmp_path / "ours").read_bytes())
    for loaded in (read_tensors(tmp_path / "ours", record), read_tensors(tmp_path / "theirs", hash_file(tmp_path / "theirs")), by_library):
        assert set(loaded) == set(tensors)
        assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())
    with safetensors.safe_open(tmp_path / "ours", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_data_starts_aligned_and_the_widest_come_first() -> None:
    header = header_bytes({"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(2, dtype=torch.float64), "c": torch.ones(1)})
    assert len(header) % 8 == 0
    offsets = {name: entry["data_offsets"][0] for name, entry in json.loads(header[8:]).items() if name != "__metadata__"}
    assert offsets == {"b": 0, "c": 16, "a": 20}


def test_what_the_format_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"z .*complex64.* cannot be stored"):
        header_bytes({"z": torch.ones(1, dtype=torch.complex64)})
    with pytest.raises(ValueError, match="cannot be stored"):
        header_bytes({"__metadata__": torch.ones(1)})


def file_with_header(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BAD_FILES = {
    "empty": b"",
    "seven bytes": bytes(7),
    "header longer than the file": (2**62).to_bytes(8, "little") + b"{}",
    "header of 200 MB": (200_000_000).to_bytes(8, "little") + b"{}",
    "no object": file_with_header([1]),
    "deep": file_with_header(b'{"a":' * 30_000),
    "unknown dtype": file_with_header({"a": entry(dtype="F128")}),
    "dtype of another kind": file_with_header({"a": entry(dtype=[])}),
    "wrong shape": file_with_header({"a": entry(shape=(3,))}),
    "negative shape": file_with_header({"a": entry(shape=(-1, -2))}),
    "huge shape": file_with_header({"a": entry(shape=(2**40, 2**40))}),
    "float shape": file_with_header({"a": entry(shape=(2.0,))}),
    "boolean shape": file_with_header({"a": entry(shape=(2, True))}),
    "past the end": file_with_header({"a": entry(offsets=(0, 16), shape=(4,))}),
    "hole": file_with_header({"a": entry(offsets=(4, 12))}, bytes(12)),
    "overlap": file_with_header({"a": entry(), "b": entry()}),
    "left over": file_with_header({"a": entry()}, bytes(9)),
    "twice": file_with_header(b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}"),
    "three offsets": file_with_header({"a": entry(offsets=(0, 4, 8))}),
    "no entry": file_with_header({"a": None}),
    "not utf-8": file_with_header(b'{"\xff": 1}'),
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_an_integrity_error_and_allocates_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        read_tensors(tmp_path / "file")
    assert caught.value.exit_code == 4 and caught.value.where == str(tmp_path / "file")


def test_a_truncated_or_changed_file_is_seen(tmp_path: Path) -> None:
    record = write(tmp_path / "file", {"a": torch.ones(100)})
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match="size is"):
        read_tensors(tmp_path / "file", record)
    (tmp_path / "file").write_bytes(content[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match="sha256 is"):
        read_tensors(tmp_path / "file", record)
