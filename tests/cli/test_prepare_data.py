"""``llm-prepare-data``: every option of the section data is followed or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_training.__main__ import main

TEXT = "The quick brown fox jumps over the lazy dog and the other one that sleeps with it. "


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write(tmp_path / "texts.jsonl", [{"id": f"i{n}", "text": f"{TEXT * 8}Number {n} of the list."} for n in range(40)])


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*words: object) -> int:
    return main(["prepare-data", *map(str, words), "--cleaning", "none", "--tokenizer", "bytes"])


def ids(output: Path, split: str) -> list[str]:
    return [json.loads(line)["id"] for line in (output / f"{split}.json").read_text().splitlines()]


def test_held_out_sources(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = write(tmp_path / "other.jsonl", [{"id": f"v{number}", "text": f"Other {TEXT}{number}"} for number in range(5)])
    for step in ("none", "duplicates"):
        words = ["prepare-data", str(texts), "--validation-sources", str(held_out), "--output", str(tmp_path / "o"), "--cleaning", step]
        assert main([*words, "--tokenizer", "bytes"]) == 0
        assert ids(tmp_path / "o", "validation") == [f"v{number}" for number in range(5)]
        assert len(ids(tmp_path / "o", "train")) == 40
    assert run(texts, "--validation-sources", texts, "--output", tmp_path / "both") == 2
    assert "is a source and held out" in capsys.readouterr().err
    assert run(texts, "--validation-sources", tmp_path / "o" / "validation.json", "--output", tmp_path / "o") == 2
    assert "would be replaced by the output" in capsys.readouterr().err


def test_sources_of_a_configuration(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"data:\n  sources: ['{texts}']\n  validation_fraction: 0.5\n")
    assert run("--config", config, "--output", tmp_path / "o") == 0
    assert len(ids(tmp_path / "o", "validation")) > 10
    other = write(tmp_path / "other.jsonl", [{"id": f"o{number}", "text": f"{TEXT}{number}"} for number in range(9)])
    assert run(other, "--config", config, "--output", tmp_path / "p") == 0
    assert all(name.startswith("o") for name in ids(tmp_path / "p", "train"))
    assert run("--output", tmp_path / "q") == 2
    assert "no source of text was given" in capsys.readouterr().err


def test_the_longest_document(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with texts.open("a") as file:
        file.write(json.dumps({"id": "long", "text": TEXT * 50_000}) + "\n")
    words = (texts, "--output", tmp_path / "o", "--max-document-bytes", "3000000")
    assert run(*words) == 3
    assert "longer than data.max_document_bytes (4,150,0" in capsys.readouterr().err
    assert run(*words, "--skip-bad") == 0
    assert "longer than data.max_document_bytes at texts.jsonl, line 41" in capsys.readouterr().out
    assert run(*words[:3], "--max-document-bytes", "5000000") == 0
    assert "long" in ids(tmp_path / "o", "train") + ids(tmp_path / "o", "validation")


@pytest.mark.parametrize("cleaning", ["none", "normalise"])
def test_bytes_that_are_no_text_are_replaced_and_told(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cleaning: str
) -> None:
    with texts.open("ab") as file:
        file.write(b'{"id": "odd", "text": "caf\xe9 au lait"}\n{"id": "too", "text": "na\xefve"}\n')
    words = ["prepare-data", str(texts), "--tokenizer", "bytes", "--cleaning", cleaning, "--output", str(tmp_path / "o")]
    assert main(words) == 3
    assert (
        f"error[E03]: undecodable (not valid utf-8: invalid continuation byte); at {texts}, line 41, byte offset" in capsys.readouterr().err
    )
    assert main([*words, "--replace-bad-bytes"]) == 0
    shown = " ".join("".join(capsys.readouterr()).split())
    offset = texts.read_bytes().index(b"\xe9")
    assert f"2 documents were read with U+FFFD for bytes that are no UTF-8 (first: {texts}, line 41, byte offset {offset})" in shown
    assert "2 read with U+FFFD for bytes that are no UTF-8" in shown
    written = (tmp_path / "o/train.json").read_text() + (tmp_path / "o/validation.json").read_text()
    assert "caf\ufffd au lait" in written and "na\ufffdve" in written
    assert json.loads((tmp_path / "o/stats.json").read_text())["changes"]["read with U+FFFD for bytes that are no UTF-8"] == 2


def test_errors_name_the_flags_that_the_command_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b'{"text": "some words"}\n{"text": "bad \xff"}\n')
    (tmp_path / "body.jsonl").write_text('{"body": "some words"}\n' * 9)
    (tmp_path / "encoding.py").write_text("# coding: nonsense\n")

    def remedy(command: str, name: str, *words: str) -> str:
        assert main([command, str(tmp_path / name), "--output", str(tmp_path / "o"), *words]) == 3
        return capsys.readouterr().err.strip().rpartition("; ")[2]

    skip = "skip bad documents (--skip-bad)"
    assert remedy("prepare-data", "bytes.jsonl") == f"mend it, read such bytes as U+FFFD (--replace-bad-bytes), or {skip}"
    assert remedy("prepare-data", "encoding.py") == f"mend it, or {skip}"
    assert remedy("train-tokenizer", "bytes.jsonl") == f"mend it, or {skip}"
    for command in ("prepare-data", "train-tokenizer"):
        assert remedy(command, "body.jsonl") == f"mend it, name the field of the text (--text-field), or {skip}"
        assert "name its text with --text-field" in remedy(command, "body.jsonl", "--skip-bad")
    lenient = ("--skip-bad", "--max-bad-fraction", "0")
    assert "read bad bytes as U+FFFD with --replace-bad-bytes" in remedy("prepare-data", "bytes.jsonl", *lenient)


def test_a_source_without_documents_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, message in (("empty.txt", "there are no documents in the source"), ("empty.csv", "the file is empty")):
        (tmp_path / name).touch()
        assert run(tmp_path / name, "--output", tmp_path / "o") == 3
        assert f"{message}; at {tmp_path / name}; " in capsys.readouterr().err


def test_other_fields_of_the_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records: list[dict[str, object]] = [{"id": f"i{number}", "body": f"{TEXT}{number}"} for number in range(30)]
    source = write(tmp_path / "x.jsonl", [*records, *({"id": f"bad{number}"} for number in range(6))])
    words = (source, "--text-field", "body", "--output", tmp_path / "o")
    assert run(*words) == 3
    config = tmp_path / "c.yaml"
    config.write_text("data: {skip_bad: true, max_bad_fraction: 0.5, validation_fraction: 0}\n")
    assert run(*words, "--config", config) == 0
    assert len(ids(tmp_path / "o", "train")) == 30 and ids(tmp_path / "o", "validation") == []
    assert run(*words, "--config", config, "--max-bad-fraction", "0.1") == 3
    assert run(*words, "--config", config, "--no-skip-bad") == 3
    capsys.readouterr()
    assert run(f"{source}#weight=2", "--output", tmp_path / "w") == 2
    assert "has a weight or max_epochs" in capsys.readouterr().err
    alike = write(tmp_path / "y.jsonl", [{"id": f"n{n}", "text": f"{TEXT * 3}The end of number {n}."} for n in range(4)])
    near = ("prepare-data", str(alike), "--cleaning", "near_duplicates", "--tokenizer", "bytes", "--validation-fraction", "0")
    assert main([*near, "--output", str(tmp_path / "n"), "--near-duplicate-similarity", "0.5"]) == 0
    assert len(ids(tmp_path / "n", "train")) == 1
    assert main([*near, "--output", str(tmp_path / "n"), "--near-duplicate-similarity", "1.0"]) == 0
    assert len(ids(tmp_path / "n", "train")) == 4


@pytest.mark.parametrize(
    "flag",
    ["--learning-rate 5", "--training.learning_rate 5", "--cache.dir x", "--min-frequency=3", "--no-gradient-checkpointing", "--plots"],
)
def test_fields_of_other_sections_are_refused(flag: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(texts, "--output", tmp_path / "o", *flag.split()) == 2
    error = capsys.readouterr().err
    assert f"{re.split('[ =]', flag)[0]} is a field that this command does not use" in error and "--help" in error
    assert not (tmp_path / "o").exists()
