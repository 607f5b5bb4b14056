"""A temporary directory in memory where there is one: tests that make thousands of files need no durable disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_directory(otherwise: Path) -> Iterator[Path]:
    """A directory under /dev/shm, removed afterwards; ``otherwise`` on systems without it."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir():
        yield otherwise
        return
    place = Path(tempfile.mkdtemp(prefix="llm-training-test-", dir=shared_memory))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
