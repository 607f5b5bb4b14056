"""The pipeline object: what the command does, from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.jobs.test_cleaning import write_corpus

from llm_training import ConfigError, DataPreparationPipeline
from llm_training.__main__ import main
from llm_training.events import Event, EventBus, Progress
from llm_training.storage.manifest import verify
from llm_training.tokenizer import load_tokenizer


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``raw_data.jsonl`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    noisy = write_corpus(tmp_path / "noisy.jsonl", count=120).read_text().splitlines()
    Path("raw_data.jsonl").write_text("".join(line + "\n" for line in noisy if line.startswith('{"id"')))
    return Path("raw_data.jsonl")


def test_the_documented_call_writes_the_documented_files(raw: Path) -> None:
    result = DataPreparationPipeline(output_dir="prepared_data").run(input_file="raw_data.jsonl", max_seq_length=2048)
    assert {"train.json", "validation.json", "vocab.json"} <= set(result.files) == {*verify(Path("prepared_data")).files, "manifest.json"}
    tokenizer = load_tokenizer("prepared_data")
    assert len(json.loads(Path("prepared_data/vocab.json").read_bytes())) == tokenizer.vocab_size == result.vocab_size
    texts = [json.loads(line)["text"] for line in Path("prepared_data/train.json").read_bytes().splitlines()]
    assert texts and max(len(tokenizer.encode(text)) for text in texts) <= 2048


def test_it_writes_what_the_command_writes(raw: Path) -> None:
    words = ["--output", "two", "--max-length", "64", "--vocab-size", "300", "--create-stats"]
    assert main(["prepare-data", str(raw), *words]) == 0
    DataPreparationPipeline("one").run([raw], 64, vocab_size=300, create_stats=True)
    for name in verify(Path("two")).files:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


def test_progress_and_an_existing_tokenizer(raw: Path) -> None:
    seen: list[Event] = []
    bus = EventBus()
    bus.subscribe(seen.append)
    DataPreparationPipeline(Path("out"), event_bus=bus).run("raw_data.jsonl", tokenizer="bytes", cleaning=["none"], allow_leaks=True)
    assert Path("out/train.ids").exists() and any(isinstance(event, Progress) for event in seen)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"vocabsize": 300}, "has no option vocabsize; did you mean vocab_size?"),
        ({"output": "x"}, "has no option output; known: allow_leaks, cleaning, create_stats"),
        ({"max_seq_length": 3}, "--max-length is 3 but must be at least 8"),
        ({"vocab": "vocab.json"}, "--vocab and --merges belong together"),
        ({"cleaning": ["soap"]}, "no cleaning step soap"),
    ],
)
def test_wrong_options_are_one_error(raw: Path, options: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataPreparationPipeline("out").run(raw, **options)
    assert expected in "\n".join(caught.value.lines())
    assert not Path("out").exists()


def test_the_name_costs_nothing_until_it_is_used() -> None:
    program = "import sys, llm_training; assert 'DataPreparationPipeline' in dir(llm_training); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
