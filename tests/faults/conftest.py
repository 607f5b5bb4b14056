from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: these tests make thousands of states and need no durable disk."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir():
        yield tmp_path
        return
    place = Path(tempfile.mkdtemp(prefix="llm-training-test-", dir=shared_memory))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
