"""The commands that look at data, from their words to their result."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.cli.conftest import Run

TEXT = "The river ran down to the sea and in the evening the people of the town walked along it and talked of the weather, page"


@pytest.fixture
def data(empty_directory: Path) -> Path:
    """40 documents in a training and a validation file, and a broken record."""
    words = TEXT.split()
    texts = [" ".join(random.Random(number).sample(words, len(words))) + f" {number}." for number in range(40)]
    lines = [json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)]
    (empty_directory / "data").mkdir()
    (empty_directory / "data" / "train.jsonl").write_text("".join(lines[:30]) + '{"text": null}\n')
    (empty_directory / "data" / "validation.jsonl").write_text("".join(lines[30:]))
    return empty_directory / "data"


def test_a_table_a_file_and_the_reasons(data: Path, empty_directory: Path, run: Run) -> None:
    words = ("validate-data", "--data-dir", "data", "--checks", "schema,duplicates", "--output", "out/found.json")
    found = run(*words)
    assert found.code == 3
    assert "error[E03]: the data fails 1 of 4 checks: records that cannot be read 2.44 % (0 % allowed)" in found.err
    assert "schema\trecords that cannot be read\t2.44 %\t0 %\tFAILED" in found.out and "line 31" in found.out
    written = json.loads((empty_directory / "out" / "found.json").read_text())
    assert written["is_valid"] is False and written["findings"][0]["is_good"] is False
    shown = run(*words, "--json", "--max-bad-fraction", "0.05")
    assert shown.code == 0 and json.loads(shown.out)["is_valid"] is True
    assert json.loads((empty_directory / "out" / "found.json").read_text()) == json.loads(shown.out)
    assert run("validate-data", "data", "--checks", "quality,distribution,duplicates,leakage").code == 0


def test_a_page_and_its_figures(data: Path, empty_directory: Path, run: Run) -> None:
    found = run("analyze-data", "--data-file", "data/train.jsonl", "--output", "stats/analysis.html", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["total"]["num_documents"] == 30
    assert (empty_directory / "stats" / "analysis.html").read_text().startswith("<!DOCTYPE html>")
    found = run("analyze-data", "data", "--samples", "2", "--tokenizer", "bytes", "--output", "page.html")
    assert found.code == 0 and "page.html" in found.out and "text not a string" in found.out
    assert run("analyze-data").code == 2 and run("validate-data").code == 2
