from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.append import JsonlAppender, encode_record, read_jsonl
from llm_training.storage.filesystem import FileSystem, installed

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists, max_leaves=8
)


def write(path: Path, *records: dict[str, Any]) -> None:
    with JsonlAppender(path) as log:
        for record in records:
            log.append(record)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_a_record_is_one_line_of_ascii_that_reads_back(record: dict[str, Any]) -> None:
    line = encode_record(record)
    assert line.isascii() and line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line) == record


def test_non_finite_numbers_are_legal_json(tmp_path: Path) -> None:
    write(tmp_path / "log", {"loss": math.nan, "deep": [{"x": (math.inf, -math.inf, 1.5)}]})
    (record,) = read_jsonl(tmp_path / "log")
    assert record == {"loss": "NaN", "deep": [{"x": ["Infinity", "-Infinity", 1.5]}]}
    assert math.isnan(float(record["loss"]))


def test_a_missing_log_is_empty_and_its_directory_is_made(tmp_path: Path) -> None:
    assert list(read_jsonl(tmp_path / "a" / "log")) == []
    write(tmp_path / "a" / "log", {"x": 1})
    assert list(read_jsonl(tmp_path / "a" / "log")) == [{"x": 1}]


def test_torn_at_every_byte_it_loses_one_record_at_most(tmp_path: Path) -> None:
    path = tmp_path / "log"
    records = [{"step": 1, "text": "é"}, {"step": 2, "text": "日本 \\u00e9"}]
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]  # a foreign writer's UTF-8
    content = b"\n".join(lines) + b"\n"
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = [record for index, record in enumerate(records) if cut >= sum(len(line) + 1 for line in lines[: index + 1]) - 1]
        assert list(read_jsonl(path)) == whole
        write(path, {"step": 3})
        assert list(read_jsonl(path)) == [*whole, {"step": 3}]


@pytest.mark.parametrize("tail", [b"\0" * 700, b'{"step": 2, "x\0\0\0', b"[1, 2]", b'{"a": 1}{"b": 2}', b"\xff\xfe", b"}" * 10])
def test_other_rubbish_at_the_end_is_cut(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n' + tail)
    assert list(read_jsonl(path)) == [{"step": 1}]
    write(path, {"step": 2})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_a_long_torn_tail_is_found_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n' + b"x" * 300_000)
    write(path, {"step": 2})
    assert list(read_jsonl(path)) == [{"step": 1}, {"step": 2}]
    path.write_bytes(b"x" * 300_000)
    write(path, {"step": 3})
    assert list(read_jsonl(path)) == [{"step": 3}]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n{"st\n\n{"step": 3}\n')
    with pytest.raises(IntegrityError, match="not a JSON object") as caught:
        list(read_jsonl(path))
    assert caught.value.where == f"{path}:2 (byte 12)"


def test_records_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *({"step": step} for step in range(10)), {"note": "end"})
    with JsonlAppender(path) as log:
        assert log.truncate_after(lambda record: record.get("step", 0) > 6) == 4
        assert log.truncate_after(lambda record: record.get("step", 0) > 6) == 0
        log.append({"step": 7})
    assert [record["step"] for record in read_jsonl(path)] == list(range(8))


def test_a_log_that_is_rotated_truncated_or_deleted_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "log"
    with JsonlAppender(path) as log:
        log.append({"n": 1})
        path.rename(tmp_path / "log.1")
        log.append({"n": 2})
        assert list(read_jsonl(path)) == [{"n": 2}]
        os.truncate(path, 0)
        log.append({"n": 3})
        assert list(read_jsonl(path)) == [{"n": 3}]
        path.unlink()
        path.parent.rmdir()
        log.append({"n": 4})
        assert list(read_jsonl(path)) == [{"n": 4}]
    assert list(read_jsonl(tmp_path / "log.1")) == [{"n": 1}]


def test_after_a_failed_write_the_log_is_whole_and_goes_on(tmp_path: Path) -> None:
    class FullAfter(FileSystem):
        left = 30

        def write(self, descriptor: int, data: Any) -> int:
            if self.left == 0:
                raise OSError(errno.ENOSPC, "full")
            count = super().write(descriptor, memoryview(data)[: self.left])
            self.left -= count
            return count

    path = tmp_path / "log"
    log = JsonlAppender(path)
    with installed(FullAfter()) as disk:
        log.append({"step": 1})
        with pytest.raises(StorageError, match="disk full"):
            log.append({"step": 2, "text": "x" * 100})
        disk.left = 10**6  # type: ignore[attr-defined]
        log.append({"step": 3})
    log.close()
    assert list(read_jsonl(path)) == [{"step": 1}, {"step": 3}]


def test_each_record_is_one_write(tmp_path: Path) -> None:
    class Counting(FileSystem):
        calls: list[str]

        def write(self, descriptor: int, data: Any) -> int:
            self.calls.append("write")
            return super().write(descriptor, data)

        def fsync(self, descriptor: int) -> None:
            self.calls.append("sync")
            super().fsync(descriptor)

    for fsync, expected in ((False, ["write"]), (True, ["write", "sync"])):
        with JsonlAppender(tmp_path / f"log{fsync}", fsync=fsync) as log, installed(Counting()) as disk:
            disk.calls = []  # type: ignore[attr-defined]
            log.append({"text": "x" * 100_000})
            assert disk.calls == expected  # type: ignore[attr-defined]


def test_a_planted_link_or_fifo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(StorageError):
        JsonlAppender(tmp_path / "link")
    assert not (tmp_path / "victim").exists()
    with pytest.raises(StorageError):
        list(read_jsonl(tmp_path / "link"))


def test_a_log_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write(tmp_path / "log", {"a": 1})
    finally:
        os.umask(old)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
