from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llm_training.errors import IntegrityError, StorageError
from llm_training.storage import durable
from llm_training.storage.durable import make_directory, remove_file, remove_tree, rename, write_bytes, write_json, write_stream
from llm_training.storage.filesystem import FileSystem, filesystem, installed
from llm_training.storage.hashing import record_of
from llm_training.storage.oserrors import require_free_space
from llm_training.storage.reading import hash_file, read_bytes, read_json


@contextmanager
def umask(value: int) -> Iterator[None]:
    old = os.umask(value)
    try:
        yield
    finally:
        os.umask(old)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_bytes_come_back_with_their_record(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    record = write_bytes(tmp_path / "file", memoryview(data))
    assert read_bytes(tmp_path / "file") == data
    assert record == record_of(data) == hash_file(tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_json_comes_back_and_has_no_nan(tmp_path: Path) -> None:
    value = {"a": [1, None, True], "text": "é\ud800"}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert read_json(tmp_path / "file.json") == value


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[NaN]", b"[" * 100_000, b"1" * 5000, b""])
def test_bad_json_is_an_integrity_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file.json").write_bytes(text)
    with pytest.raises(IntegrityError, match="not valid JSON") as caught:
        read_json(tmp_path / "file.json")
    assert caught.value.where == str(tmp_path / "file.json")


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_files_are_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        write_bytes(tmp_path / "file", b"x")
        make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_planted_link_at_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    predicted = tmp_path / ".tmp-guessed"
    predicted.symlink_to(victim)
    monkeypatch.setattr(durable, "temporary_beside", lambda path: predicted)
    with pytest.raises(StorageError, match="that name is taken"):
        write_bytes(tmp_path / "file", b"x")
    assert victim.read_bytes() == b"precious"


def test_a_link_at_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("victim")
    write_bytes(tmp_path / "file", b"x")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()


def test_temporary_names_cannot_be_guessed_and_fit(tmp_path: Path) -> None:
    long = tmp_path / ("é" * 127)
    write_bytes(long, b"x")
    assert durable.temporary_beside(long).name != durable.temporary_beside(long).name


def test_a_failing_writer_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), write_stream(tmp_path / "file") as sink:
        sink.write(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_keeps_other_bytes_is_found_out(tmp_path: Path) -> None:
    class Liar(FileSystem):
        def write(self, descriptor: int, data: Any) -> int:
            return super().write(descriptor, bytes(len(data)))

    write_bytes(tmp_path / "file", b"old")
    with installed(Liar()), pytest.raises(StorageError, match="reads back different"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk full: "),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "input/output error"),
        (errno.EDQUOT, "quota"),
        (errno.EPROTO, "Protocol error"),
    ],
)
def test_the_message_names_the_cause(tmp_path: Path, number: int, words: str) -> None:
    class Failing(FileSystem):
        def write(self, descriptor: int, data: Any) -> int:
            raise OSError(number, os.strerror(number))

    with installed(Failing()), pytest.raises(StorageError, match=words) as caught:
        write_bytes(tmp_path / "file", bytes(2_500_000))
    assert caught.value.exit_code == 5 and caught.value.remedy
    if number == errno.ENOSPC:
        assert "2.5 MB needed" in str(caught.value) and "free" in str(caught.value)


def test_space_is_refused_before_the_work(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "there", 1, "a checkpoint")
    with pytest.raises(StorageError, match=r"not enough space for a checkpoint \(disk full: .* free, 1000000000.0 GB needed\)"):
        require_free_space(tmp_path, 10**18, "a checkpoint")


def test_pyarrow_writes_through_the_sink(tmp_path: Path) -> None:
    table = pa.table({"tokens": [[1, 2], [3]]})
    with write_stream(tmp_path / "chunk.arrow") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert pa.ipc.open_file(str(tmp_path / "chunk.arrow")).read_all() == table
    assert sink.record == hash_file(tmp_path / "chunk.arrow")


def test_a_fifo_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(StorageError):
            read_bytes(path)
    (tmp_path / "link").symlink_to("file")
    write_bytes(tmp_path / "file", b"x")
    with pytest.raises(StorageError, match="symbolic link"):
        read_bytes(tmp_path / "link")


def test_a_file_above_the_bound_is_not_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", bytes(11))
    with pytest.raises(IntegrityError, match="larger than the 10 bytes"):
        read_bytes(tmp_path / "file", max_bytes=10)


def test_a_name_that_is_taken_is_not_renamed_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bytes(tmp_path / name, name.encode())
    with pytest.raises(StorageError, match="that name is taken"):
        rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"b"


def test_removing_never_follows_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to(outside)
    remove_tree(tree)
    remove_tree(tree)
    remove_file(tmp_path / "never there")
    assert names(tmp_path) == ["outside"] and names(outside) == ["precious"]


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"x")
    with pytest.raises(StorageError, match="not a directory"):
        make_directory(tmp_path / "file" / "below")
    with pytest.raises(StorageError):
        make_directory(tmp_path / "file")


def test_the_replacement_ends_with_its_block() -> None:
    before = filesystem()
    with pytest.raises(RuntimeError), installed(FileSystem()) as replacement:
        assert filesystem() is replacement
        raise RuntimeError
    assert filesystem() is before


def test_json_is_ascii(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"é": "\u2028"})
    assert (tmp_path / "file").read_bytes().isascii()
    assert json.loads((tmp_path / "file").read_bytes()) == {"é": "\u2028"}


def test_nothing_here_goes_round_the_file_system_object() -> None:
    """What is not seen by the recorder is not tested by the crash states."""
    names = r"(?<!filesystem\(\))\.(unlink|rmdir|mkdir|symlink_to|write_text|touch|chmod)\("
    calls = r"\bos\.(open|write|fsync|ftruncate|rename|replace|remove)\(|(?<!filesystem\(\)\.)\bopen\("
    package = Path(durable.__file__).parents[1]
    for source in [*(package / "storage").glob("*.py"), *(package / "checkpoint").glob("*.py")]:
        if source.name != "filesystem.py":
            assert re.findall(f"{names}|{calls}", source.read_text()) == [], source
