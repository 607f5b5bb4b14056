import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.cache.packing import STRATEGIES, measure, pack
from llm_training.errors import ConfigError

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def rows_of(plan):
    for row in range(plan.num_rows):
        part = slice(plan.row_offsets[row], plan.row_offsets[row + 1])
        yield list(zip(plan.documents[part].tolist(), plan.starts[part].tolist(), plan.lengths[part].tolist(), strict=True))


def reference_best_fit(lengths, capacity):
    rooms, placed = [], []
    for length in lengths:
        fitting = [(room, -row) for row, room in enumerate(rooms) if room >= length]
        if fitting:
            row = -min(fitting)[1]
        else:
            row = len(rooms)
            rooms.append(capacity)
        rooms[row] -= length
        placed.append(row)
    return sorted(rooms)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 24), st.sampled_from(sorted(STRATEGIES)))
def test_every_token_is_placed_exactly_once(lengths, sequence_length, strategy):
    offsets = offsets_of(lengths)
    plan = pack(offsets, sequence_length, strategy)
    covered = np.zeros(offsets[-1], dtype=int)
    for pieces in rows_of(plan):
        assert 1 <= sum(length for _, _, length in pieces) <= sequence_length
        for document, start, length in pieces:
            assert offsets[document] <= start < start + length <= offsets[document + 1]
            covered[start : start + length] += 1
    if strategy == "none":
        expected = np.concatenate([np.arange(length) < sequence_length for length in lengths] or [np.zeros(0)])
        assert covered.tolist() == expected.astype(int).tolist()
    else:
        assert (covered == 1).all()


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 24), st.sampled_from(sorted(STRATEGIES)))
def test_a_piece_that_stops_inside_its_document_is_the_last_of_its_row(lengths, sequence_length, strategy):
    offsets = offsets_of(lengths)
    for pieces in rows_of(pack(offsets, sequence_length, strategy)):
        for document, start, length in pieces[:-1]:
            assert start + length == offsets[document + 1]
        assert [start for _, start, _ in pieces] == sorted(start for _, start, _ in pieces)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 24), st.sampled_from(["best_fit", "first_fit"]))
def test_fitting_strategies_never_cut_a_document_that_fits(lengths, sequence_length, strategy):
    offsets = offsets_of(lengths)
    plan = pack(offsets, sequence_length, strategy)
    for pieces in rows_of(plan):
        for document, _, length in pieces:
            assert length == lengths[document] or lengths[document] > sequence_length
    stats = measure(plan, offsets)
    assert stats.num_cut_documents == sum(length > sequence_length for length in lengths)
    assert stats.num_dropped_tokens == 0


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=50))
def test_best_fit_leaves_the_rooms_of_a_plain_reference(lengths):
    plan = pack(offsets_of(lengths), 12, "best_fit")
    rooms = sorted(12 - sum(length for _, _, length in pieces) for pieces in rows_of(plan))
    assert rooms == reference_best_fit(sorted(lengths, reverse=True), 12)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=50))
def test_first_fit_is_first_fit(lengths):
    rooms, rows = [], []
    for document, length in enumerate(lengths):
        row = next((row for row, room in enumerate(rooms) if room >= length), len(rooms))
        if row == len(rooms):
            rooms.append(12)
            rows.append([])
        rooms[row] -= length
        rows[row].append(document)
    plan = pack(offsets_of(lengths), 12, "first_fit")
    assert [[document for document, _, _ in pieces] for pieces in rows_of(plan)] == rows


def test_greedy_pads_only_the_last_row():
    plan = pack(offsets_of([5, 9, 4]), 4, "greedy")
    assert [sum(length for _, _, length in pieces) for pieces in rows_of(plan)] == [4, 4, 4, 4, 2]
    stats = measure(plan, offsets_of([5, 9, 4]))
    assert (stats.num_padding_tokens, stats.num_cut_documents) == (2, 3)
    assert stats.padding_fraction == 0.1
    assert stats.cut_fraction == 1.0


def test_none_reports_what_it_drops():
    stats = measure(pack(offsets_of([5, 9, 4]), 6, "none"), offsets_of([5, 9, 4]))
    assert (stats.num_rows, stats.num_dropped_tokens, stats.num_padding_tokens, stats.num_cut_documents) == (3, 3, 3, 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_packs_into_nothing(strategy):
    plan = pack(np.zeros(1, dtype=np.int64), 8, strategy)
    stats = measure(plan, np.zeros(1, dtype=np.int64))
    assert (plan.num_rows, stats.padding_fraction, stats.cut_fraction) == (0, 0.0, 0.0)


def test_bad_settings_are_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="unknown packing strategy 'worst_fit'; choose one of best_fit, first_fit, greedy, none"):
        pack(np.zeros(1, dtype=np.int64), 8, "worst_fit")
    with pytest.raises(ConfigError, match="sequence length 0 is below 1"):
        pack(np.zeros(1, dtype=np.int64), 0, "greedy")


def test_golden_plan():
    plan = pack(offsets_of([3, 10, 2, 1, 7, 4]), 8, "best_fit")
    assert list(rows_of(plan)) == [[(0, 0, 3), (3, 15, 1), (5, 23, 4)], [(1, 3, 8)], [(1, 11, 2), (2, 13, 2)], [(4, 16, 7)]]
