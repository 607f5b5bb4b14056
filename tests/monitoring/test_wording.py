import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.monitoring import wording


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (15_780, "04:23h"),
        (263, "04:23m"),
        (0, "00:00m"),
        (-5, "00:00m"),
        (3_600, "01:00h"),
        (360_000, "100:00h"),
        (None, "--:--"),
        (math.nan, "--:--"),
        (math.inf, "--:--"),
    ],
)
def test_time_left_is_hours_and_minutes_or_minutes_and_seconds(seconds, text):
    assert wording.eta(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.314, "0.31 s"), (42.4, "42 s"), (298.2, "4 min 58 s"), (11_220, "3 h 07 min"), (-1, "0.00 s"), (math.nan, "--")],
)
def test_duration(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (82_300_000, "82.3 MB"), (1.5e9, "1.50 GB"), (999_999, "1.00 MB")],
)
def test_size_has_three_figures(num_bytes, text):
    assert wording.size(num_bytes) == text


@pytest.mark.parametrize(("number", "text"), [(770, "770"), (26_235, "26,235"), (967_147_520, "967 M"), (1_234_567, "1.23 M"), (0, "0")])
def test_count(number, text):
    assert wording.count(number) == text


def test_hours_and_figures():
    assert wording.hours(1.234) == "1.23h"
    assert wording.hours(None) == "--h"
    assert wording.hours(-0.1) == "0.00h"
    assert wording.figure(5.5831) == "5.583"
    assert wording.figure(math.nan) == "nan"
    assert wording.figure(None) == "--"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_duration_is_negative_or_raises(seconds):
    assert not wording.eta(seconds).startswith("-0")
    assert "-" not in wording.duration(seconds).replace("--", "")
