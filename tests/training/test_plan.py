"""Golden step arithmetic, and the progress of a plan with joins."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.training.plan import (
    Join,
    TrainingPlan,
    default_interval,
    epoch_sequences,
    is_due,
    micro_batches_for,
    steps_after_join,
    steps_for_epochs,
    steps_for_time,
    warmup_for_ratio,
)


def make_plan(**changes: object) -> TrainingPlan:
    values: dict[str, object] = {
        "total_steps": 1000,
        "first_total_steps": 1000,
        "warmup_steps": 20,
        "effective_batch": 72,
        "sequence_length": 512,
        "sequences": 352_217,
        "first_sequences": 352_217,
        "epochs": 5.0,
        "epoch_fraction": 0.8,
        "decay_start": 0.4,
        "horizon_steps": None,
        "logging_steps": 10,
        "eval_steps": 100,
        "save_steps": 100,
    }
    return TrainingPlan(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("sequences", "steps"), [(352_217, 19_567), (472_240, 26_235), (2_500_000, 138_888)])
def test_golden_steps(sequences: int, steps: int) -> None:
    assert steps_for_epochs(sequences, 5, 0.8, 72) == steps


def test_golden_smart_warmup() -> None:
    assert warmup_for_ratio(0.025, 138_888) == 3_472


def test_golden_target_tokens() -> None:
    # 472,240 sequences x 4 (5 epochs of 0.8) x 512 tokens, as the run log of the reference writes it.
    assert 472_240 * 4 * 512 == 967_147_520
    assert make_plan(total_steps=472_240 * 4, effective_batch=1).target_tokens == 967_147_520


def test_growth_before_any_epoch_closed_equals_a_fresh_plan() -> None:
    assert steps_after_join(0, 5, 472_240, 0.8, 72) == 26_235


def test_growth_keeps_what_closed_epochs_took() -> None:
    closed = 2 * epoch_sequences(352_217, 0.8)
    assert steps_after_join(closed, 3, 472_240, 0.8, 72) == (closed * 10 + 3 * 8 * 472_240) // 720


@pytest.mark.parametrize(("fraction", "rows", "expected"), [(0.29, 100, 29), (0.1, 30, 3), (0.7, 10, 7), (1.0, 5, 5)])
def test_fractions_are_the_decimals_written(fraction: float, rows: int, expected: int) -> None:
    assert epoch_sequences(rows, fraction) == expected


def test_progress_without_joins_is_the_share_of_steps() -> None:
    plan = make_plan()
    assert [plan.progress(step) for step in (0, 250, 1000, 2000)] == [0.0, 0.25, 1.0, 1.0]


def test_progress_follows_the_documented_formula_after_a_join() -> None:
    plan = make_plan().joined(Join(step=200, total_steps=1800, sequences=400_000, reason="growth"))
    assert plan.progress(200) == pytest.approx(0.2)
    assert plan.progress(1000) == pytest.approx(0.2 + 0.8 * 800 / 1600)
    assert plan.progress(1800) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 3000)), max_size=6))
def test_progress_is_continuous_and_rising_through_any_joins(parts: list[tuple[int, int]]) -> None:
    plan, step = make_plan(), 0
    for gap, more in parts:
        step = min(step + gap, plan.total_steps - 1)
        before = plan.progress(step)
        plan = plan.joined(Join(step=step, total_steps=step + more, sequences=1, reason="growth"))
        assert plan.progress(step) == pytest.approx(before, rel=1e-12)
    seen = [plan.progress(step) for step in range(plan.total_steps + 1)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(seen))
    assert seen[-1] == pytest.approx(1.0)


def test_plan_survives_json() -> None:
    plan = make_plan().joined(Join(step=3, total_steps=9, sequences=7, reason="time"))
    assert TrainingPlan.from_json(plan.as_json()) == plan


def test_due_at_multiples_and_at_the_end() -> None:
    assert [step for step in range(12) if is_due(step, 4, 11)] == [4, 8, 11]


@given(st.integers(1, 64), st.integers(1, 70))
def test_micro_batches_cover_a_ranks_share_once(share: int, micro: int) -> None:
    bounds = micro_batches_for(share, micro)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(share))


def test_steps_for_time_leaves_at_least_one_step() -> None:
    assert steps_for_time(10, 60.0, 0.5) == 130
    assert steps_for_time(10, -5.0, 0.5) == 11


@pytest.mark.parametrize(("total", "parts", "expected"), [(1234, 10, 120), (7, 10, 1), (99_999, 10, 9900)])
def test_default_intervals_read_well(total: int, parts: int, expected: int) -> None:
    assert default_interval(total, parts) == expected
