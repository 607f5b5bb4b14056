"""One small trained tokenizer for the room's tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from llm_training.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def source_texts() -> list[str]:
    """About 1.5 MB of Python source, the same for all tests."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [
        (folder / name).read_text() for name in ("argparse.py", "typing.py", "inspect.py", "tarfile.py", "datetime.py", "subprocess.py")
    ]


@pytest.fixture(scope="session")
def trained(source_texts: list[str]) -> Tokenizer:
    """600 entries."""
    return train_tokenizer(source_texts, 600)
