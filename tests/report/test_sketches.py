"""Summaries in bounded memory against the exact answers."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.report.sketches import Distribution, Frequent, Repeats, Reservoir


def distribution(values) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_quantiles_are_within_five_percent(values: list[int], fraction: float) -> None:
    found = distribution(values)
    exact = sorted(values)[max(1, int(np.ceil(fraction * len(values)))) - 1]
    assert abs(found.quantile(fraction) - exact) <= 0.05 * exact
    assert (found.count, found.least, found.greatest, found.total) == (len(values), min(values), max(values), sum(values))


def test_a_distribution_stays_small() -> None:
    generator = random.Random(1)
    found = distribution(10 ** generator.uniform(0, 12) for _ in range(20_000))
    assert len(found.bins) <= 330
    assert distribution([]).quantile(0.5) == 0 and distribution([]).mean == 0


def test_distance_is_that_of_the_cumulative_shares() -> None:
    one, other = distribution([1] * 50 + [100] * 50), distribution([1] * 80 + [100] * 20)
    assert one.distance(other) == pytest.approx(0.3) and one.distance(one) == 0
    assert one.distance(distribution([])) == 0 and distribution([0, 0]).distance(distribution([5])) == 1


def test_frequent_items_are_found_with_their_error() -> None:
    generator = random.Random(3)
    exact: Counter[int] = Counter()
    found: Frequent[int] = Frequent(200)
    for _ in range(60):
        batch = [int(generator.paretovariate(0.8)) for _ in range(1000)]
        exact.update(batch)
        found.update(batch)
        assert len(found._counts) <= 400
    assert 0 < found.error <= 60_000 / 200
    for key, count in exact.items():
        counted = found._counts[key]
        assert counted <= count <= counted + found.error
    assert [key for key, _ in found.top(10)] == [key for key, _ in exact.most_common(10)]


def test_few_items_are_counted_exactly() -> None:
    found: Frequent[str] = Frequent(10)
    found.update("abracadabra")
    assert found.top(2) == [("a", 5), ("b", 2)] and found.error == 0


def test_a_reservoir_is_even_and_repeatable() -> None:
    hits: Counter[int] = Counter()
    for seed in range(600):
        sample: Reservoir[int] = Reservoir(5, seed)
        for number in range(50):
            sample.add(number)
        hits.update(sample)
    assert len(hits) == 50 and min(hits.values()) >= 30 and max(hits.values()) <= 95
    again: Reservoir[int] = Reservoir(5, 7)
    other: Reservoir[int] = Reservoir(5, 7)
    for number in range(50):
        again.add(number)
        other.add(number)
    assert again.items == other.items and again.num_seen == 50
    empty: Reservoir[int] = Reservoir(0, 0)
    empty.add(1)
    assert empty.items == []


def test_repeats_and_leaks() -> None:
    repeats = Repeats()
    for exact, spaced, is_held_out in [(1, 10, False), (1, 10, False), (2, 10, False), (3, 30, False), (3, 30, True), (4, 40, True)]:
        repeats.add(exact, spaced, is_held_out=is_held_out)
    found = repeats.counts()
    assert (found.num_documents, found.num_unique, found.num_copies, found.num_spaced_copies) == (6, 3, 2, 1)
    assert (found.num_leaked, found.num_held_out) == (1, 2)
    assert found.by_size == {"once": 1, "twice": 2, "3 to 5 times": 3, "6 to 20 times": 0, "more than 20 times": 0}
    assert Repeats().counts().num_documents == 0
