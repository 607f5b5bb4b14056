"""The main job: from text to a trained, evaluated, sampled model in one run directory.

``train`` reads as the story of a run: find its place, prepare its data, plan, build or restore, train, finish. Each part has
a file of its own beside this one; the loop itself is training/loop.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from llm_training.config.load import Loaded
from llm_training.config.root import Config
from llm_training.config.show import describe
from llm_training.errors import ConfigError, MemoryLimitError, StoppedEarly
from llm_training.events import Event, EventBus, Notice, PlanReady, RunFinished
from llm_training.jobs import finishing, mixture, planning, run_directory
from llm_training.jobs.context import RunContext
from llm_training.jobs.datasets import PreparedData, ScannedData, pack_data, scan_data
from llm_training.jobs.recorded import recorded_choice, recorded_start
from llm_training.jobs.session import OpenedSession, open_session
from llm_training.jobs.starting_point import choose_spec
from llm_training.jobs.text_amount import train_bytes_by_source
from llm_training.model.sizes import human_count
from llm_training.model.spec import ModelSpec
from llm_training.monitoring.jsonl import MetricsLog
from llm_training.monitoring.run_log import RunLog, run_log_path
from llm_training.runtime import allocator
from llm_training.runtime.device import Device, Precision, choose_device, choose_precision
from llm_training.runtime.peak import measure_matmul_flops
from llm_training.runtime.signals import StopFlag, stop_on_signals
from llm_training.runtime.world import World, process_group, read_world
from llm_training.storage.runs import RunLayout
from llm_training.training import loop
from llm_training.training.dial import Choice
from llm_training.training.plan import TrainingPlan

# Starting Python and importing torch is part of what a user waits for; older processes (a notebook) are not charged for it.
LONGEST_START_UP_SECONDS = 10.0


@dataclass(frozen=True)
class RunResult:
    """What a run left behind. ``figures`` are the final held-out figures, empty when the run only planned or had nothing to do."""

    output_dir: str
    reason: str
    step: int
    checkpoint: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    loss_curve: str | None = None


@dataclass(frozen=True)
class Machine:
    """What the run computes on. ``started_at`` is when the user began to wait, on the clock of time.monotonic."""

    device: Device
    precision: Precision
    world: World
    peak_flops: float
    started_at: float


def train(
    config: Config,
    *,
    bus: EventBus | None = None,
    dry_run: bool = False,
    origins: Mapping[str, Any] | None = None,
) -> RunResult:
    """Run the main job.

    Args:
        config: everything a run is.
        bus: where facts go; None tells nobody.
        dry_run: publish the plan and stop before anything is written beside the cache's own plan.
        origins: where each configured value came from, for the run's config.yaml.

    Raises:
        StoppedEarly: a signal or the hard time limit ended it; a checkpoint is on disk and the same command resumes.
        LlmTrainingError: any of the documented errors.
    """
    bus = bus or EventBus()
    began = time.monotonic() - min(LONGEST_START_UP_SECONDS, max(0.0, time.time() - psutil.Process().create_time()))
    allocator.prefer_huge_pages()
    allocator.keep_large_blocks()
    world = read_world()
    device = choose_device(
        config.resources.device, local_rank=world.local_rank, local_world_size=world.local_size, threads=config.resources.threads
    )
    precision = choose_precision(config.training.precision, device)
    group = process_group(
        world, backend=config.resources.distributed_backend, device_kind=device.kind, timeout_seconds=config.resources.timeout_seconds
    )
    with stop_on_signals() as stop, group as world:
        _check_world(config, world)
        # What is planned from the speed must be the same on every rank, and no two measurements are.
        peak = world.broadcast(measure_matmul_flops(device, precision))
        assert isinstance(peak, float)
        machine = Machine(device, precision, world, peak, began)
        return _train_on(machine, config, bus, stop, dry_run=dry_run, origins=origins or {})


def _check_world(config: Config, world: World) -> None:
    wanted = config.resources.world_size
    if wanted is not None and wanted != world.size:
        raise ConfigError(
            f"resources.world_size={wanted} but {world.size} rank{'s' if world.size > 1 else ''} were started",
            remedy=f"start with torchrun --nproc_per_node={wanted}",
        )
    world.require_equal("the configuration", run_directory.shared_by_ranks(config))


def _train_on(machine: Machine, config: Config, bus: EventBus, stop: StopFlag, *, dry_run: bool, origins: Mapping[str, Any]) -> RunResult:
    place = _agreed(machine.world, run_directory.given_place(config) if machine.world.is_main else None)
    resumed = None if place is None or place.is_new else place.layout
    scanned = scan_data(config, bus, machine.world, resumed=resumed, may_rescan=config.cache.growth != "live")
    choice = _same_choice(
        machine.world,
        recorded_choice(place.layout if place else None)
        or planning.choose_shape(
            config,
            peak_flops=machine.peak_flops * machine.world.size,
            text_bytes=scanned.train_bytes,
            vocab_size=scanned.known_vocab_size,
            device=machine.device,
        ),
    )
    if dry_run:
        bus.publish(Notice(message=_outlook(config, place)))
        return _only_plan(machine, config, bus, scanned, choice)
    length = config.cache.sequence_length or choice.sequence_length
    data = pack_data(
        scanned, config, bus, machine.world, stop,
        vocab_size=choice.vocab_size, sequence_length=length, held_out_slices=recorded_start(resumed).get("held_out_slices"),
    )  # fmt: skip
    if place is None:
        spec = choose_spec(config, choice, data.tokenizer.vocab_size)
        size = human_count(planning.count_parameters(spec))
        made = run_directory.new_place(config, size=size, dataset=scanned.name, sequence_length=length) if machine.world.is_main else None
        place = _agreed(machine.world, made)
    assert place is not None
    if place.remark:
        bus.publish(Notice(message=place.remark))
    text = describe(Loaded(config, dict(origins)))
    with run_directory.opened(place, config, config_text=text, world=machine.world) as layout:
        context = RunContext(machine.device, machine.precision, machine.world, config, data, choice, layout, bus, stop)
        return _run(context, machine, name=config.training.run_name or place.name)


def _same_choice(world: World, choice: Choice) -> Choice:
    """Rank 0's, on every rank: a builder may add to the plan between the looks of two ranks at it."""
    found = world.broadcast(asdict(choice))
    assert isinstance(found, dict)
    return Choice(**found)


def _agreed(world: World, place: run_directory.RunPlace | None) -> run_directory.RunPlace | None:
    """The place that rank 0 found or made, on every rank."""
    found = world.broadcast([str(place.layout.path), place.is_new] if place else None)
    if world.is_main or not isinstance(found, list):
        return place
    path, is_new = found
    return run_directory.RunPlace(RunLayout(Path(path)), is_new)


def _run(context: RunContext, machine: Machine, *, name: str) -> RunResult:
    bus, layout = context.bus, context.layout
    early: list[Event] = []  # facts of the opening (growth, fall-backs), until the logs know at which step they begin
    unsubscribe = bus.subscribe(early.append)
    opened = open_session(context, peak_flops=machine.peak_flops, waited_seconds=time.monotonic() - machine.started_at)
    unsubscribe()
    state = opened.session.state
    if machine.world.is_main:
        metrics = MetricsLog(layout.metrics, resume_step=state.step)
        for event in early:
            metrics(event)
        bus.subscribe(metrics)
        run_log = run_log_path(layout.training_logs, name)
        bus.subscribe(RunLog(run_log, name=name, metrics=layout.metrics, resume_step=state.step, logging_steps=state.plan.logging_steps))
    _publish_plan(bus, name, state.plan, opened.model.spec, opened.plan_lines, tokenizer=context.data.tokenizer.fingerprint)
    if not context.data.held_out.num_tokens:
        bus.publish(Notice(message="no held-out text is there: nothing is evaluated, and no best model is kept", level="warning"))
    repetition = planning.warn_about_repetition(state.plan, context.data.num_tokens)
    if repetition:
        bus.publish(Notice(message=repetition, level="warning"))
    if state.step >= state.plan.total_steps and run_directory.is_finished(layout):
        opened.close()
        if (layout.path / finishing.FIGURES_FILE).exists() or not context.data.held_out.num_tokens:
            more = f"llm-train SOURCES --init-from {layout.path} --output-dir ANOTHER"
            bus.publish(Notice(message=f"{layout.path} has finished at step {state.step:,}: nothing to do; to train on: {more}"))
            return RunResult(str(layout.path), "finished", state.step, checkpoint=str(layout.checkpoints / "latest"))
        bus.publish(Notice(message=f"{layout.path} has finished at step {state.step:,}, but was stopped before its final figures"))
        return _conclude(context, opened, str((layout.checkpoints / run_directory.FINAL).resolve()))
    try:
        reason = loop.run(opened.session)
        return _finish(context, opened, reason)
    except Exception as error:
        opened.abandon()
        if not is_out_of_memory(error):
            raise
        raise MemoryLimitError(
            f"out of memory at step {state.step + 1}",
            where=str(layout.path),
            remedy=f"run again with half the micro-batch and steps of the same size: --output-dir {layout.path} "
            f"--global-batch-tokens {state.plan.tokens_per_step} --batch-size {max(1, opened.micro_batch // 2)}",
        ) from error
    finally:
        opened.close()


def _finish(context: RunContext, opened: OpenedSession, reason: str) -> RunResult:
    """Save under the right label; evaluate, sample and draw after a run that reached its end."""
    state, bus, layout = opened.session.state, context.bus, context.layout
    labels = {"finished": (run_directory.FINAL,), "time-limit": ("time-limit",)}.get(reason, ())
    checkpoint = opened.save_and_wait(labels)
    if reason != "finished":
        bus.publish(RunFinished(step=state.step, reason=_kind(reason), elapsed_seconds=state.elapsed_seconds, checkpoint=checkpoint))
        why = "the time limit" if reason == "time-limit" else reason
        raise StoppedEarly(
            f"stopped by {why} after {state.step:,} of {state.plan.total_steps:,} steps",
            where=str(layout.path),
            remedy="raise training.max_training_hours to go on" if reason == "time-limit" else "the same command resumes",
        )
    return _conclude(context, opened, checkpoint)


def _conclude(context: RunContext, opened: OpenedSession, checkpoint: str) -> RunResult:
    """What follows the last step: figures, samples, the curve, the next commands. A stop in here is made up for by the next start."""
    state, bus = opened.session.state, context.bus
    figures = finishing.evaluate_final(context, opened.model, state.step)
    bus.publish(RunFinished(step=state.step, reason="finished", elapsed_seconds=state.elapsed_seconds, checkpoint=checkpoint))
    curve = None
    if context.world.is_main:
        finishing.write_samples(context, opened.model, state.step)
        curve = finishing.draw_curve(context)
        finishing.say_next_commands(context, checkpoint, curve)
    facts = planning.as_facts(state.plan, opened.model.spec)
    return RunResult(str(context.layout.path), "finished", state.step, checkpoint, figures, facts, curve)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch says that memory is used up, on a GPU and on a CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _kind(reason: str) -> str:
    return "time-limit" if reason == "time-limit" else "signal"


def _only_plan(machine: Machine, config: Config, bus: EventBus, scanned: ScannedData, choice: Any) -> RunResult:
    """The plan from sizes alone: tokens are estimated at four bytes each, nothing is tokenised."""
    spec = choose_spec(config, choice, choice.vocab_size)
    length = config.cache.sequence_length or choice.sequence_length
    sequences = max(1, scanned.train_bytes // 4 // length)
    fraction = 0.0 if config.data.validation_sources else config.data.validation_fraction
    order = mixture.estimated_order(config, train_bytes_by_source(scanned.plan, fraction), sequences, length)
    estimate = planning.estimate_run(
        config,
        spec,
        choice,
        sequences=sequences,
        sequence_length=length,
        peak_flops=machine.peak_flops,
        world_size=machine.world.size,
        device=machine.device,
        most_samples=None if order is None else order.num_samples,
    )
    lines = planning.describe_plan(
        estimate,
        spec,
        choice,
        dataset=scanned.name,
        train_bytes=scanned.train_bytes,
        device=machine.device,
        precision=machine.precision,
        documents=planning.choose_documents(config, spec, length, machine.device, machine.precision),
        mixture=mixture.describe_mixture(config, estimate.plan, mixture.mixture_of(config.data), order),
    )
    _publish_plan(bus, "dry run", estimate.plan, spec, lines)
    return RunResult("", "planned", 0, plan=planning.as_facts(estimate.plan, spec))


def _outlook(config: Config, place: run_directory.RunPlace | None) -> str:
    """What the same command without ``--dry-run`` would do."""
    if place is None:
        _, finished = run_directory.find_same(config)
        return "this starts a new run" + (f"; {finished.path} has finished with this configuration" if finished else "")
    if place.is_new:
        return f"this starts a new run in {place.layout.path}"
    verb = "has finished" if run_directory.is_finished(place.layout) else "goes on from its newest checkpoint"
    return f"the run {place.layout.path} {verb}; below is what it would be if it began now"


def _publish_plan(bus: EventBus, name: str, plan: TrainingPlan, spec: ModelSpec, lines: Sequence[str], *, tokenizer: str = "") -> None:
    bus.publish(
        PlanReady(
            run_name=name,
            total_steps=plan.total_steps,
            warmup_steps=plan.warmup_steps,
            tokens_per_step=plan.tokens_per_step,
            lines=tuple(lines),
            facts={**planning.as_facts(plan, spec), **({"tokenizer": tokenizer} if tokenizer else {})},
        )
    )
    warning = planning.warn_about_partial_cache(plan)
    if warning:
        bus.publish(Notice(message=warning, level="warning"))


__all__ = ["PreparedData", "RunResult", "train"]
