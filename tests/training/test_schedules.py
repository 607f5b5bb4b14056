"""Schedules are pure functions of (step, plan), continuous at joins."""

from __future__ import annotations

import math

import pytest

from llm_training.training.plan import Join
from llm_training.training.schedules import SCHEDULES, rate
from tests.training.test_plan import make_plan


def test_cosine_is_the_textbook_formula() -> None:
    plan = make_plan(warmup_steps=100)
    for step in (100, 101, 550, 999):
        expected = 3e-4 * 0.5 * (1 + math.cos(math.pi * (step - 100) / 900))
        assert rate("cosine", step, plan, peak=3e-4, floor=0.0) == pytest.approx(expected, rel=1e-12)


def test_wsd_holds_then_falls_linearly_over_the_last_sixty_percent() -> None:
    plan = make_plan()
    values = [rate("wsd", step, plan, peak=1.0, floor=0.1) for step in (20, 400, 700, 1000)]
    assert values == pytest.approx([1.0, 1.0, 0.1 + 0.9 * 0.5, 0.1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_rises_from_the_first_update_to_the_peak(name: str) -> None:
    plan = make_plan(warmup_steps=4, total_steps=100_000, first_total_steps=100_000)
    values = [rate(name, step, plan, peak=1.0, floor=0.0) for step in range(5)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", [5, 200, 390, 600])
@pytest.mark.parametrize("total", [700, 4000])
def test_the_rate_is_continuous_at_a_join(name: str, step: int, total: int) -> None:
    plan = make_plan()
    joined = plan.joined(Join(step=step, total_steps=total, sequences=9, reason="growth"))
    before = rate(name, step, plan, peak=3e-4, floor=1e-5)
    assert rate(name, step, joined, peak=3e-4, floor=1e-5) == pytest.approx(before, rel=1e-12)


def test_a_horizon_shorter_than_the_run_ends_the_decay_there() -> None:
    plan = make_plan(horizon_steps=500)
    assert rate("linear", 500, plan, peak=1.0, floor=0.2) == pytest.approx(0.2)
    assert rate("linear", 900, plan, peak=1.0, floor=0.2) == pytest.approx(0.2)
