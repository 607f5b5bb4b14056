"""Every command of the guides, run as written on a small corpus. The environment makes the models tiny and the runs short.

What needs a network or a launcher is left to its own tests, and numbers that a tiny run does not reach (steps) are made small.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from llm_training.__main__ import main
from tests.docs.test_docs import COMMAND_LINES, commands_of
from tests.end_to_end.tiny import write_corpus

pytestmark = pytest.mark.slow

TINY = {
    "model": {"hidden_size": 16, "num_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32},
    "tokenizer": {"vocab_size": 300},
    "data": {"sources": "my_texts", "cleaning": "none"},
    "cache": {"sequence_length": 32, "workers": 1},
    "training": {"max_steps": 2, "precision": "fp32", "compile": "false"},
    "evaluation": {"num_samples": 1, "sample_tokens": 4, "max_tokens": 256, "final_max_tokens": 256},
    "monitoring": {"plots": "false", "console": "off"},
    "resources": {"threads": 1},
}
REPLACED = (
    (r"(--(?:max|warmup)-steps) \d+", r"\1 2"),
    (r"--vocab-size \d+", "--vocab-size 300"),
    (r"(--data) \d+", r"\1 1"),
    (r"step-00001000", "step-00000002"),
    (r"--size \w+ ", ""),
    (r"^(llm-validate-data .*)$", r"\1 --max-low-quality-fraction 1 --max-duplicate-fraction 1 --max-leaked-documents 99"),  # random words
    (r" --follow", ""),  # it waits; tests/jobs/test_run_tools.py has it
)
ELSEWHERE = re.compile(r"torchrun|--engine ray|hf:|s3://|connector:|^echo ")
PAGES = sorted({written.page for written in COMMAND_LINES})


def train_one(folder: str) -> None:
    assert main(["train", "--output-dir", folder]) == 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the texts, tokenizer and runs that the guides speak of. Each page starts from a copy in its place."""
    root = tmp_path_factory.mktemp("guides")
    place = root / "here"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        set_environment(patch)
        write_corpus(Path("my_texts"))
        write_corpus(Path("books"), documents=5)
        shutil.copy("my_texts/doc-001.txt", "my_texts/test.txt")
        Path("notes.md").write_text("a note about the text\n" * 20)
        Path("data").mkdir()
        records = "".join(json.dumps({"text": path.read_text()}) + "\n" for path in sorted(Path("my_texts").glob("doc-*")))
        for name in ("data/train.jsonl", "data/dev.jsonl", "test.jsonl"):
            Path(name).write_text(records)
        Path("web.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values()))  # prose, for the cleaning
        Path("data/more.jsonl.gz").write_bytes(gzip.compress(records.encode()))
        Path("data/tokens.txt").write_text(" ".join(str(byte) for byte in Path("my_texts/doc-003.txt").read_bytes() * 9))
        assert main(["train-tokenizer", "my_texts", "--output", "tokenizer", "--vocab-size", "300"]) == 0
        assert main(["prepare-data", "my_texts", "--output", "prepared", "--vocab-size", "300"]) == 0
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(f"prepared/{name}", name)
        train_one("out")
        for name in ("my_run", "first", "second", "1K_my_texts_32_run_1"):
            shutil.copytree("out", f"runs/{name}", symlinks=True)
    shutil.copytree(place, root / "kept", symlinks=True)
    return place


def set_environment(patch: pytest.MonkeyPatch) -> None:
    for section, fields in TINY.items():
        for name, value in fields.items():
            patch.setenv(f"LLM_TRAINING__{section}__{name}".upper(), str(value))


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run_in_order(
    page: str, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(base)
    shutil.copytree(base.parent / "kept", base, symlinks=True)
    monkeypatch.chdir(base)
    set_environment(monkeypatch)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    for written in (written for written in COMMAND_LINES if written.page == page):
        if ELSEWHERE.search(written.line):
            continue
        line = f"{written.line} "
        for pattern, replacement in REPLACED:
            line = re.sub(pattern, replacement, line)
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        for word, words in commands_of(type(written)(page, line)):
            code = main([word, *words])
            assert code == 0, f"{line}: {capsys.readouterr().err}"
