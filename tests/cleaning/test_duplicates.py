"""Repetitions: against comparing everything with everything, in parts and whole; contamination by given tests."""

from __future__ import annotations

import random
from collections.abc import Generator

import numpy as np
import pytest
import xxhash

from llm_training.cleaning.contamination import ContaminationIndex
from llm_training.cleaning.duplicates import NONE, exact_duplicates, near_duplicates
from llm_training.cleaning.outcome import TextView
from llm_training.cleaning.shingles import band_keys, content_key, jaccard, shingles

VOCABULARY = [f"word{number}" for number in range(3_000)]


class Rows:
    """Keys of texts, handed out in pieces."""

    def __init__(self, texts: list[str], piece: int = 7) -> None:
        self.sets = [shingles(text) for text in texts]
        content = np.array([content_key(text) for text in texts], dtype=np.uint64).T
        self._rows = np.concatenate([content, band_keys(self.sets)])
        self._piece = piece
        self.num_documents = len(texts)

    def pieces(self, row: int) -> Generator[np.ndarray]:
        for start in range(0, self.num_documents, self._piece):
            yield self._rows[row, start : start + self._piece]


def corpus(seed: int, clusters: int = 60) -> list[str]:
    """Texts with copies, copies in other white space, and edits of all degrees, shuffled."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(clusters):
        words = rng.choices(VOCABULARY, k=rng.randrange(60, 400))
        texts.append(" ".join(words))
        for kind in rng.choices(["same", "spaced", "edited", "none"], k=2):
            if kind == "same":
                texts.append(" ".join(words))
            elif kind == "spaced":
                texts.append("  ".join(words) + "\n")
            elif kind == "edited":
                edited = list(words)
                for place in rng.sample(range(len(edited)), k=max(1, int(len(edited) * rng.uniform(0.002, 0.04)))):
                    edited[place] = "changed"
                texts.append(" ".join(edited))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("in_memory", [10_000, 50, 9])
def test_copies_keep_exactly_one_member(in_memory: int) -> None:
    texts = corpus(1)
    order = np.array([number % 3 for number in range(len(texts))])
    original = exact_duplicates(Rows(texts), order, in_memory=in_memory)
    groups: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(" ".join(text.split()), []).append(number)
    for members in groups.values():
        first = min(members, key=lambda number: (order[number], number))
        assert [int(original[number]) for number in members] == [NONE if number == first else first for number in members]
    assert (original != NONE).any()


@pytest.mark.parametrize("seed", [2, 3])
def test_near_duplicates_are_those_of_comparing_all_pairs(seed: int) -> None:
    texts = corpus(seed)
    rows = Rows(texts)
    order = np.zeros(len(texts), dtype=np.int64)
    original = exact_duplicates(rows, order)
    found = near_duplicates(rows, order, original, rows.sets.__getitem__, 0.8)
    assert found == near_duplicates(rows, order, original, rows.sets.__getitem__, 0.8, in_memory=11), "in parts as whole"
    stays = [number for number in range(len(texts)) if original[number] == NONE and number not in found]
    for number, (other, similarity) in found.items():
        assert other in stays and similarity == jaccard(rows.sets[number], rows.sets[other]) >= 0.8
    left = [(a, b) for place, a in enumerate(stays) for b in stays[place + 1 :] if jaccard(rows.sets[a], rows.sets[b]) >= 0.8]
    assert left == [] and len(found) > 10


def test_the_version_with_most_copies_stays() -> None:
    words = VOCABULARY[:200]
    edited = " ".join([*words[:199], "changed"])
    texts = [edited, " ".join(words), "  ".join(words)]
    rows = Rows(texts)
    order = np.zeros(3, dtype=np.int64)
    original = exact_duplicates(rows, order)
    found = near_duplicates(rows, order, original, rows.sets.__getitem__, 0.8)
    assert original.tolist() == [NONE, NONE, 1] and set(found) == {0}
    order = np.array([0, 1, 1])
    assert set(near_duplicates(rows, order, original, rows.sets.__getitem__, 0.8)) == {1}, "a held-out document goes before copies"


def test_large_groups_do_not_cost_all_pairs() -> None:
    words = VOCABULARY[:300]
    texts = [" ".join([*words, f"number{number}"]) for number in range(800)]
    rows = Rows(texts)
    order = np.zeros(800, dtype=np.int64)
    assert len(near_duplicates(rows, order, exact_duplicates(rows, order), rows.sets.__getitem__, 0.8)) == 799


def test_short_and_empty_texts() -> None:
    assert len(shingles("")) == 0 and len(shingles("one two")) == 1
    rows = Rows(["one two", "one  two", "two one", "x"])
    order = np.zeros(4, dtype=np.int64)
    original = exact_duplicates(rows, order)
    assert original.tolist() == [NONE, 0, NONE, NONE]
    assert near_duplicates(rows, order, original, rows.sets.__getitem__, 0.8) == {}


def test_contamination_needs_thirteen_words_in_a_row() -> None:
    test = " ".join(VOCABULARY[:20])
    index = ContaminationIndex([test, "one two three", "What is the highest mountain of the whole world?"])
    assert (index.num_texts, index.num_too_short) == (2, 1)

    def reason(text: str) -> str | None:
        verdict = index.judge(TextView(text))
        return verdict and verdict.reason

    assert reason("before " + " ".join(VOCABULARY[3:16]) + " after") == "contaminated"
    assert reason("before " + " ".join(VOCABULARY[3:15]) + " after") is None
    assert reason('They asked: "What is the highest mountain - of the whole WORLD?"') == "contaminated"
    assert reason("What is the highest mountain of this world?") is None
    assert ContaminationIndex([]).judge(TextView(test)) is None


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 1 << 20])
def test_the_key_of_a_text_does_not_depend_on_its_parts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_training.cleaning.words.PART_CHARACTERS", at_once)
    rng = random.Random(at_once)
    for _ in range(300):
        text = "".join(rng.choices("ab é\u3000\n\t", k=rng.randrange(30)))
        high, low = content_key(text)
        assert high << 64 | low == xxhash.xxh3_128_intdigest(" ".join(text.split()))
