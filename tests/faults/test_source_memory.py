"""Memory while sources are planned and read does not grow with them: each form in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .source_memory import WRITERS

PROGRAM = Path(__file__).with_name("source_memory.py")
MEGABYTE = 1_000_000


def _run(verb: str, folder: Path, name: str, num_bytes: int, long_bytes: int = 0) -> dict[str, int]:
    environment = os.environ | {"SOURCE_MEMORY_LONG": str(long_bytes), "PYTHONPATH": str(PROGRAM.parents[2] / "src")}
    words = [sys.executable, str(PROGRAM), verb, str(folder), name, str(num_bytes)]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=1_200)
    return json.loads(answer.stdout or "{}")


def _peak(folder: Path, name: str, num_bytes: int, long_bytes: int = 0) -> int:
    """Most memory of a process that reads a source of so many bytes, in megabytes."""
    _run("write", folder, name, num_bytes, long_bytes)
    found = _run("read", folder, name, num_bytes)
    (folder / name).unlink()
    assert found["bytes"] >= num_bytes + long_bytes and found["documents"] > num_bytes / 6_000
    return found["peak"] // MEGABYTE


_QUICK = ("x.jsonl.gz", "x.csv", "x.parquet", "x.arrow")


@pytest.mark.slow
@pytest.mark.parametrize("name", _QUICK)
def test_a_hundred_megabytes_take_little_memory(tmp_path: Path, name: str) -> None:
    assert _peak(tmp_path, name, 100 * MEGABYTE) < 160


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.parquet"])
def test_the_longest_document_takes_a_few_times_its_size(tmp_path: Path, name: str) -> None:
    assert _peak(tmp_path, name, MEGABYTE, 30 * MEGABYTE) < 400


@pytest.mark.nightly
@pytest.mark.parametrize("name", WRITERS)
def test_a_gigabyte_takes_no_more(tmp_path: Path, name: str) -> None:
    assert _peak(tmp_path, name, 1_000 * MEGABYTE, 30 * MEGABYTE) < 400
