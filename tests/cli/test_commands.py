"""Every command once from its words to its result, on a small run."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.end_to_end.tiny import write_corpus

FIELDS = (
    "--hidden-size 16 --num-layers 2 --num-attention-heads 2 --seq-len 32 --tokenizer.vocab-size 300 --max-steps 6 --batch-size 4 "
    "--save-steps 3 --eval-steps 3 --evaluation.num-samples 1 --evaluation.sample-tokens 5 --evaluation.max-tokens 256 --threads 1 "
    "--evaluation.final-max-tokens 256 --no-plots --precision fp32 --output-dir run"
)
RAW = ("--cleaning", "none")  # the small corpus is made of few words: no rule for running text would keep it


@pytest.fixture
def trained(empty_directory: Path, run: Run) -> Path:
    write_corpus(empty_directory / "texts")
    found = run("train", "texts", *FIELDS.split(), "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["step"] == 6
    return empty_directory / "run"


def test_the_commands_that_follow_a_run(trained: Path, run: Run) -> None:
    assert "6/6" in run("logs", "run").out
    assert run("logs", "--training-id", "run", "--lines", "1").out.count("\n") == 1
    assert json.loads(run("logs", "run", "--data", "2", "--json").out)[0]["source"].startswith("texts/")
    figures = json.loads(run("evaluate", "--model-path", "run", "--test-data", "texts", "--max-tokens", "200", "--json").out)
    assert figures["figures"]["num_tokens"] > 0
    assert "Perplexity" in run("evaluate", "--model-path", "run", "texts", "--max-tokens", "200").out
    written = json.loads(run("generate", "--model-path", "run", "the model", "--max-tokens", "5", "--seed", "1", "--json").out)
    assert written["prompt"] == "the model"
    assert run("generate", "--model-path", "run", "--prompt", "the model", "--max-tokens", "5", "--seed", "1").out == (
        f"the model{written['text']}\n"
    )
    shown = run("cleanup", "--checkpoint-dir", "run", "--keep-last", "1")
    assert shown.code == 0 and "step-00000006" in shown.out
    assert "is_dry_run" in json.loads(run("cleanup", "--checkpoint-dir", "run", "--json").out)


def test_preparing_training_a_tokenizer_and_building_a_cache(empty_directory: Path, run: Run) -> None:
    write_corpus(empty_directory / "texts")
    found = run("prepare-data", "--input", "texts", "--output", "data", "--max-length", "64", "--vocab-size", "300", "--create-stats", *RAW)
    assert found.code == 0, found.err
    assert "llm-train data/train.json --val-data-path data/validation.json" in found.out.replace("\\", "/")
    assert json.loads(run("prepare-data", "texts", "--output", "data", "--vocab-size", "300", "--json", *RAW).out)["vocab_size"] == 300
    found = run("train-tokenizer", "texts", "--vocab-size", "300", "--output", "tok")
    assert found.code == 0 and "bytes per token" in found.out
    assert json.loads(run("train-tokenizer", "--input", "texts", "--vocab-size", "300", "--output", "tok", "--json").out)["output"] == "tok"
    words = ("build-cache", "texts", "--tokenizer", "tok", "--dataset-name", "mine", "--sequence-length", "32", "--cache-dir", "c")
    assert run(*words).code == 0
    report = json.loads(run(*words, "--verify", "--json").out)
    assert report["verified"] is True and report["dataset"] == "mine"
    assert run(*words, "--mode", "sideways").code == 2


def test_printed_documents_of_prepared_data_train(empty_directory: Path, run: Run) -> None:
    """The command that llm-prepare-data names next works as printed."""
    write_corpus(empty_directory / "texts")
    found = run("prepare-data", "texts", "--output", "data", "--vocab-size", "300", *RAW)
    words = found.out.splitlines()[-1].removeprefix("Next: llm-train ").split()
    found = run("train", *words, *[word for word in FIELDS.split() if word not in ("--tokenizer.vocab-size", "300")], "--dry-run")
    assert found.code == 0, found.err


def test_next_commands_are_words_of_the_shell(empty_directory: Path, run: Run) -> None:
    source, output = "we ird #1.jsonl", "my out/it's $HOME"
    (empty_directory / source).write_text("".join(json.dumps({"text": f"some words, {n} of them, for a text"}) + "\n" for n in range(60)))
    for format, files in (("jsonl", 2), ("parquet", 0)):
        found = run("prepare-data", source, "--output", output, "--vocab-size", "260", "--format", format, *RAW)
        words = shlex.split(found.out.splitlines()[-1])
        assert words[:2] == ["Next:", "llm-train"] and words[-2:] == ["--tokenizer.path", output]
        assert sum(Path(word).is_file() for word in words) == files
    found = run("train-tokenizer", source, "--output", f"{output}/tok", "--vocab-size", "260")
    assert shlex.split(found.out.splitlines()[-1]) == ["Next:", "llm-train", source, "--tokenizer.path", f"{output}/tok"]
    fields = [word for word in FIELDS.split() if word not in ("--tokenizer.vocab-size", "300", "run")]
    found = run("train", *shlex.split(found.out.splitlines()[-1])[2:], *fields, "a run")
    assert found.code == 0, found.err
    (line,) = [line for line in found.out.splitlines() if "llm-evaluate" in line]
    assert Path(shlex.split(line)[2]).is_dir() and " " in shlex.split(line)[2]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="terminals of POSIX")
def test_a_terminal_gets_lines_and_tabs_but_no_commands(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_training.cli import generate

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        generate._print_as_written("def f():\n\treturn \x1b[31m1\u202e\r\n")
        monkeypatch.undo()
    assert os.read(ours, 1000) == b"def f():\r\n\treturn \\x1b[31m1\\u202e\\r\r\n"
    os.close(ours)


def test_system(run: Run) -> None:
    facts = {fact["name"]: fact for fact in json.loads(run("check-system", "--json").out)["facts"]}
    assert facts["torch"]["state"] == "good"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ("train nowhere", 3, "no such file, folder or glob; at nowhere"),
        ("prepare-data", 2, "no source of text was given"),
        ("prepare-data nowhere", 3, "nowhere"),
        ("prepare-data x --format csv", 2, "--format"),
        ("prepare-data x --vocab v.json", 2, "belong together"),
        ("prepare-data x --num-samples 5", 2, "--num-samples is a field that this command does not use"),
        ("train-tokenizer nowhere", 3, "nowhere"),
        ("evaluate", 2, "--model-path is required; see --help"),
        ("evaluate --model-path nowhere x", 2, "there is no model here; at nowhere"),
        ("generate --model-path nowhere", 2, "there is no model here; at nowhere"),
        ("generate --model-path x --max-tokens many", 2, "--max-tokens"),
        ("logs", 2, "there is no run under runs/"),
        ("logs nowhere", 2, "there is no run nowhere"),
        ("logs one two", 2, "2 runs are named, one can be shown at a time"),
        ("plot", 2, "there is no run under runs/"),
        ("cleanup --checkpoint-dir nowhere", 2, "there is no such directory; at nowhere"),
        ("build-cache nowhere", 3, "nowhere"),
        ("build-cache x --verify --force-rebuild", 2, "--verify cannot go with --force-rebuild"),
        ("build-cache x --verify --mode inverse", 2, "--verify cannot go with --mode inverse"),
        ("build-cache x --force-rebuild --mode inverse", 2, "--force-rebuild cannot go with --mode inverse"),
        ("build-cache a/#wieght=2", 3, "#wieght=2 is no suffix that is known"),
        ("build-cache --batch-siz 3", 2, "did you mean --batch-size?"),
        ("check-system x", 2, "x"),
    ],
)
def test_errors_of_the_commands(run: Run, words: str, code: int, expected: str) -> None:
    found = run(*words.split())
    assert found.code == code
    (line,) = found.err.splitlines()
    assert line.startswith(f"error[E{code:02d}]: ") and expected in line
