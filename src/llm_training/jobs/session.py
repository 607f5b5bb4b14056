"""A session of a run: built new or restored from a checkpoint, ready for the loop.

Everything that depends on timing or on the machine is taken from the run's decisions.jsonl when it is there, else decided
and recorded before it takes effect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from llm_training.cache import order as ordering
from llm_training.cache.loader import BatchLoader
from llm_training.cache.pins import Pin, find_growth, pin_all
from llm_training.cache.reader import PackedDataset
from llm_training.checkpoint.layout import CheckpointRef
from llm_training.checkpoint.load import load_config
from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.store import CheckpointStore, SaveReport
from llm_training.config.root import Config
from llm_training.errors import LlmTrainingError
from llm_training.evaluation.held_out import evaluate_documents
from llm_training.events import CacheGrown, CheckpointRemoved, CheckpointSaved, EvaluationCompleted, EventBus, Notice
from llm_training.jobs import checkpointing, planning
from llm_training.jobs.datasets import PreparedData
from llm_training.jobs.run_directory import changed_fields
from llm_training.model.hf_config import from_hf_config
from llm_training.model.init import initialise
from llm_training.model.transformer import Transformer
from llm_training.monitoring.throughput import Throughput, mfu_fraction
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.signals import StopFlag
from llm_training.runtime.world import World
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.runs import RunLayout
from llm_training.training.build import build_optimizer, build_stepper
from llm_training.training.compiling import choose_compile
from llm_training.training.decisions import Decisions
from llm_training.training.dial import Choice
from llm_training.training.guard import Guard, LossScale
from llm_training.training.loop import Session
from llm_training.training.pacing import Pacer
from llm_training.training.plan import Join, TrainingPlan, micro_batches_for, steps_after_join
from llm_training.training.state import TrainState
from llm_training.training.step import MicroBatch
from llm_training.training.stopping import SECONDS_PER_HOUR, Clock, Stopping

# Part of a time budget that training always gets, however long the data took to prepare.
SMALLEST_BUDGET_SHARE = 0.8
# Evaluations and checkpoints take about this share of the time; the pacer leaves it free.
SIDE_SHARE = 0.03
LENGTH_FIELDS = {"training.max_steps", "training.max_tokens", "training.num_epochs"}
COMPILER_CACHE = Path("~/.cache/llm-training/compiler").expanduser()


@dataclass(frozen=True)
class RunContext:
    """What a run stands on, decided before its session opens."""

    device: Device
    precision: Precision
    world: World
    config: Config
    data: PreparedData
    choice: Choice
    layout: RunLayout
    bus: EventBus
    stop: StopFlag


class OpenedSession:
    """A session with what the job needs around the loop: saving, closing, the lines of the plan."""

    def __init__(
        self,
        context: RunContext,
        session: Session,
        model: Transformer,
        saver: Saver,
        plan_lines: tuple[str, ...],
        loader: BatchLoader,
        log: JsonlAppender | None,
    ) -> None:
        self.context = context
        self.session = session
        self.model = model
        self.plan_lines = plan_lines
        self._saver = saver
        self._loader = loader
        self._log = log

    def save_and_wait(self, labels: Sequence[str]) -> str:
        """Commit a checkpoint of the present step under the labels; returns its path. Raises what the writing raised."""
        self._saver.save(labels)
        return self._saver.wait()

    def abandon(self) -> None:
        """After a failure: let a save in flight finish, without hiding the failure behind another."""
        try:
            self._saver.wait()
        except LlmTrainingError as error:
            self.context.bus.publish(Notice(message=str(error), level="warning"))

    def close(self) -> None:
        """Stop the loader and give files back."""
        self._loader.close()
        if self._log is not None:
            self._log.close()


class Saver:
    """Checkpoints of one session: snapshot now, write behind, report when committed. Only rank 0 writes."""

    def __init__(
        self, context: RunContext, model: Transformer, optimizer: Any, facts: checkpointing.RunFacts, store: CheckpointStore
    ) -> None:
        self._context = context
        self._model = model
        self._optimizer = optimizer
        self._facts = facts
        self._store = store
        self.state: TrainState | None = None
        self.pin: Pin | None = None
        self.loss_scale: LossScale | None = None
        self.validation: tuple[int, float] | None = None
        self._last_path = ""

    def save(self, labels: Sequence[str]) -> float:
        """Start a save; returns the seconds that training waited for it."""
        began = time.perf_counter()
        state = self.state
        assert state is not None
        assert self.pin is not None
        assert self.loss_scale is not None
        if not self._context.world.is_main:
            return 0.0
        state.loss_scale = asdict(self.loss_scale)
        measured = self.validation is not None and self.validation[0] == state.step
        snapshot = checkpointing.take_snapshot(
            self._model,
            self._optimizer,
            state,
            facts=self._facts,
            pin=self.pin,
            tokenizer=self._context.data.tokenizer,
            validation_loss=self.validation[1] if measured and self.validation else None,
            labels=labels,
        )
        self._store.save_async(snapshot)
        self._publish(self._store.collect())
        return time.perf_counter() - began

    def wait(self) -> str:
        """Wait for the save in flight; path of the newest committed checkpoint."""
        if self._context.world.is_main:
            self._publish(self._store.wait())
        self._context.world.barrier()
        return self._last_path

    def _publish(self, reports: Sequence[SaveReport]) -> None:
        for report in reports:
            self._last_path = str(report.path)
            self._context.bus.publish(
                CheckpointSaved(
                    step=report.step,
                    path=str(report.path),
                    num_bytes=report.num_bytes,
                    stall_seconds=report.stall_seconds,
                    write_seconds=report.write_seconds,
                    labels=(*report.labels, *(("best",) if report.is_best else ())),
                )
            )
            for path, reason in report.removed:
                self._context.bus.publish(CheckpointRemoved(path=str(path), reason=reason))


class Feed:
    """Micro-batches by step from the packed cache, and the growth of it."""

    def __init__(self, context: RunContext, plan: TrainingPlan, pin: Pin, micro_batch: int) -> None:
        self._context = context
        self.pin = pin
        self.micro_batch = micro_batch
        self.plan = plan
        self._order = self._make_order()
        self.loader = BatchLoader(
            self._dataset(),
            self._order,
            global_batch=plan.effective_batch,
            rank=context.world.rank,
            world_size=context.world.size,
        )

    def _dataset(self) -> PackedDataset:
        return PackedDataset(self._context.data.store, self._context.data.view, self.pin)

    def _make_order(self) -> ordering.Order:
        plan = self.plan
        joins = [ordering.Join(join.step * plan.effective_batch, join.sequences) for join in plan.joins if join.reason == "growth"]
        return ordering.Order(
            seed=self._context.config.training.seed,
            num_rows=plan.first_sequences,
            shape=ordering.shuffle_shape(plan.sequence_length),
            joins=joins,
            fraction=plan.epoch_fraction,
        )

    def fetch(self, step: int) -> list[MicroBatch]:
        """This rank's micro-batches of the update after ``step`` completed steps."""
        batch = self.loader.fetch(step)
        bounds = micro_batches_for(self.plan.effective_batch, self.micro_batch, self._context.world.size)
        return [MicroBatch(torch.from_numpy(batch.input_ids[a:b]), torch.from_numpy(batch.labels[a:b])) for a, b in bounds]

    def epoch_at(self, step: int) -> float:
        """Epochs completed after ``step`` steps."""
        position = self._order.position(step * self.plan.effective_batch)
        return position.epoch + position.offset / position.num_samples

    def total_after(self, step: int, num_rows: int) -> int:
        """Total steps once the cache counts ``num_rows`` rows from ``step`` on; unchanged when epochs do not decide it."""
        if self._context.config.training.num_epochs is None:
            return self.plan.total_steps
        return self.total_wanted(step, num_rows)

    def total_wanted(self, step: int, num_rows: int | None = None) -> int:
        """Total steps by the lengths of the configuration, with ``num_rows`` rows (default: those of the plan) from ``step`` on."""
        training, plan = self._context.config.training, self.plan
        totals = [training.max_steps] if training.max_steps is not None else []
        if training.max_tokens is not None:
            totals.append(training.max_tokens // plan.tokens_per_step)
        if training.num_epochs is not None:
            sample = step * plan.effective_batch
            position = self._order.position(sample)
            left = max(0.0, training.num_epochs - position.epoch)
            rows = plan.sequences if num_rows is None else num_rows
            totals.append(steps_after_join(sample - position.offset, left, rows, plan.epoch_fraction, plan.effective_batch))
        return max(step, min(totals)) if totals else plan.total_steps

    def grow(self, plan: TrainingPlan, pin: Pin) -> None:
        """Take in the rows of ``pin``; ``plan`` holds the join."""
        self.plan, self.pin = plan, pin
        self._order = self._make_order()
        self.loader.replace(self._dataset(), self._order)

    def follow(self, plan: TrainingPlan) -> None:
        """Use the plan after a change of the total that leaves the rows alone."""
        self.plan = plan


def open_session(context: RunContext, *, peak_flops: float, waited_seconds: float) -> OpenedSession:
    """Build or restore everything the loop needs.

    Args:
        peak_flops: measured matmul peak of one device, FLOP/s.
        waited_seconds: how long the user has waited already; a time budget is charged with it.

    Raises:
        IntegrityError: no checkpoint verifies, or the one found belongs to other data, shape or settings.
    """
    config, world = context.config, context.world
    store = CheckpointStore(context.layout.checkpoints, retention=RetentionPolicy(save_total_limit=config.training.save_total_limit))
    ref = _find_checkpoint(context, store)
    log = JsonlAppender(context.layout.decisions, fsync=True) if world.is_main else None
    decisions = Decisions(read_jsonl(context.layout.decisions), log.append if log else lambda _: None)
    restored = checkpointing.read_progress(ref) if ref else None
    start = _decide_start(context, decisions, peak_flops=peak_flops, waited_seconds=waited_seconds)
    device, precision = context.device, Precision(start["precision"], context.precision.reason)
    spec = planning.build_spec(config, context.choice, context.data.tokenizer.vocab_size)
    batching = planning.choose_batching(
        config, context.choice, sequence_length=context.data.sequence_length, world_size=world.size, device=device
    )
    settings = planning.optimizer_settings(config.training, precision, spec.hidden_size)
    facts = checkpointing.make_facts(
        dataset=context.data.name,
        tokenizer=context.data.tokenizer,
        effective_batch=batching.effective,
        micro_batch=batching.micro,
        sequence_length=context.data.sequence_length,
        optimizer=settings.name,
        seed=config.training.seed,
        precision=precision,
        device=device,
        world=world,
    )
    if ref is not None and restored is not None:
        for line in checkpointing.require_same(restored.recorded_facts, facts, where=str(ref.path)):
            context.bus.publish(Notice(message=line, level="warning"))
        recorded = from_hf_config(load_config(ref), attention=config.model.attention)
        checkpointing.require_same_shape(ref, recorded, spec)
    model = Transformer(spec)
    model.gradient_checkpointing = config.model.gradient_checkpointing
    if ref is None:
        initialise(model, seed=config.training.seed)
    model.to(device.torch)
    optimizer = build_optimizer(model, settings, device)
    if ref is not None and restored is not None:
        checkpointing.restore(ref, model, optimizer)
        store.protect(ref.step)
        state, pin = restored.state, restored.pin
        context.bus.publish(Notice(message=f"resuming from {ref.path} (step {state.step:,} of {state.plan.total_steps:,})"))
    else:
        pin = Pin.from_json(start["pin"])
        state = TrainState(TrainingPlan.from_json(start["plan"]))
    loss_scale = LossScale(**state.loss_scale) if state.loss_scale else LossScale.for_precision(precision.name)
    feed = Feed(context, state.plan, pin, batching.micro)
    saver = Saver(context, model, optimizer, facts, store)
    saver.state, saver.pin, saver.loss_scale = state, pin, loss_scale
    # Compiling is part of the training time: it is what the user waits for.
    clock = Clock(time.monotonic, used_before=state.elapsed_seconds)
    stepper = build_stepper(
        model,
        optimizer,
        device=device,
        precision=precision,
        world=world,
        seed=config.training.seed,
        max_grad_norm=config.training.max_grad_norm,
        loss_scale=loss_scale,
        compiles=bool(start["compile"]),
        compile_cache=COMPILER_CACHE,
        example=lambda: feed.fetch(state.step),
        note=lambda line: context.bus.publish(Notice(message=line, level="warning")),
    )
    session = _assemble(context, state, stepper, feed, saver, decisions, start, settings, model, precision, peak_flops, clock)
    _take_in_growth(context, session, feed)
    _take_new_length(context, session, feed)
    lines = tuple(start["lines"]) if state.step == 0 else _resume_lines(state)
    return OpenedSession(context, session, model, saver, lines, feed.loader, log)


def recorded_choice(layout: RunLayout | None) -> Choice | None:
    """The dial's choice that an earlier session of the run recorded: another speed measured today must not change the model."""
    if layout is None or not layout.decisions.exists():
        return None
    start = Decisions(read_jsonl(layout.decisions), lambda _: None).at(0, "start")
    return Choice(**start["choice"]) if start else None


def _find_checkpoint(context: RunContext, store: CheckpointStore) -> CheckpointRef | None:
    """Rank 0 decides which checkpoint; the others verify and take the same."""
    resume = context.config.training.resume
    if resume == "never":
        return None
    ref = store.find(resume) if context.world.is_main else None
    path = context.world.broadcast(str(ref.path) if ref else None)
    if ref is None and path is not None:
        ref = store.find(str(path), quarantine=False)
    for refusal in ref.refused if ref else ():
        context.bus.publish(Notice(message=f"passed over {refusal.path.name}: {refusal.reason}", level="warning"))
    if ref is not None and resume != "auto" and context.world.is_main:
        for moved in store.set_aside_after(ref.step):
            context.bus.publish(Notice(message=f"set aside {moved.path.name}: {moved.reason}"))
    return ref


def _decide_start(context: RunContext, decisions: Decisions, *, peak_flops: float, waited_seconds: float) -> Mapping[str, Any]:
    """The choices of step 0, from the record or new: batch, precision, compile, provisional plan."""

    def choose() -> dict[str, Any]:
        pin = pin_all(context.data.view)
        estimate = planning.estimate_run(
            context.config,
            planning.build_spec(context.config, context.choice, context.data.tokenizer.vocab_size),
            context.choice,
            sequences=pin.num_rows,
            sequence_length=context.data.sequence_length,
            peak_flops=peak_flops,
            world_size=context.world.size,
            device=context.device,
        )
        compiled = choose_compile(context.config.training.compile, context.device, estimate.seconds)
        budget = planning.budget_seconds(context.config.training)
        return {
            "choice": asdict(context.choice),
            "plan": estimate.plan.as_json(),
            "pin": pin.to_json(),
            "effective_batch": estimate.plan.effective_batch,
            "micro_batch": estimate.micro_batch,
            "precision": context.precision.name,
            "compile": compiled.is_on,
            "deadline_seconds": None if budget is None else max(budget - waited_seconds, SMALLEST_BUDGET_SHARE * budget),
            "eval_tokens": context.config.evaluation.max_tokens or planning.default_eval_tokens(estimate.plan),
            "lines": planning.describe_plan(
                estimate,
                planning.build_spec(context.config, context.choice, context.data.tokenizer.vocab_size),
                context.choice,
                dataset=context.data.name,
                train_bytes=context.data.train_bytes,
                device=context.device,
                precision=context.precision,
                data=context.data,
                compiled=compiled,
            ),
        }

    recorded = decisions.at(0, "start")
    chosen = recorded or context.world.broadcast(choose() if context.world.is_main else None)
    assert isinstance(chosen, Mapping)
    return recorded or decisions.record(0, "start", **chosen)


def _resume_lines(state: TrainState) -> tuple[str, ...]:
    return (f"Resume: step {state.step:,} of {state.plan.total_steps:,}, {state.elapsed_seconds / 60:.1f} min trained so far",)


def _assemble(
    context: RunContext, state: TrainState, stepper: Any, feed: Feed, saver: Saver, decisions: Decisions, start: Mapping[str, Any],
    settings: Any, model: Transformer, precision: Precision, peak_flops: float, clock: Clock,
) -> Session:  # fmt: skip
    config, world, data = context.config, context.world, context.data
    stopping = Stopping(clock, config.training.max_training_hours * SECONDS_PER_HOUR, lambda: context.stop.reason)
    rates = planning.rate_settings(config.training, settings)
    flops = planning.flops_per_token(model.spec, data.sequence_length)
    deadline = start["deadline_seconds"]

    def evaluate() -> EvaluationCompleted | None:
        if not data.held_out.num_tokens:
            return None
        began = time.perf_counter()
        figures = evaluate_documents(
            model,
            data.held_out,
            separator_id=data.tokenizer.separator_id,
            token_bytes=data.token_bytes,
            window=data.sequence_length,
            stride=data.sequence_length,
            batch_size=config.evaluation.batch_size or feed.micro_batch,
            device=context.device,
            precision=precision,
            max_tokens=int(start["eval_tokens"]),
            world=world,
            should_stop=stopping.is_out_of_time if world.size == 1 else None,
        )
        saver.validation = (state.step, figures.loss_nats)
        done = EvaluationCompleted(
            step=state.step,
            loss_nats=figures.loss_nats,
            perplexity=figures.perplexity,
            bits_per_byte=figures.bits_per_byte,
            accuracy=figures.accuracy,
            num_tokens=figures.num_tokens,
            seconds=time.perf_counter() - began,
            is_best=state.took_evaluation(figures.loss_nats),
        )
        context.bus.publish(done)
        return done

    def take_in(record: Mapping[str, Any]) -> None:
        pin = Pin.from_json(record["pin"])
        old = state.plan
        state.plan = old.joined(Join(step=state.step, total_steps=int(record["total_steps"]), sequences=pin.num_rows, reason="growth"))
        feed.grow(state.plan, pin)
        saver.pin = pin
        context.bus.publish(
            CacheGrown(
                step=state.step,
                old_sequences=old.sequences,
                new_sequences=pin.num_rows,
                old_total_steps=old.total_steps,
                new_total_steps=state.plan.total_steps,
            )
        )

    return Session(
        state=state,
        world=world,
        stepper=stepper,
        stopping=stopping,
        guard=Guard(limit=config.training.max_skipped_steps),
        decisions=decisions,
        meter=Throughput(),
        publish=context.bus.publish if world.is_main else lambda _: None,
        fetch=feed.fetch,
        rates=lambda step: rates.at(step, state.plan),
        evaluate=evaluate,
        save=saver.save,
        epoch_at=feed.epoch_at,
        take_in=take_in,
        mfu=lambda speed: mfu_fraction(speed, flops, peak_flops * world.size),
        memory_bytes=_memory_reader(context.device),
        pacer=None if deadline is None else Pacer(float(deadline), side_share=SIDE_SHARE),
        saves_at_epochs=state.plan.epochs is not None,
    )


def _take_in_growth(context: RunContext, session: Session, feed: Feed) -> None:
    """On resume: rows that the cache has gained join the run here, unless an earlier session already recorded what joins here."""
    state, decisions = session.state, session.decisions
    if state.step == 0:
        return
    recorded = decisions.at(state.step, "growth")
    already = any(join.step == state.step and join.reason == "growth" for join in state.plan.joins)
    if recorded is not None and not already:
        session.take_in(recorded)
        return
    if decisions.is_replaying(state.step + 1) or already or context.config.cache.growth == "off":
        return
    growth = find_growth(context.data.view, feed.pin)
    if not growth.has_grown:
        return
    if state.plan.is_decaying(state.step):
        context.bus.publish(
            Notice(
                message=f"the cache has grown by {growth.new_sequences - growth.old_sequences:,} sequences; "
                "the rate is already falling, so they wait for the next run"
            )
        )
        return
    total = feed.total_after(state.step, growth.new_sequences)
    session.take_in(decisions.record(state.step, "growth", pin=growth.pin.to_json(), total_steps=total))


def _take_new_length(context: RunContext, session: Session, feed: Feed) -> None:
    """On resume with other steps, tokens or epochs: stretch or shorten what is left, unless the rate is already falling."""
    state = session.state
    changed = changed_fields(context.layout, context.config) if state.step else {}
    for name, (old, new) in changed.items():
        context.bus.publish(Notice(message=f"resuming with {name}: {old} -> {new}", level="warning"))
    if not changed.keys() & LENGTH_FIELDS or session.decisions.is_replaying(state.step + 1):
        return
    recorded = session.decisions.at(state.step, "length")
    total = int(recorded["total_steps"]) if recorded else feed.total_wanted(state.step)
    if total == state.plan.total_steps:
        return
    if state.plan.is_decaying(state.step) or state.step >= state.plan.total_steps:
        context.bus.publish(
            Notice(message=f"the rate is already falling: the run ends at {state.plan.total_steps:,} steps as planned", level="warning")
        )
        return
    if recorded is None:
        session.decisions.record(state.step, "length", total_steps=total)
    state.plan = state.plan.joined(Join(step=state.step, total_steps=total, sequences=state.plan.sequences, reason="length"))
    feed.follow(state.plan)


def _memory_reader(device: Device) -> Any:
    if device.kind == "cuda":
        return lambda: torch.cuda.max_memory_allocated(device.index)
    process = psutil.Process()
    return lambda: process.memory_info().rss
