"""Every token is scored exactly once, in the context promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.evaluation.windows import IGNORED, Documents, batches, plan_windows, spread, spread_by_source

SEPARATOR = 9_999


def make_documents(lengths: list[int]) -> Documents:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Documents(np.arange(offsets[-1], dtype=np.int64), offsets)


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 12), st.data())
def test_each_token_is_scored_once_with_the_right_input_before_it(lengths: list[int], window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    documents = make_documents(lengths)
    windows = plan_windows(documents.lengths, window=window, stride=stride)
    scored: list[int] = []
    starts = set(documents.offsets[:-1].tolist())
    for inputs, labels in batches(documents, windows, separator_id=SEPARATOR, batch_size=3):
        assert inputs.shape[1] <= window
        for row_inputs, row_labels in zip(inputs, labels, strict=True):
            for position in np.flatnonzero(row_labels != IGNORED):
                token = int(row_labels[position])
                expected = SEPARATOR if token in starts else token - 1
                assert row_inputs[position] == expected
                scored.append(token)
    assert sorted(scored) == list(range(documents.num_tokens))


def test_later_windows_have_at_least_window_minus_stride_context() -> None:
    windows = plan_windows(np.array([10]), window=4, stride=2)
    assert windows.num_scored.tolist() == [4, 2, 2, 2]
    assert windows.start.tolist() == [0, 2, 4, 6]


def test_spread_takes_evenly_and_all_when_there_is_little() -> None:
    windows = plan_windows(np.array([100, 100]), window=10, stride=10)
    assert len(spread(windows, 50)) == 5
    assert len(spread(windows, 10_000)) == len(windows) == 20
    assert spread(windows, 50).document.tolist() == [0, 0, 0, 1, 1]


def test_each_source_is_scored_in_proportion_and_by_one_window_at_least() -> None:
    lengths = np.array([400, 400, 400, 5, 400], dtype=np.int64)
    sources = np.array([0, 0, 2, 1, 0])
    windows = plan_windows(lengths, window=20, stride=20)
    assert np.array_equal(spread_by_source(windows, sources, None).num_scored.sum(), windows.num_scored.sum())
    chosen = spread_by_source(windows, sources, 400)
    scored = np.bincount(sources[chosen.document], weights=chosen.num_scored)
    assert scored == pytest.approx([300, 5, 100], abs=20)
    assert len(spread_by_source(windows.take(np.zeros(0, dtype=np.int64)), sources, 10)) == 0
