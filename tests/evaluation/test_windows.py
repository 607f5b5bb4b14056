"""Every token is scored exactly once, in the context promised."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_training.evaluation.windows import IGNORED, Documents, batches, plan_windows, spread

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
