from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.storage.links import is_plain_name
from llm_training.storage.runs import RunName, create_run_directory, list_runs, make_run_name, parse_run_name, safe_name


@given(st.text(max_size=300))
def test_any_text_becomes_a_name_that_is_safe_everywhere(text: str) -> None:
    name = safe_name(text)
    assert is_plain_name(name) and name.isascii() and len(name) <= 65
    assert not name.startswith((".", "-", "_")) and name.lower() not in ("con", "nul", "aux", "prn", "com1")


@given(st.text(), st.text(), st.integers(1, 10**6), st.integers(1, 10**6))
def test_names_come_apart_again(size: str, dataset: str, sequence_length: int, number: int) -> None:
    name = make_run_name(size, dataset, sequence_length, number)
    assert parse_run_name(str(name)) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("6.9M_wiki_text_512_run_3", RunName("6.9M", "wiki_text", 512, 3)),
        ("415M_FineWeb_512_run_1", RunName("415M", "FineWeb", 512, 1)),
        ("notes", None),
        ("6.9M_512_run_1", None),
    ],
)
def test_known_names(name: str, expected: RunName | None) -> None:
    assert parse_run_name(name) == expected


def test_runs_are_numbered_in_their_series(tmp_path: Path) -> None:
    first = create_run_directory(tmp_path / "runs", size="7M", dataset="code", sequence_length=256)
    second = create_run_directory(tmp_path / "runs", size="7M", dataset="code", sequence_length=256)
    other = create_run_directory(tmp_path / "runs", size="7M", dataset="code", sequence_length=512)
    assert [layout.path.name for layout in (first, second, other)] == ["7M_code_256_run_1", "7M_code_256_run_2", "7M_code_512_run_1"]
    (tmp_path / "runs" / "7M_code_256_run_9").symlink_to(first.path)
    assert [path.name for _, path in list_runs(tmp_path / "runs")] == ["7M_code_256_run_1", "7M_code_256_run_2", "7M_code_512_run_1"]
    assert first.checkpoints.parent == first.metrics.parent == first.lock.parent == first.path
    assert list_runs(tmp_path / "missing") == []


def make_ten(root: Path) -> None:
    for _ in range(10):
        create_run_directory(root, size="7M", dataset="code", sequence_length=256)


def test_processes_at_once_get_their_own_numbers(tmp_path: Path) -> None:
    children = [multiprocessing.get_context("fork").Process(target=make_ten, args=(tmp_path,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [name.number for name, _ in list_runs(tmp_path)] == list(range(1, 31))
