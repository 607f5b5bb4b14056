"""Guard, stopping, pacing, decisions and state: small parts with exact answers."""

from __future__ import annotations

import math

import pytest

from llm_training.errors import NumericError
from llm_training.training.decisions import Decisions
from llm_training.training.guard import Guard, LossScale
from llm_training.training.pacing import Pacer
from llm_training.training.state import TrainState
from llm_training.training.stopping import Clock, Stopping
from tests.training.test_plan import make_plan


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_guard_stops_after_the_limit_in_a_row_and_not_before() -> None:
    guard = Guard(limit=3)
    for step, bad in enumerate([True, True, False, True, True]):
        guard.account(step=step, is_skipped=bad)
    with pytest.raises(NumericError, match="3 steps in a row") as caught:
        guard.account(step=5, is_skipped=True)
    assert caught.value.exit_code == 6
    assert guard.total == 5


def test_loss_scale_halves_and_doubles_only_in_fp16() -> None:
    scale = LossScale.for_precision("fp16")
    scale.overflowed()
    assert scale.value == 32_768.0
    for _ in range(2_000):
        scale.succeeded()
    assert scale.value == 65_536.0
    inert = LossScale.for_precision("bf16")
    inert.overflowed()
    assert inert.value == 1.0


def stopping(now: FakeClock, **changes: float) -> Stopping:
    return Stopping(Clock(now, used_before=changes.get("used", 0.0)), limit_seconds=60.0, asked_to_stop=lambda: None)


def test_the_hard_limit_keeps_a_reserve_for_the_save() -> None:
    now = FakeClock()
    stop = stopping(now)
    stop.saw_step(2.0)
    stop.saw_save(4.0)
    now.seconds += 51.0
    assert stop.reason(5, 10) is None
    now.seconds += 1.5
    assert stop.reason(5, 10) == "time-limit"


def test_time_used_by_earlier_sessions_counts() -> None:
    assert stopping(FakeClock(), used=59.5).reason(1, 10) == "time-limit"


def test_a_finished_run_is_finished_even_when_out_of_time() -> None:
    assert stopping(FakeClock(), used=1e9).reason(10, 10) == "finished"


def test_a_clock_that_runs_backwards_never_gives_negative_time() -> None:
    now = FakeClock()
    clock = Clock(now, used_before=5.0)
    now.seconds -= 3600.0
    assert clock.elapsed_seconds() == 5.0


def test_pacer_plans_from_the_measured_speed_and_corrects_drift() -> None:
    pacer = Pacer(deadline_seconds=100.0)
    pacer.saw_step(9.0)  # start-up
    pacer.saw_step(5.0)
    for _ in range(12):
        pacer.saw_step(0.5)
    total = pacer.propose(14, 1000, 20.0, is_first_plan=True)
    assert total == 14 + 160
    for _ in range(64):
        pacer.saw_step(1.0)
    assert pacer.propose(87, 174, 60.0, is_first_plan=False) == 87 + 40
    assert pacer.propose(88, 174, 60.0, is_first_plan=False) is None, "the share was already used"


def test_what_fits_is_told_without_using_up_a_correction() -> None:
    pacer = Pacer(deadline_seconds=100.0, most_steps=50)
    assert pacer.fitting(2, 1.0) is None, "the speed is not known yet"
    for _ in range(14):
        pacer.saw_step(0.5)
    assert pacer.fitting(14, 20.0) == 14 + 160, "a length given in epochs is the caller's to apply"
    assert pacer.propose(14, 1000, 20.0, is_first_plan=True) == 50


def test_recorded_decisions_are_replayed_and_new_ones_written_first() -> None:
    written: list[dict[str, object]] = []
    decisions = Decisions([{"step": 7, "kind": "replan", "total_steps": 50}], lambda entry: written.append(dict(entry)))
    assert decisions.is_replaying(7)
    assert not decisions.is_replaying(8)
    assert decisions.take(7, "replan", lambda: pytest.fail("must not choose anew"))["total_steps"] == 50
    assert decisions.take(9, "size", lambda: {"width": 3})["width"] == 3
    assert written == [{"step": 9, "kind": "size", "width": 3}]


def test_state_survives_json_and_nan_is_never_best() -> None:
    state = TrainState(make_plan(), step=5, last_loss=math.nan)
    assert not state.took_evaluation(math.nan)
    assert state.took_evaluation(3.0)
    assert not state.took_evaluation(3.5)
    restored = TrainState.from_json(state.as_json())
    assert (restored.best_loss, restored.best_step, restored.plan) == (3.0, 5, state.plan)
    assert math.isnan(restored.last_loss)
    fresh = TrainState.from_json(TrainState(make_plan()).as_json())
    assert fresh.best_loss == math.inf
