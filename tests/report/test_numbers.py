"""Numbers as readers see them."""

from __future__ import annotations

import pytest

from llm_training.report import numbers


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (7, "7"), (947, "947"), (999.6, "1k"), (1000, "1k"), (12_345, "12.3k"), (4_270_000, "4.27M"), (2.5, "2.5"), (1e13, "10T")],
)
def test_short(value: float, expected: str) -> None:
    assert numbers.short(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(12, "12 B"), (20_900_000, "20.9 MB"), (1_000, "1 kB"), (3e12, "3 TB")])
def test_size(value: float, expected: str) -> None:
    assert numbers.size(value) == expected


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 100_000, "<0.01 %"),
        (99_999, 100_000, ">99.9 %"),
        (1, 8, "12.5 %"),
        (1, 0, "0 %"),
        (1, 3, "33.3 %"),
    ],
)
def test_share(part: float, whole: float, expected: str) -> None:
    assert numbers.share(part, whole) == expected


@pytest.mark.parametrize("highest", [0.02, 1, 3, 7, 9.99, 10, 48, 1234, 7e9])
def test_steps_of_an_axis_are_few_and_inside(highest: float) -> None:
    steps = numbers.round_steps(highest, 3)
    assert 1 <= len(steps) <= 3 and steps[0] > 0 and steps[-1] <= highest * (1 + 1e-9)
    assert numbers.round_steps(0) == []


@pytest.mark.parametrize(("low", "high"), [(1, 10), (3, 40), (1, 1e12), (0.5, 6), (200, 220)])
def test_decades_lie_within(low: float, high: float) -> None:
    found = numbers.decades(low, high)
    assert len(found) <= 7 and all(low <= value <= high for value in found)
    assert numbers.decades(1, 1000) == [1, 3, 10, 30, 100, 300, 1000]


def test_words_for_counts() -> None:
    assert numbers.plural(1, "document") == "1 document" and numbers.plural(2000, "document") == "2,000 documents"
    assert numbers.counted(84_312) == "84,312" and numbers.counted(4_270_000) == "4.27M"
