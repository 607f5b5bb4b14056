import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.monitoring.throughput import Throughput, mfu_fraction


def test_speed_is_tokens_over_measured_seconds_of_the_window():
    meter = Throughput(window_steps=2)
    meter.start(100.0)
    assert meter.step(1000, 101.0) == 1.0
    assert meter.tokens_per_second == 1000
    meter.step(1000, 101.5)
    meter.step(1000, 102.0)
    assert meter.tokens_per_second == 2000
    assert meter.seconds_per_step == 0.5


def test_the_first_step_carries_warm_up_and_is_forgotten():
    meter = Throughput()
    meter.start(0.0)
    meter.step(100, 50.0)  # compiling
    assert meter.tokens_per_second == 2
    meter.step(100, 51.0)
    assert meter.tokens_per_second == 100


def test_time_between_steps_is_no_step_time_but_is_waited_for():
    meter = Throughput()
    meter.start(0.0)
    meter.step(100, 1.0)
    meter.step(100, 2.0)
    meter.start(4.0)  # two seconds of evaluation
    meter.step(100, 5.0)
    assert meter.tokens_per_second == 100
    assert meter.eta_seconds(3, 6) == pytest.approx(3 * (1 + 2 / 3))


def test_unknown_before_the_first_step_and_zero_at_the_end():
    meter = Throughput()
    assert meter.tokens_per_second == 0.0
    assert meter.eta_seconds(0, 10) is None
    assert meter.step(100, 5.0) == 0.0  # never started: nothing to measure against
    assert meter.tokens_per_second == 0.0
    meter.step(100, 6.0)
    assert meter.eta_seconds(10, 10) == 0.0
    assert meter.eta_seconds(12, 10) == 0.0


def test_a_window_needs_a_step():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Throughput(0)


@given(st.lists(st.tuples(st.sampled_from(["start", "step"]), st.floats(-1e9, 1e9)), max_size=30))
def test_any_clock_gives_finite_and_never_negative_figures(readings):
    meter = Throughput(window_steps=3)
    for verb, now in readings:
        if verb == "start":
            meter.start(now)
        else:
            meter.step(512, now)
        eta = meter.eta_seconds(5, 9)
        assert math.isfinite(meter.tokens_per_second) and meter.tokens_per_second >= 0
        assert eta is None or eta >= 0


def test_mfu():
    assert mfu_fraction(1000, 6e9, 2e13) == pytest.approx(0.3)
    assert mfu_fraction(1000, 6e9, None) is None
    assert mfu_fraction(1000, 6e9, 0.0) is None
