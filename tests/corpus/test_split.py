"""Which documents are held out, and that it never depends on order or number."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from llm_training.corpus import Corpus, CorpusSettings, make_plan, open_corpus
from llm_training.corpus.split import split_of_digest, split_of_name, tail_boundary, text_digest

from .conftest import read_all


def _write_rows(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("wikitext-2/wiki.train.tokens.gz", "train"),
        ("wikitext-2/wiki.valid.tokens", "validation"),
        ("x/train-00000-of-00008.jsonl.gz", "train"),
        ("x/owt_valid.txt", "validation"),
        ("x/validation.json", "validation"),
        ("x/val.txt", "validation"),
        ("x/dev.txt", "validation"),
        ("x/TEST.jsonl", "test"),
        ("x/test/a.txt", "test"),
        ("x/training/a.txt", "train"),
        ("x/trainer.txt", None),
        ("x/latest.txt", None),
        ("test/a.txt", None),
        ("x/test_parser.py", None),
    ],
)
def test_names_that_spell_a_split(name: str, split: str | None) -> None:
    assert split_of_name(name) == split


def test_named_files_define_the_split_and_test_is_never_trained(folder: Path, read) -> None:
    for name in ("train.txt", "valid.txt", "test.txt", "extra.txt"):
        (folder / name).write_text(f"the text of {name}\n" * 20)
    assert {document.source: document.split for document in read(folder)} == {
        "texts/extra.txt": "train", "texts/train.txt": "train", "texts/valid.txt": "validation", "texts/test.txt": "test",
    }  # fmt: skip
    assert [document.source for document in read(folder, split="train")] == ["texts/extra.txt", "texts/train.txt"]


def test_a_lone_name_among_others_means_nothing(folder: Path, read) -> None:
    for name in ("test results.txt", "letter.txt", "diary.txt"):
        (folder / name).write_text(f"the text of {name}\n")
    assert Counter(document.split for document in read(folder)) == {"train": 2, "validation": 1}


def test_named_training_without_validation_is_split_by_hash(folder: Path, read) -> None:
    _write_rows(folder / "train.jsonl", [f"text {number}" for number in range(1000)])
    _write_rows(folder / "test.jsonl", ["held back"])
    counts = Counter(document.split for document in read(folder))
    assert counts["test"] == 1 and 20 < counts["validation"] < 90 and counts["train"] == 1000 - counts["validation"]


def test_equal_texts_fall_on_one_side_whatever_their_order(folder: Path, read) -> None:
    texts = [f"text {number % 700}" for number in range(2000)]
    _write_rows(folder / "a.jsonl", texts)
    sides = {(document.text, document.split) for document in read(folder)}
    assert len(sides) == 700
    random.Random(3).shuffle(texts)
    _write_rows(folder / "a.jsonl", texts)
    assert {(document.text, document.split) for document in read(folder)} == sides


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5])
def test_the_share_held_out_is_the_one_asked_for(fraction: float) -> None:
    held_out = sum(split_of_digest(text_digest(str(number)), fraction) == "validation" for number in range(20_000))
    assert held_out == pytest.approx(20_000 * fraction, rel=0.15)


def test_nothing_is_held_out_when_nothing_is_asked_for(folder: Path, read) -> None:
    (folder / "a.txt").write_text("line\n" * 100)
    assert {document.split for document in read(folder, validation_fraction=0.0)} == {"train"}


@pytest.mark.parametrize("slice_bytes", [100, 1 << 23])
def test_a_single_text_gives_its_last_tenth_at_a_line_break(folder: Path, read, slice_bytes: int) -> None:
    lines = [f"line {number:04}\n" for number in range(1000)]
    (folder / "input.txt").write_text("".join(lines))
    documents = read(folder, slice_bytes=slice_bytes)
    train = "".join(document.text for document in documents if document.split == "train")
    validation = "".join(document.text for document in documents if document.split == "validation")
    assert train + validation == "".join(lines) and train.endswith("\n")
    assert len(validation) / len(train + validation) == pytest.approx(0.1, abs=0.005)
    assert [document.split for document in documents] == sorted(
        (document.split for document in documents), key=["train", "validation"].index
    )


def test_a_single_record_gives_its_last_tenth(folder: Path, read) -> None:
    _write_rows(folder / "one.jsonl", ["".join(f"line {number}\n" for number in range(100))])
    train, validation = read(folder)
    assert (train.split, validation.split) == ("train", "validation") and train.text.endswith("\n")
    assert validation.id == "texts/one.jsonl:0#tail" or validation.id.endswith("#tail")
    assert tail_boundary("x" * 100) == 90


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_few_documents_still_hold_one_out(folder: Path, read, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"the text of letter {number}\n" * 3)
    counts = Counter(document.split for document in read(folder))
    assert counts == {"validation": 1, "train": count - 1}


def test_what_was_held_out_stays_so_when_the_folder_grows(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"the text of letter {number}\n" * 3)
    corpus = open_corpus([str(folder)], CorpusSettings())
    plan = make_plan(corpus)
    before = {document.source: document.split for document in read_all(corpus, plan)}
    for number in range(3, 30):
        (folder / f"{number}.txt").write_text(f"the text of letter {number}\n" * 3)
    grown_corpus = open_corpus([str(folder)], CorpusSettings())
    after = {document.source: document.split for document in read_all(grown_corpus, make_plan(grown_corpus, plan))}
    assert {source: after[source] for source in before} == before and len(after) == 30


@pytest.mark.parametrize("first", ["0.txt", "0.jsonl"])
def test_all_that_is_added_to_a_single_document_trains(folder: Path, first: str) -> None:
    def text(number: int) -> str:
        return f"file {number} words.\n" * 200

    def corpus_of_now() -> Corpus:
        return open_corpus([str(folder)], CorpusSettings(slice_bytes=1000))

    if first.endswith(".txt"):
        (folder / first).write_text(text(0))
    else:
        _write_rows(folder / first, [text(0)])
    corpus = corpus_of_now()
    plan = make_plan(corpus)
    before = read_all(corpus, plan)
    assert {document.split for document in before} == {"train", "validation"}
    for number in (1, 2):
        (folder / f"{number}.txt").write_text(text(number))
    _write_rows(folder / "3.jsonl", [text(3), text(4)])
    with (folder / first).open("a") as file:
        file.write(text(5) if first.endswith(".txt") else json.dumps({"text": text(5)}) + "\n")
    grown_corpus = corpus_of_now()
    documents = read_all(grown_corpus, make_plan(grown_corpus, plan))
    assert documents[: len(before)] == before
    added = documents[len(before) :]
    assert {document.split for document in added} == {"train"}
    assert sorted("".join(document.text for document in added)) == sorted("".join(map(text, range(1, 6))))


def test_each_source_is_split_by_itself(folder: Path, read) -> None:
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"line of {name}\n" * 100)
    documents = read(folder / "a.txt", folder / "b.txt")
    assert [(document.source, document.split) for document in documents] == [
        ("a.txt", "train"), ("a.txt", "validation"), ("b.txt", "train"), ("b.txt", "validation"),
    ]  # fmt: skip


@pytest.mark.parametrize("blank", ["\n", "", '\n{"text": " "}\n'])
def test_a_single_record_among_blank_lines_gives_its_last_tenth(folder: Path, read, blank: str) -> None:
    (folder / "one.jsonl").write_text(json.dumps({"text": "word " * 200}) + "\n" + blank)
    assert [(document.split, len(document.text)) for document in read(folder)] == [("train", 900), ("validation", 100)]


def test_few_files_of_token_ids_hold_one_out(folder: Path, read) -> None:
    for number in range(5):
        (folder / f"{number}.txt").write_text(" ".join(str(100 * number + index) for index in range(50)))
    counts = Counter(document.split for document in read(f"token-ids:{folder}"))
    assert counts == {"validation": 1, "train": 4}


def test_the_only_file_of_token_ids_that_is_not_empty_gives_its_last_tenth(folder: Path, read) -> None:
    (folder / "a.txt").write_text(" ".join(map(str, range(50))))
    (folder / "b.txt").write_text("\n")
    assert [(document.split, document.token_ids) for document in read(f"token-ids:{folder}")] == [
        ("train", tuple(range(45))), ("validation", tuple(range(45, 50))),
    ]  # fmt: skip


@pytest.mark.parametrize("space", [" ", "\t", "\r", "\n", " \n", "\x0b"])
@pytest.mark.parametrize("slice_bytes", [1000, 1 << 23])
def test_token_ids_are_never_cut_inside_a_number(folder: Path, read, space: str, slice_bytes: int) -> None:
    ids = [10_000 + number for number in range(3000)]
    (folder / "ids.txt").write_text(space.join(map(str, ids)))
    documents = read(f"token-ids:{folder / 'ids.txt'}", slice_bytes=slice_bytes)
    assert [token for document in documents for token in document.token_ids] == ids
    held_out = sum(len(document.token_ids) for document in documents if document.split == "validation")
    assert held_out == pytest.approx(300, abs=2)


@pytest.mark.data
def test_the_real_folders(test_data: Path, read) -> None:
    plays = read(test_data / "tinyshakespeare")
    whole = (test_data / "tinyshakespeare" / "input.txt").read_bytes().decode()
    assert "".join(document.text for document in plays) == whole
    assert [document.split for document in plays] == ["train", "validation"]
    articles = read(test_data / "wikitext-2")
    assert Counter(document.split for document in articles)["test"] == 2
    assert {document.source for document in articles if document.split == "validation"} == {"wikitext-2/wiki.valid.tokens"}
    sections = Counter(document.split for document in read(test_data / "openstax"))
    assert sum(sections.values()) == 1378 and sections["validation"] > 30 and sections["test"] > 30
