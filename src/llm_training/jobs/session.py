"""A session of a run: built new or restored from a checkpoint, ready for the loop.

Everything that depends on timing or on the machine is taken from the run's decisions.jsonl when it is there, else decided
and recorded before it takes effect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import psutil
import torch

from llm_training.cache.loader import BatchLoader
from llm_training.cache.pins import Pin, pin_all
from llm_training.checkpoint.layout import CheckpointRef
from llm_training.checkpoint.load import load_config
from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.store import CheckpointStore
from llm_training.errors import IntegrityError, LlmTrainingError
from llm_training.evaluation.held_out import evaluate_documents
from llm_training.events import CacheGrown, EvaluationCompleted, Notice
from llm_training.jobs import checkpointing, mixture, planning, rates
from llm_training.jobs.context import RunContext
from llm_training.jobs.feed import Feed
from llm_training.jobs.growth import GrowthFinder
from llm_training.jobs.run_directory import changed_fields
from llm_training.jobs.saver import Saver
from llm_training.jobs.starting_point import choose_spec, fill
from llm_training.model.hf_config import from_hf_config
from llm_training.model.transformer import Transformer
from llm_training.monitoring.throughput import Throughput, mfu_fraction
from llm_training.runtime.device import Device, Precision
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.home import in_home
from llm_training.training.build import build_optimizer, build_stepper
from llm_training.training.compiling import choose_compile
from llm_training.training.decisions import Decisions
from llm_training.training.documents import DocumentChoice
from llm_training.training.guard import Guard, LossScale
from llm_training.training.loop import Session
from llm_training.training.pacing import Pacer
from llm_training.training.plan import Join, TrainingPlan
from llm_training.training.state import TrainState
from llm_training.training.stopping import SECONDS_PER_HOUR, Clock, Stopping

# Part of a time budget that training always gets, however long the data took to prepare.
SMALLEST_BUDGET_SHARE = 0.8
# Evaluations and checkpoints take about this share of the time; the pacer leaves it free.
SIDE_SHARE = 0.03
# What the plan, the start or the record decides: a resume says that it holds.
HELD_FIELDS = {
    "model.size",
    "training.precision",
    "training.compile",
    "training.eval_steps",
    "training.save_steps",
    "training.warmup_steps",
    "training.warmup_ratio",
    "training.decay_fraction",
    "training.lr_decay_steps",
    "training.estimated_full_sequences",
    "training.time_budget_minutes",
    "evaluation.max_tokens",
}
LENGTH_FIELDS = {"training.max_steps", "training.max_tokens", "training.num_epochs"}
COMPILER_CACHE = in_home(".cache", "llm-training", "compiler")


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
        micro_batch: int,
    ) -> None:
        self.context = context
        self.session = session
        self.model = model
        self.plan_lines = plan_lines
        self.micro_batch = micro_batch
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
            self._saver.finish()
        except LlmTrainingError as error:
            self.context.bus.publish(Notice(message=str(error), level="warning"))

    def close(self) -> None:
        """Stop the loader and give files back."""
        self._loader.close()
        if self._log is not None:
            self._log.close()


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
    # Rank 0 reads and writes the record; what the others find in the file would depend on when they look.
    recorded = world.broadcast(list(read_jsonl(context.layout.decisions)) if world.is_main else None)
    assert isinstance(recorded, list)
    decisions = Decisions(recorded, log.append if log else lambda _: None)
    restored = checkpointing.read_progress(ref) if ref else None
    planning.probe_kernels(
        config, choose_spec(config, context.choice, context.data.tokenizer.vocab_size), context.device, context.precision
    )
    start = _decide_start(context, decisions, restored, peak_flops=peak_flops, waited_seconds=waited_seconds)
    device, precision = context.device, Precision(start["precision"], context.precision.reason)
    spec = choose_spec(config, context.choice, context.data.tokenizer.vocab_size)
    batching = planning.choose_batching(
        config,
        context.choice,
        sequence_length=context.data.sequence_length,
        world_size=world.size,
        device=device,
        begun_on=int(start["world_size"]),
    )
    settings = rates.optimizer_settings(config, precision, spec, start.get("rates"))
    uses_documents = planning.uses_documents(config, start)
    facts = checkpointing.make_facts(
        dataset=context.data.name,
        tokenizer=context.data.tokenizer,
        effective_batch=batching.effective,
        micro_batch=batching.micro,
        sequence_length=context.data.sequence_length,
        optimizer=settings.name,
        seed=config.training.seed,
        document_attention=uses_documents,
        precision=precision,
        device=device,
        world=world,
        mixture=mixture.as_json(context.data.mixture),
    )
    if ref is not None and restored is not None:
        for line in checkpointing.require_same(restored.recorded_facts, facts, where=str(ref.path)):
            context.bus.publish(Notice(message=line, level="warning"))
        shape = from_hf_config(load_config(ref), attention=config.model.attention)
        checkpointing.require_same_shape(ref, shape, spec)
    model = Transformer(spec)
    model.gradient_checkpointing = config.model.gradient_checkpointing
    if ref is None:
        fill(model, config)
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
    feed = Feed(context, state.plan, pin, batching.micro, with_documents=uses_documents)
    saver = Saver(context, model, optimizer, facts, store)
    saver.state, saver.pin, saver.loss_scale = state, pin, loss_scale
    if ref is not None and ref.validation_loss is not None:
        saver.validation = (ref.step, ref.validation_loss)  # saved again at this step, the checkpoint must keep it
    # Compiling is part of the training time: it is what the user waits for.
    clock = Clock(time.monotonic, used_before=state.elapsed_seconds)
    problems: list[str] = []
    outcome = decisions.at(0, "compiled")
    stepper = build_stepper(
        model,
        optimizer,
        device=device,
        precision=precision,
        world=world,
        seed=config.training.seed,
        max_grad_norm=config.training.max_grad_norm,
        loss_scale=loss_scale,
        compiles=bool(start["compile"]) and (outcome is None or bool(outcome["is_on"])),
        compile_cache=COMPILER_CACHE,
        example=lambda: feed.fetch(state.step),
        note=problems.append,
    )
    for line in problems:
        unlike = "; the run was compiled before: results may differ in rounding" if outcome is not None else ""
        context.bus.publish(Notice(message=line + unlike, level="warning"))
    if outcome is None and start["compile"]:
        decisions.record(0, "compiled", is_on=not problems)
    session = _assemble(context, state, stepper, feed, saver, decisions, start, settings, model, precision, peak_flops, clock)
    _take_in_growth(context, session)
    _take_new_length(context, session, feed)
    lines = tuple(start["lines"]) if state.step == 0 else _resume_lines(state)
    return OpenedSession(context, session, model, saver, lines, feed.loader, log, batching.micro)


def _find_checkpoint(context: RunContext, store: CheckpointStore) -> CheckpointRef | None:
    """Rank 0 decides which checkpoint; the others verify and take the same."""
    resume = context.config.training.resume
    if resume == "never":
        return None
    ref = store.find(resume) if context.world.is_main else None
    context.world.wait_patiently()  # all of a large checkpoint is read to verify it
    path = context.world.broadcast(str(ref.path) if ref else None)
    if ref is None and path is not None:
        ref = store.find(str(path), quarantine=False)
    for refusal in ref.refused if ref else ():
        context.bus.publish(Notice(message=f"passed over {refusal.path.name}: {refusal.reason}", level="warning"))
    if ref is not None and resume != "auto" and context.world.is_main and ref.path.parent.resolve() == store.root.resolve():
        for moved in store.set_aside_after(ref.step):
            context.bus.publish(Notice(message=f"set aside {moved.path.name}: {moved.reason}"))
    return ref


def _decide_start(
    context: RunContext, decisions: Decisions, restored: checkpointing.Restored | None, *, peak_flops: float, waited_seconds: float
) -> Mapping[str, Any]:
    """The choices of step 0, from the record or new: batch, precision, compile, provisional plan."""

    data, training = context.data, context.config.training

    def choose() -> dict[str, Any]:
        pin = pin_all(context.data.view)
        spec = choose_spec(context.config, context.choice, context.data.tokenizer.vocab_size)
        estimate = planning.estimate_run(
            context.config,
            spec,
            context.choice,
            sequences=pin.num_rows,
            sequence_length=context.data.sequence_length,
            peak_flops=peak_flops,
            world_size=context.world.size,
            device=context.device,
            most_samples=mixture.most_samples(
                data.mixture, training.seed, data.store, data.view, pin,
                fraction=training.epoch_dataset_fraction, sequence_length=data.sequence_length,
            ),
        )  # fmt: skip
        documents = planning.choose_documents(
            context.config, spec, data.sequence_length, context.device, context.precision, data.view.stats
        )
        if restored is not None and context.config.cache.document_attention == "auto":
            documents = DocumentChoice(bool(restored.recorded_facts.get("document_attention")), "as the checkpoint was trained")
        compiled = choose_compile(context.config.training.compile, context.device, estimate.seconds)
        budget = planning.budget_seconds(context.config.training)
        return {
            "choice": asdict(context.choice),
            "plan": estimate.plan.as_json(),
            "pin": pin.to_json(),
            "held_out_slices": data.held_out_slices,
            "mixture": mixture.as_json(data.mixture),
            "effective_batch": estimate.plan.effective_batch,
            "micro_batch": estimate.micro_batch,
            "world_size": context.world.size,
            "precision": context.precision.name,
            "rates": rates.recorded_rates(rates.optimizer_settings(context.config, context.precision, spec)),
            "compile": compiled.is_on,
            "document_attention": documents.is_on,
            "deadline_seconds": None if budget is None else max(budget - waited_seconds, SMALLEST_BUDGET_SHARE * budget),
            "eval_tokens": context.config.evaluation.max_tokens or planning.default_eval_tokens(estimate.plan),
            "lines": planning.describe_plan(
                estimate,
                spec,
                context.choice,
                dataset=context.data.name,
                train_bytes=context.data.train_bytes,
                device=context.device,
                precision=context.precision,
                data=context.data,
                documents=documents,
                compiled=compiled,
                mixture=mixture.describe_mixture(
                    context.config,
                    estimate.plan,
                    data.mixture,
                    mixture.order_of_run(estimate.plan, training.seed, data.mixture, data.store, data.view, pin),
                ),
            ),
        }

    recorded = decisions.at(0, "start")
    if recorded is not None and recorded.get("mixture", []) != mixture.as_json(data.mixture):
        raise IntegrityError(
            f"the run cannot be resumed with another mixture ({recorded.get('mixture', [])} -> {mixture.as_json(data.mixture)}: "
            "weight and most epochs of each source)",
            where=str(context.layout.path),
            remedy="use the weights of the run, or start a new one with --resume never",
        )
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
    schedule = rates.rate_settings(config.training, settings)
    flops = planning.flops_per_token(model.spec, data.sequence_length)
    deadline = start["deadline_seconds"]
    pacer = None if deadline is None else _pacer(float(deadline), state, feed)

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
        if figures is None:
            return None
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
            loss_by_source=figures.loss_by_source,
        )
        context.bus.publish(done)
        return done

    def take_in(record: Mapping[str, Any]) -> None:
        if record["kind"] == "length":
            state.plan = state.plan.joined(
                Join(step=state.step, total_steps=int(record["total_steps"]), sequences=state.plan.sequences, reason="length")
            )
            feed.follow(state.plan)
            return
        pin = Pin.from_json(record["pin"])
        old = state.plan
        state.plan = old.joined(Join(step=state.step, total_steps=int(record["total_steps"]), sequences=pin.num_rows, reason="growth"))
        feed.grow(state.plan, pin)
        saver.pin = pin
        if pacer is not None:
            pacer.most_steps = feed.given_length()
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
        rates=lambda step: schedule.at(step, state.plan),
        evaluate=evaluate,
        save=saver.save,
        poll_saves=saver.poll,
        epoch_at=feed.epoch_at,
        take_in=take_in,
        mfu=lambda speed: mfu_fraction(speed, flops, peak_flops * world.size),
        memory_bytes=_memory_reader(context.device),
        find_growth=GrowthFinder(context, state, feed, pacer).propose,
        growth_check_steps=config.cache.growth_check_steps if config.cache.growth == "live" else 0,
        pacer=pacer,
        saves_at_epochs=state.plan.epochs is not None,
    )


def _pacer(deadline_seconds: float, state: TrainState, feed: Feed) -> Pacer:
    pacer = Pacer(deadline_seconds, side_share=SIDE_SHARE, most_steps=feed.given_length())
    if state.step:
        pacer.continue_from(state.step / state.plan.total_steps)
    return pacer


def _take_in_growth(context: RunContext, session: Session) -> None:
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
    agreed = context.world.broadcast(session.find_growth() if context.world.is_main else None)
    if isinstance(agreed, Mapping):
        session.take_in(decisions.record(state.step, "growth", **agreed))


def _take_new_length(context: RunContext, session: Session, feed: Feed) -> None:
    """On resume with other steps, tokens or epochs: stretch or shorten what is left, unless the rate is already falling."""
    state, decisions = session.state, session.decisions
    changed = changed_fields(context.layout, context.config) if state.step else {}
    for name, (old, new) in changed.items():
        holds = name in HELD_FIELDS
        line = f"the run keeps {name}: {old} ({new} was asked for)" if holds else f"resuming with {name}: {old} -> {new}"
        context.bus.publish(Notice(message=line, level="warning"))
    recorded = decisions.at(state.step, "length")
    if recorded is not None and not any(join.step == state.step and join.reason == "length" for join in state.plan.joins):
        session.take_in(recorded)
        return
    if recorded is not None or not changed.keys() & LENGTH_FIELDS:
        return
    total = feed.total_wanted(state.step)
    if total == state.plan.total_steps:
        return
    if decisions.is_replaying(state.step + 1) or state.plan.is_decaying(state.step) or state.step >= state.plan.total_steps:
        context.bus.publish(
            Notice(message=f"the new length comes too late: the run ends at {state.plan.total_steps:,} steps as planned", level="warning")
        )
        return
    session.take_in(decisions.record(state.step, "length", total_steps=total))


def _memory_reader(device: Device) -> Any:
    if device.kind == "cuda":
        return lambda: torch.cuda.max_memory_allocated(device.index)
    process = psutil.Process()
    return lambda: process.memory_info().rss
