from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.memory import memory_directory


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory; `tmp_path` stays on the real disk."""
    with memory_directory(tmp_path) as place:
        yield place
