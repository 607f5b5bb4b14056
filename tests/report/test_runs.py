"""Frequent runs of words against a plain count of all of them."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.report.runs import WordRuns, ngrams

SIZES = (1, 2, 3, 5)


def plain_counts(documents: list[list[str]], size: int) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for words in documents:
        found.update(ngrams(words, size))
    return found


def counted(documents: list[list[str]], **limits: int) -> WordRuns:
    runs = WordRuns(SIZES, **limits)
    for words in documents:
        runs.add(iter(words))
    return runs


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=40), max_size=12), st.sampled_from(SIZES))
def test_all_runs_have_their_counts(documents: list[list[str]], size: int) -> None:
    plain = plain_counts(documents, size)
    assert dict(counted(documents).top(size, 10_000)) == dict(plain)


def test_the_first_of_a_megabyte_are_those_of_a_plain_count() -> None:
    """So many different runs that a sketch of 20,000 counters would be hundreds too low."""
    generator = random.Random(5)
    words = [f"w{min(20_000, int(generator.paretovariate(0.7)))}" for _ in range(200_000)]
    documents = [words[start : start + 500] for start in range(0, len(words), 500)]
    runs = counted(documents)
    for size in SIZES:
        plain = plain_counts(documents, size)
        top = runs.top(size, 50)
        assert [count for _, count in top] == [count for _, count in plain.most_common(50)], size
        assert all(plain[run] == count for run, count in top)
        assert runs.error(size) == 0
    assert runs.is_exact


def test_of_equal_counts_the_first_come_first() -> None:
    runs = counted([["z", "y", "z", "y"], ["a", "b", "a", "b"], ["m"]])
    assert runs.top(1, 9) == [(("z",), 2), (("y",), 2), (("a",), 2), (("b",), 2), (("m",), 1)]
    assert runs.top(2, 2) == [(("z", "y"), 2), (("a", "b"), 2)]
    runs.add(["m"])
    assert runs.top(1, 9)[-1] == (("m",), 2), "what was ranked before is not shown again"


@pytest.mark.parametrize("limits", [{"max_words": 3000}, {"max_vocabulary_bytes": 60_000}], ids=str)
def test_beyond_the_bounds_a_sketch_goes_on_with_all_that_was_counted(limits: dict[str, int]) -> None:
    documents = [[f"n{number}", "a", "b", "c", "d", "e"] for number in range(1000)]
    runs = counted(documents, **limits)
    assert not runs.is_exact and runs.error(1) == 0
    for size in SIZES:
        assert runs.top(size, 1)[0][1] == plain_counts(documents, size).most_common(1)[0][1] == 1000
    assert counted(documents).is_exact


def test_a_sketch_says_by_how_much_it_may_be_too_low() -> None:
    documents = [[f"n{number}", *"abc", *(f"x{number}y{k}" for k in range(40))] for number in range(1500)]
    runs = counted(documents, max_words=1000)
    assert runs.error(3) > 0 and 1500 - runs.error(3) <= dict(runs.top(3, 1))["a", "b", "c"] <= 1500


@pytest.mark.parametrize("num_different", [1, 50, 1000])
def test_memory_is_at_most_fifty_bytes_a_word(num_different: int) -> None:
    generator = random.Random(1)
    vocabulary = [f"w{number}" for number in range(num_different)]
    tracemalloc.start()
    runs = WordRuns(SIZES)
    for _ in range(40):
        runs.add(generator.choices(vocabulary, k=10_000))
    for size in SIZES:
        runs.top(size, 100)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest < 50 * 400_000


def test_nothing_has_no_runs() -> None:
    assert counted([]).top(5, 3) == counted([[], ["one"]]).top(5, 3) == []
