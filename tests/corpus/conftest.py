"""Small helpers of the room's tests: a corpus from files written here, and everything it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_training.corpus import Corpus, CorpusSettings, Document, Plan, SliceReader, make_plan, open_corpus


def read_all(corpus: Corpus, plan: Plan, split: str | None = None) -> list[Document]:
    """All documents of a plan."""
    reader = SliceReader(corpus, plan)
    try:
        return list(reader.documents(split))
    finally:
        reader.close()


@pytest.fixture
def read() -> Callable[..., list[Document]]:
    """Plan sources and read all their documents."""

    def run(*uris: object, split: str | None = None, **settings: object) -> list[Document]:
        corpus = open_corpus([str(uri) for uri in uris], CorpusSettings(**settings))  # pyright: ignore[reportArgumentType]
        return read_all(corpus, make_plan(corpus), split)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder called ``texts``."""
    path = tmp_path / "texts"
    path.mkdir()
    return path
