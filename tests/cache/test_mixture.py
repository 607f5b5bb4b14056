"""Mixtures: shares that hold in every stretch, caps, joins; all of it a pure function."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.cache.mixture import MixedOrder, Part, Piece, floor_sum
from llm_training.cache.order import Join, ShuffleShape
from llm_training.errors import DataError

SHAPE = ShuffleShape(4, 3)
PIECES = [Piece(0, 50), Piece(1, 30), Piece(2, 70), Piece(0, 40), Piece(2, 10), Piece(1, 25)]
PARTS = [Part(2, 3), Part(1), Part(0.5, 1.5)]
JOINS = (Join(90, 200), Join(120, 225))
SOURCE_OF_ROW = np.repeat([piece.part for piece in PIECES], [piece.num_rows for piece in PIECES])


def mixed(parts=PARTS, pieces=PIECES, num_rows=150, joins=JOINS, seed=1, **options):
    return MixedOrder(seed=seed, parts=parts, pieces=pieces, num_rows=num_rows, joins=joins, shape=SHAPE, **options)


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 900), st.integers(0, 900))
def test_the_sum_of_floors(n, modulus, step, offset):
    assert floor_sum(n, modulus, step, offset) == sum((step * j + offset) // modulus for j in range(n))


def test_any_piece_of_the_order_is_the_same_however_it_is_asked_for():
    order = mixed()
    whole = order.rows(0, 3000)
    parts = [mixed().rows(start, min(start + 37, 3000)) for start in range(0, 3000, 37)]
    assert np.array_equal(whole, np.concatenate(parts))
    sources = SOURCE_OF_ROW[whole]
    for sample in (0, 1, 10, 89, 90, 91, 120, 403, 404, 405, 590, 591, 3000):
        assert order.counts(sample) == tuple(np.bincount(sources[:sample], minlength=3)), sample


def test_the_seed_decides_and_weights_count_by_their_ratio():
    assert not np.array_equal(mixed(seed=1).rows(0, 100), mixed(seed=2).rows(0, 100))
    doubled = [Part(2 * part.weight, part.max_epochs) for part in PARTS]
    assert np.array_equal(mixed().rows(0, 500), mixed(parts=doubled).rows(0, 500))


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.09, 0.01), (1, 1), (5, 3, 2), (0.999, 0.001)])
def test_shares_hold_in_every_window(weights):
    """Of any n samples in a row a source has its share, give or take five; a random draw would be off by hundreds."""
    num_samples = 100_000
    parts, pieces = [Part(weight) for weight in weights], [Piece(number, 1000) for number in range(len(weights))]
    shape = ShuffleShape(100, 64)
    order = MixedOrder(seed=3, parts=parts, pieces=pieces, num_rows=1000 * len(weights), shape=shape)
    sources = order.rows(0, num_samples) // 1000
    for number, weight in enumerate(weights):
        drift = np.cumsum(sources == number) - weight / sum(weights) * np.arange(1, num_samples + 1)
        assert drift.max() - drift.min() <= 5


def test_a_source_takes_each_row_once_an_epoch_and_leaves_at_its_cap():
    order = mixed(joins=(), num_rows=225)
    rows = order.rows(0, 2000)
    times = Counter(rows.tolist())
    for part, most in ((0, 3), (2, 2)):
        own = [times[row] for row in np.flatnonzero(part == SOURCE_OF_ROW)]
        assert max(own) == most
        assert min(own) >= most - 1
    assert sum(times[row] for row in np.flatnonzero(SOURCE_OF_ROW == 0)) == 3 * 90
    assert sum(times[row] for row in np.flatnonzero(SOURCE_OF_ROW == 2)) == 120
    for part in range(3):
        own = rows[SOURCE_OF_ROW[rows] == part]
        size = (part == SOURCE_OF_ROW).sum()
        for start in range(0, len(own) - size, size):
            assert len(set(own[start : start + size])) == size
    assert order.epochs(2000)[0] == 3.0
    left = np.flatnonzero(SOURCE_OF_ROW[rows] == 0).max()
    assert np.bincount(SOURCE_OF_ROW[rows[left - 70 : left]], minlength=3) == pytest.approx([40, 20, 10], abs=5), "2 : 1 : 0.5"
    assert np.bincount(SOURCE_OF_ROW[rows[left + 1 : left + 61]], minlength=3) == pytest.approx([0, 40, 20], abs=5), "then 1 : 0.5"
    last = np.flatnonzero(SOURCE_OF_ROW[rows] == 2).max()
    assert set(SOURCE_OF_ROW[rows[last + 1 :]]) == {1}, "the one without a cap goes on"


def test_when_all_have_left_the_run_is_over():
    order = mixed(parts=[Part(1, 1), Part(1, 2), Part(1, 0.5)], joins=(), num_rows=225)
    assert order.num_samples == 90 + 2 * 55 + 40
    rows = order.rows(0, order.num_samples)
    assert np.bincount(SOURCE_OF_ROW[rows]).tolist() == [90, 110, 40]
    with pytest.raises(DataError, match="every source has run through its epochs after 240 samples"):
        order.rows(200, 241)


def test_stretches_to_read_ahead_cover_the_run_and_end_with_it():
    order = mixed(parts=[Part(1, 1), Part(1, 2), Part(1, 0.5)], joins=(), num_rows=225)
    sample = 0
    while sample < 240:
        first, last = order.window(sample)
        assert first == sample < last <= 240
        assert order.window(last - 1) == (first, last)
        sample = last
    assert len(order.rows(*order.window(240))) == 0, "reading ahead never asks beyond the end"
    assert mixed().window(10**6)[1] > 10**6


def test_a_join_changes_nothing_before_it_and_takes_new_rows_in():
    before, after = mixed(joins=()), mixed(joins=[Join(90, 225)])
    assert np.array_equal(before.rows(0, 90), after.rows(0, 90))
    own = after.rows(0, 1000)
    own = own[SOURCE_OF_ROW[own] == 2]
    assert len(set(own[:80].tolist())) == 80, "the source's open epoch takes unseen and new rows, each once"
    assert len(own) == 120, "its cap of one and a half epochs follows its rows"


def test_a_source_without_rows_waits_for_a_join():
    order = mixed(num_rows=50, joins=[Join(40, 225)])
    rows = order.rows(0, 400)
    assert set(SOURCE_OF_ROW[rows[:40]]) == {0}
    assert {1, 2} <= set(SOURCE_OF_ROW[rows[40:60]])


def test_the_epochs_of_the_run_count_samples():
    order = mixed(joins=(), num_rows=225, fraction=0.8)
    assert order.position(180).epoch == 1
    assert (order.position(100).offset, order.position(100).num_samples) == (100, 180)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0.01, 100), st.one_of(st.none(), st.floats(0.1, 3))), min_size=1, max_size=5), st.integers(0, 10**6))
def test_no_row_is_seen_more_often_than_its_cap_allows(given_parts, seed):
    parts = [Part(round(weight, 3), None if cap is None else round(cap, 2)) for weight, cap in given_parts]
    pieces = [Piece(number % len(parts), 5 + 3 * number) for number in range(3 * len(parts))]
    source_of_row = np.repeat([piece.part for piece in pieces], [piece.num_rows for piece in pieces])
    order = mixed(parts=parts, pieces=pieces, num_rows=len(source_of_row), joins=(), seed=seed)
    rows = order.rows(0, min(1500, order.num_samples or 1500))
    times = np.bincount(rows, minlength=len(source_of_row))
    for number, part in enumerate(parts):
        if part.max_epochs is not None:
            own = times[source_of_row == number]
            assert own.max() <= np.ceil(part.max_epochs)
            assert own.sum() <= round(part.max_epochs * len(own), 6)  # in binary 2.05 times 60 is a little less than 123


def test_windows_tile_the_samples_and_end_with_them():
    order = mixed(joins=(), num_rows=225)
    sample, windows = 0, []
    while sample < 2_000 and (order.num_samples is None or sample < order.num_samples):
        windows.append(order.window(sample))
        sample = windows[-1][1]
    assert [first for first, _ in windows] == [0, *(last for _, last in windows[:-1])]
    assert all(first < last and order.window(last - 1) == (first, last) for first, last in windows)
    capped = mixed(parts=[Part(1.0, 1.0)] * 3, joins=(), num_rows=225)
    assert capped.num_samples is not None
    assert capped.window(capped.num_samples) == (capped.num_samples, capped.num_samples)
