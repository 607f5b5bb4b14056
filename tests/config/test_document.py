"""Generated texts are those that the code makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from llm_training.config.document import document
from llm_training.config.fields import all_fields, section_names


def test_generated_texts_are_current(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_texts", repository / "scripts" / "make_texts.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.stale(), "run: make docs"


def test_every_field_is_described_and_documented() -> None:
    page = document()
    for fact in all_fields().values():
        assert fact.description, fact.name
        assert f"| `{fact.key}` |" in page
    assert {fact.section for fact in all_fields().values()} | {"export", "serving"} == set(section_names())
