"""The training loop: fetch, step, account; when due evaluate, save; ask whether to stop.

Everything it uses was built before (build.py) or is passed in as a callable; it constructs nothing, knows no device and
formats no message. Facts go out over the bus, to which the loop never listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_training.events import EpochCompleted, EvaluationCompleted, Event, Notice, StepCompleted, StepSkipped
from llm_training.runtime.world import World
from llm_training.training.decisions import Decisions
from llm_training.training.guard import REMEDIES, Guard
from llm_training.training.pacing import Pacer
from llm_training.training.plan import Join, is_due
from llm_training.training.state import TrainState
from llm_training.training.step import MicroBatch, StepOutcome, Stepper
from llm_training.training.stopping import SECONDS_PER_HOUR, Stopping


class Meter(Protocol):
    """Speed over recent steps, from readings of a monotonic clock (monitoring.throughput)."""

    def start(self, now_seconds: float) -> None:
        """Time from here; what lay between counts as overhead."""
        ...

    def step(self, num_tokens: int, now_seconds: float) -> float:
        """Account one step that ended now; returns its seconds."""
        ...

    @property
    def tokens_per_second(self) -> float:
        """Over the window."""
        ...

    def eta_seconds(self, step: int, total_steps: int) -> float | None:
        """Seconds to the end."""
        ...


@dataclass
class Session:
    """The parts of one session of a run, put together by build.py.

    Attributes:
        fetch: micro-batches of this rank for the update after ``step`` completed steps.
        rates: learning rates of that update by optimizer.
        evaluate: held-out figures of the present weights.
        save: write a checkpoint with the labels given; returns the seconds it held training up (the write goes on behind).
        epoch_at: epochs completed after ``step`` steps, as a float.
        take_in: apply a recorded growth of the cache or a new length at the present step.
        find_growth: what of new data joins at the present step, to be recorded; asked on rank 0.
        growth_check_steps: steps between two such questions; 0 where growth is not live.
        mfu: model FLOP utilisation at a speed in tokens per second.
        memory_bytes: memory in use.
    """

    state: TrainState
    world: World
    stepper: Stepper
    stopping: Stopping
    guard: Guard
    decisions: Decisions
    meter: Meter
    publish: Callable[[Event], None]
    fetch: Callable[[int], Sequence[MicroBatch]]
    rates: Callable[[int], dict[str, float]]
    evaluate: Callable[[], EvaluationCompleted | None]
    save: Callable[[Sequence[str]], float]
    poll_saves: Callable[[], None]
    epoch_at: Callable[[int], float]
    take_in: Callable[[Mapping[str, Any]], None]
    mfu: Callable[[float], float | None]
    memory_bytes: Callable[[], int]
    find_growth: Callable[[], Mapping[str, Any] | None] = lambda: None
    growth_check_steps: int = 0
    pacer: Pacer | None = None
    saves_at_epochs: bool = False
    now: Callable[[], float] = field(default=time.perf_counter)


def run(session: Session) -> str:
    """Train until a reason to stop. Returns that reason: ``finished``, ``time-limit`` or the name of a signal.

    Raises:
        NumericError: too many steps in a row were not finite.
    """
    state = session.state
    while (reason := _agreed_reason(session)) is None:
        began = session.now()
        session.meter.start(began)
        micro_batches = session.fetch(state.step)
        waited = session.now() - began
        rates = session.rates(state.step)
        outcome = session.stepper.run(state.step, micro_batches, rates)
        state.step += 1
        _account(session, outcome)
        _report(session, outcome, rates, waited)
        session.poll_saves()
        _take_in(session)
        _replan(session)
        _do_what_is_due(session)
        # While the fp16 scale is being found, overflows are the search and no failure.
        session.guard.account(step=state.step, is_skipped=outcome.is_skipped and not session.stepper.loss_scale.is_searching)
    return reason


def _agreed_reason(session: Session) -> str | None:
    """The reason to stop that all ranks share: rank 0's clock decides on time, any rank's signal counts."""
    reason = session.stopping.reason(session.state.step, session.state.plan.total_steps)
    if session.world.size == 1:
        return reason
    is_signalled = session.world.any(reason not in (None, "finished", "time-limit"))
    agreed = session.world.broadcast(reason)
    return str(agreed) if agreed is not None else ("SIGTERM" if is_signalled else None)


def _account(session: Session, outcome: StepOutcome) -> None:
    state, seconds = session.state, session.meter.step(outcome.num_tokens, session.now())
    state.tokens += outcome.num_tokens
    state.last_loss = outcome.loss_nats
    state.skipped_steps += int(outcome.is_skipped)
    state.elapsed_seconds = session.stopping.clock.elapsed_seconds()
    session.stopping.saw_step(seconds)
    if session.pacer is not None:
        session.pacer.saw_step(seconds)


def _report(session: Session, outcome: StepOutcome, rates: dict[str, float], waited: float) -> None:
    state, plan = session.state, session.state.plan
    session.publish(
        StepCompleted(
            step=state.step,
            total_steps=plan.total_steps,
            loss_nats=outcome.loss_nats,
            learning_rate=rates["adamw"],
            grad_norm=outcome.grad_norm,
            tokens=outcome.num_tokens,
            tokens_per_second=session.meter.tokens_per_second,
            elapsed_seconds=state.elapsed_seconds,
            eta_seconds=session.meter.eta_seconds(state.step, plan.total_steps),
            mfu_fraction=session.mfu(session.meter.tokens_per_second),
            data_wait_seconds=waited,
            memory_bytes=session.memory_bytes(),
            epoch=session.epoch_at(state.step),
            is_skipped=outcome.is_skipped,
        )
    )
    if outcome.is_skipped:
        session.publish(
            StepSkipped(
                step=state.step,
                reason="loss or gradient is not finite",
                consecutive=session.guard.consecutive + 1,
                remedies=REMEDIES,
            )
        )


def _take_in(session: Session) -> None:
    """Apply the growth and the new length that the record says of this step; else look for new data."""
    state, decisions = session.state, session.decisions
    growth = decisions.at(state.step, "growth")
    is_due = session.growth_check_steps > 0 and state.step % session.growth_check_steps == 0
    if growth is None and is_due and not decisions.is_replaying(state.step):
        agreed = session.world.broadcast(session.find_growth() if session.world.is_main else None)
        growth = decisions.record(state.step, "growth", **agreed) if isinstance(agreed, Mapping) else None
    for change in (growth, decisions.at(state.step, "length")):
        if change is not None:
            session.take_in(change)


def _replan(session: Session) -> None:
    """Apply what the record says of this step; else fit the total to the time budget from the measured speed."""
    state, decisions = session.state, session.decisions
    recorded = decisions.at(state.step, "replan")
    if recorded is None:
        if session.pacer is None or decisions.is_replaying(state.step):
            return
        proposed = session.pacer.propose(
            state.step,
            state.plan.total_steps,
            state.elapsed_seconds,
            is_first_plan=not any(join.reason == "time" for join in state.plan.joins),
        )
        agreed = session.world.broadcast(proposed)
        if agreed is None:
            return
        recorded = decisions.record(state.step, "replan", total_steps=agreed, sequences=state.plan.sequences)
        if agreed != state.plan.total_steps:
            session.publish(Notice(message=f"{state.plan.total_steps:,} -> {agreed:,} steps, to end on time at the speed measured"))
    state.plan = state.plan.joined(
        Join(step=state.step, total_steps=int(recorded["total_steps"]), sequences=int(recorded["sequences"]), reason="time")
    )


def _do_what_is_due(session: Session) -> None:
    state, plan = session.state, session.state.plan
    labels: list[str] = []
    epoch = int(session.epoch_at(state.step))
    if epoch > int(session.epoch_at(state.step - 1)):
        labels += [f"epoch-{epoch}"] if session.saves_at_epochs else []
        session.publish(
            EpochCompleted(
                epoch=epoch,
                step=state.step,
                elapsed_hours=state.elapsed_seconds / SECONDS_PER_HOUR,
                remaining_hours=max(0.0, session.stopping.remaining_seconds() / SECONDS_PER_HOUR),
            )
        )
    is_best = False
    if is_due(state.step, plan.eval_steps, plan.total_steps) or labels:
        is_best = _evaluate(session)
    # The last step is saved by the caller, who knows under which label.
    is_last = state.step >= plan.total_steps
    if not is_last and (state.step % plan.save_steps == 0 or labels or is_best):
        session.stopping.saw_save(session.save(labels))


def _evaluate(session: Session) -> bool:
    figures = session.evaluate()
    return figures is not None and figures.is_best
