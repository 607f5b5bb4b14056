import numpy as np
import pytest

from llm_training.monitoring import curves
from llm_training.monitoring.series import Evaluation, RunSeries


def make_run(count=100, *, name="a", tokens_per_step=512.0, evaluations=(), loss=None):
    step = np.arange(1, count + 1, dtype=float)
    return RunSeries(
        name=name,
        total_steps=count,
        step=step,
        loss_nats=2 + 6 / step if loss is None else loss,
        learning_rate=np.full(count, 1e-3),
        tokens_per_second=np.full(count, 1e4),
        memory_gb=np.zeros(count),
        elapsed_seconds=step,
        cumulative_tokens=step * tokens_per_step,
        evaluations=evaluations,
    )


def evaluation(step, loss, bits):
    return Evaluation(step=step, loss_nats=loss, bits_per_byte=bits, perplexity=float(np.exp(loss)))


def test_a_centred_mean_keeps_a_straight_line_and_does_not_lag():
    line = np.arange(100.0)
    np.testing.assert_allclose(curves.smooth(line, 10)[10:-10], line[10:-10])
    assert len(curves.smooth(line[:1], 5)) == 1


def test_smoothing_passes_over_what_is_missing():
    values = np.array([1.0, np.nan, 1.0, np.nan, np.nan, np.nan, np.nan, 1.0])
    smoothed = curves.smooth(values, 1)
    assert smoothed[1] == 1.0
    assert np.isnan(smoothed[4])


def test_thinning_keeps_every_spike():
    x, y = np.arange(100_000.0), np.zeros(100_000)
    y[[77, 50_001]] = 9.0, -9.0
    y[200:300] = np.nan
    kept_x, kept_y = curves.thin(x, y, 1_000)
    assert len(kept_x) <= 1_000 and np.all(np.diff(kept_x) > 0)
    assert {77.0, 50_001.0} <= set(kept_x)
    assert np.nanmax(kept_y) == 9 and np.nanmin(kept_y) == -9


def test_limits_leave_out_the_first_fall():
    low, high = curves.loss_limits([make_run(1_000)]) or (0, 0)
    assert low < 2.01 and 2.1 < high < 4
    assert curves.loss_limits([make_run(loss=np.full(100, np.nan))]) is None


def test_tokens_and_steps_are_inverse_beyond_the_record_too():
    run = make_run()
    steps = np.array([-5.0, 0.0, 3.0, 50.5, 100.0, 120.0])
    np.testing.assert_allclose(curves.tokens_at(run, steps), steps * 512)
    np.testing.assert_allclose(curves.steps_at(run, curves.tokens_at(run, steps)), steps)


def test_steps_of_unequal_size_are_noticed():
    assert curves.differ_in_step_size([make_run(), make_run(tokens_per_step=1024)])
    assert not curves.differ_in_step_size([make_run(), make_run(50)])


def test_bits_per_nat_is_a_constant_of_the_text():
    run = make_run(evaluations=(evaluation(1, 2.0, 1.0), evaluation(2, 1.0, 0.5)))
    assert curves.bits_per_nat(run) == pytest.approx(0.5)
    changed = make_run(evaluations=(evaluation(1, 2.0, 1.0), evaluation(2, 1.0, 0.7)))
    assert curves.bits_per_nat(changed) is None
    assert curves.bits_per_nat(make_run()) is None


def test_captions():
    run = make_run(evaluations=(evaluation(100, 2.0, 1.0),))
    assert curves.caption(run) == (
        "100 steps  ·  51,200 tokens  ·  1 min 40 s  ·  training loss 2.060"
        "  ·  validation loss 2.000  ·  perplexity 7.39  ·  1.000 bits per byte"
    )
    assert "not finite" in curves.caption(make_run(loss=np.full(100, np.nan)))
    assert curves.result(run) == "1.000 bits per byte"
    assert curves.result(make_run()) == ""
    assert curves.distinct_names([make_run(), make_run(), make_run(name="b")]) == ["a (1)", "a (2)", "b"]
