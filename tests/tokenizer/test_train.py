"""Training: determinism, sampling, and what is refused."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import time

import pytest

from llm_training.errors import ConfigError, DataError
from llm_training.tokenizer import Tokenizer, load_tokenizer, measure_tokenizer, train_tokenizer
from llm_training.tokenizer.long_words import MAX_TRAINING_WORD_CHARACTERS, cut_for_training
from llm_training.tokenizer.report import MAX_SOURCES, OTHER_SOURCES
from llm_training.tokenizer.train import PATTERNS, QWEN2_PATTERN, sample_pieces

_FINGERPRINT_SCRIPT = """
import sys
from llm_training.tokenizer import train_tokenizer
texts = [open(name, encoding="utf-8").read() for name in sys.argv[1:]]
print(train_tokenizer(texts, 500).fingerprint)
"""


def test_ids_are_bytes_then_merges_then_the_separator(trained: Tokenizer) -> None:
    assert trained.vocab_size == 600
    assert trained.separator_id == 599
    assert trained.encode("\x00") == [0]
    assert trained.decode([65]) == "A"
    assert trained.definition.text.count("\\\\p{L}") >= QWEN2_PATTERN.count(r"\p{L}")


@pytest.mark.slow
def test_training_is_the_same_in_other_processes_and_thread_counts(tmp_path, source_texts: list[str]) -> None:
    paths = []
    for number, text in enumerate(source_texts):
        path = tmp_path / f"{number}.txt"
        path.write_text(text)
        paths.append(str(path))
    found = set()
    for threads, seed, names in (("1", "0", paths), ("2", "7", paths), ("2", "9", paths[::-1])):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, "-c", _FINGERPRINT_SCRIPT, *names]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


def test_special_text_in_training_text_is_not_learnt_as_control() -> None:
    tokenizer = train_tokenizer(["<|endoftext|> and more <|endoftext|>\n"] * 50, 280, allow_smaller=True)
    ids = tokenizer.encode("<|endoftext|>")
    assert tokenizer.separator_id not in ids and tokenizer.decode(ids) == "<|endoftext|>"


@pytest.mark.parametrize("size", [-1, 0, 256, 1_048_577, 10**9])
def test_sizes_out_of_range_name_the_range(size: int) -> None:
    with pytest.raises(ConfigError, match=r"the range is 257 \(256 bytes and the separator\) to 1,048,576"):
        train_tokenizer(["text"], size)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        train_tokenizer(texts, 300)


@pytest.mark.parametrize("text", ["hello world hello world", "a" * 5000, "é"])
def test_too_little_text_names_the_achievable_size(text: str) -> None:
    with pytest.raises(DataError, match=r"too small for a tokenizer of 5,000 entries: (\d+) can be made of it") as caught:
        train_tokenizer([text], 5000)
    achievable = int(caught.value.remedy.split("to ")[1].split(" ")[0])
    assert train_tokenizer([text], achievable).vocab_size == achievable
    assert train_tokenizer([text], 5000, allow_smaller=True).vocab_size == achievable


def test_the_smallest_tokenizer_is_bytes_and_separator() -> None:
    tokenizer = train_tokenizer(["any text"], 257)
    assert tokenizer.encode("é!") == [0xC3, 0xA9, 0x21] and tokenizer.separator_id == 256


def test_sample_is_bounded_and_does_not_depend_on_order() -> None:
    texts = [f"document {number} " + "word " * (number % 50) + "\n" for number in range(3000)]
    sample = sample_pieces(texts, 50_000)
    assert 20_000 < sum(len(piece) for piece in sample) <= 50_000
    assert set(sample) == set(sample_pieces(reversed(texts), 50_000))
    assert sample_pieces(texts, 10**9) == texts


def test_a_long_text_is_sampled_in_pieces_at_line_breaks() -> None:
    text = "".join(f"line {number} of one long book\n" for number in range(20_000))
    pieces = sample_pieces([text], 10**9)
    assert "".join(pieces) == text and len(pieces) > 20 and all(piece.endswith("\n") for piece in pieces)


def test_long_words_are_cut_before_training() -> None:
    text = "ab " + "x" * 1000 + " cd"
    pieces = list(cut_for_training(text))
    assert "".join(pieces) == text
    assert max(len(word) for piece in pieces for word in piece.split()) <= MAX_TRAINING_WORD_CHARACTERS


def test_progress_counts_bytes(source_texts: list[str]) -> None:
    seen: list[float] = []
    train_tokenizer(source_texts, 300, progress=lambda done, _total: seen.append(done))
    assert seen == sorted(seen) and seen[-1] == sum(len(text.encode()) for text in source_texts)


def test_report_counts_bytes_tokens_and_sources(trained: Tokenizer) -> None:
    report = measure_tokenizer(trained, [("a", "def f(): pass\n"), ("b", "é é"), ("a", "")], seconds=1.5)
    assert report.held_out.num_bytes == 14 + 5 and report.held_out.num_documents == 3 and report.held_out.num_words == 5
    assert report.by_source["a"].num_documents == 2
    assert report.held_out.num_tokens == len(trained.encode("def f(): pass\n")) + len(trained.encode("é é"))
    assert report.used_entries == len({*trained.encode("def f(): pass\n"), *trained.encode("é é")})
    assert report.facts()["Training"] == "1.5 s" and report.facts()["Entries"].startswith("600, ")
    assert [row[0] for row in report.rows()] == ["a", "b", "all"] and len(report.rows()[0]) == len(report.columns)
    plain = report.to_json()
    assert plain["vocab_size"] == 600 and plain["by_source"]["b"]["bytes_per_token"] == round(5 / len(trained.encode("é é")), 4)


def test_report_of_nothing_and_of_many_sources(trained: Tokenizer) -> None:
    empty = measure_tokenizer(trained, [])
    assert empty.rows() == [] and empty.used_entries == 0 and empty.facts()["Bytes per token"] == "0.000"
    many = measure_tokenizer(trained, [(f"s{number}", "word " * (number + 1)) for number in range(100)])
    assert len(many.by_source) == MAX_SOURCES + 1 and many.by_source[OTHER_SOURCES].num_documents == 60
    assert sum(part.num_bytes for part in many.by_source.values()) == many.held_out.num_bytes


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_trains_a_tokenizer_that_loads(pattern: str, source_texts: list[str], tmp_path) -> None:
    tokenizer = train_tokenizer(source_texts[:1], 400, pattern=pattern)
    text = "It's 2024: 12345 things\n\n  cost 7€ -- naïve…\r\n漢字"
    assert tokenizer.decode(tokenizer.encode(text)) == text and tokenizer.backend == "fastokens"
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    if pattern == "gpt2":  # its own two files give the same ids
        for name, content in tokenizer.vocab_files().items():
            (tmp_path / name).write_bytes(content)
        assert Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt").encode(text) == tokenizer.encode(text)


def test_patterns_cut_numbers_differently() -> None:
    texts = ["year 1984 1984 1984 1984\n" * 50]
    longest = {}
    for pattern in PATTERNS:
        tokenizer = train_tokenizer(texts, 300, allow_smaller=True, pattern=pattern)
        longest[pattern] = max(len(tokenizer.token_text(number).lstrip("Ġ")) for number in tokenizer.encode(" 1984"))
    assert longest == {"qwen2": 1, "llama3": 3, "gpt2": 4}
    with pytest.raises(ConfigError, match="the patterns are qwen2, llama3, gpt2"):
        train_tokenizer(texts, 300, pattern="word")


def test_a_word_too_long_to_learn_from_is_told() -> None:
    lines: list[str] = []
    train_tokenizer(["abc " * 100 + "x" * 1000], 260, allow_smaller=True, notify=lines.append)
    assert lines == ["3 stretches of text without white space are longer than 256 characters; the tokenizer learnt from their parts"]
    train_tokenizer(["abc " * 100], 260, allow_smaller=True, notify=lines.append)
    assert len(lines) == 1


@pytest.mark.slow
def test_training_on_one_word_of_fifty_megabytes_is_bounded() -> None:
    word = "".join(random.Random(2).choices("abcdefghij", k=1000)) * 50_000
    lines: list[str] = []
    start = time.perf_counter()
    assert train_tokenizer([word], 500, notify=lines.append).vocab_size == 500
    assert time.perf_counter() - start < 30 and len(lines) == 1


# Measured with the library's own trainer and GPT-2's way of cutting words: 1,024, 4,096 and 8,192 entries.
WIKITEXT, SHAKESPEARE = {1024: 2.610, 4096: 3.528, 8192: 3.961}, {1024: 2.331, 4096: 3.119, 8192: 3.386}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("size", WIKITEXT)
def test_bytes_per_token_are_those_of_the_reference(size: int, test_data) -> None:
    """With the same pattern, within 1 %. The default pattern cuts digits one by one and joins marks with line ends: other figures."""
    wikitext = gzip.decompress((test_data / "wikitext-2" / "wiki.train.tokens.gz").read_bytes()).decode()
    held_out = (test_data / "wikitext-2" / "wiki.valid.tokens").read_bytes().decode()
    plays = (test_data / "tinyshakespeare" / "input.txt").read_bytes().decode()
    for text, measured, published in ((wikitext, held_out, WIKITEXT), (plays, plays[int(len(plays) * 0.9) :], SHAKESPEARE)):
        report = measure_tokenizer(train_tokenizer([text], size, pattern="gpt2"), [("held out", measured)])
        assert report.held_out.bytes_per_token == pytest.approx(published[size], rel=0.01)
