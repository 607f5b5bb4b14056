from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llm_training.errors import StorageError
from llm_training.storage.filesystem import FileSystem, installed
from llm_training.storage.links import is_plain_name, is_pointer, read_pointer, replace_symlink


class WithoutLinks(FileSystem):
    def symlink(self, target: str, path: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_pointer_is_a_relative_link_and_can_move(tmp_path: Path) -> None:
    replace_symlink(tmp_path / "latest", "a")
    replace_symlink(tmp_path / "latest", "b")
    assert os.readlink(tmp_path / "latest") == "b" == read_pointer(tmp_path / "latest")
    assert [entry.name for entry in tmp_path.iterdir()] == ["latest"]


def test_without_links_it_is_a_small_file(tmp_path: Path) -> None:
    with installed(WithoutLinks()):
        replace_symlink(tmp_path / "latest", "a")
        replace_symlink(tmp_path / "latest", "b")
    assert (tmp_path / "latest").read_text() == "b\n"
    assert read_pointer(tmp_path / "latest") == "b" and is_pointer(tmp_path / "latest")
    replace_symlink(tmp_path / "latest", "c")
    assert (tmp_path / "latest").is_symlink() and read_pointer(tmp_path / "latest") == "c"


@pytest.mark.parametrize("target", ["../x", "/x", "a/b", "", ".."])
def test_a_pointer_stays_in_its_directory(tmp_path: Path, target: str) -> None:
    with pytest.raises(ValueError, match="sibling"):
        replace_symlink(tmp_path / "latest", target)
    if target:
        (tmp_path / "latest").symlink_to(target)
        assert read_pointer(tmp_path / "latest") is None


@pytest.mark.parametrize("content", [b"", b"a/b", b"\xff\xfe", b"x" * 5000, b"a\nb\n"])
def test_a_damaged_pointer_file_names_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "latest").write_bytes(content)
    assert read_pointer(tmp_path / "latest") is None and not is_pointer(tmp_path / "latest")


def test_what_is_no_pointer_names_nothing_and_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    os.mkfifo(tmp_path / "fifo")
    assert read_pointer(tmp_path / "latest") is read_pointer(tmp_path / "fifo") is read_pointer(tmp_path / "missing") is None
    assert not is_pointer(tmp_path / "missing")
    with pytest.raises(StorageError, match="a directory has that name"):
        replace_symlink(tmp_path / "latest", "a")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fifo", "latest"]


@pytest.mark.parametrize(
    ("name", "is_plain"), [("step-00000001", True), ("é", True), ("a b", True), ("a\x1bb", False), ("a:b", False), ("x" * 256, False)]
)
def test_plain_names(name: str, is_plain: bool) -> None:
    assert is_plain_name(name) == is_plain
