from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.memory import memory_directory


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory here: every write is synced, which a busy disk takes its time for. tests/faults uses the real one too."""
    with memory_directory(tmp_path) as place:
        yield place
