"""Fixtures shared by all tests: one thread, no network, the corpora when they are there."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_DATA_VARIABLE = "LLM_TRAINING_TEST_DATA"


def find_test_data() -> Path | None:
    """The corpora, or None when the variable is unset and the default folder is absent."""
    named = os.environ.get(TEST_DATA_VARIABLE)
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if folder.is_dir() and os.access(folder, os.R_OK):
        return folder
    if named:
        raise pytest.UsageError(f"{TEST_DATA_VARIABLE}={named} is set but cannot be read")
    return None


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real corpora; the test is skipped, visibly, where there is none."""
    folder = find_test_data()
    if folder is None:
        pytest.skip(f"no corpora: set {TEST_DATA_VARIABLE}")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY
