"""After the last step: final figures, samples, the loss curve, and what to type next."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_training.errors import ConfigError, DataError, StoppedEarly
from llm_training.evaluation.held_out import evaluate_documents
from llm_training.events import EvaluationCompleted, Notice, Progress, SampleGenerated
from llm_training.generation.generate import StopRules, generate
from llm_training.generation.sampling import SamplingSettings
from llm_training.jobs.context import RunContext
from llm_training.model.transformer import Transformer
from llm_training.monitoring.plots import plot_loss_curve
from llm_training.runtime.compiler import eagerly
from llm_training.runtime.seeding import derive_seed
from llm_training.storage.durable import write_bytes, write_json

FINAL_TOKENS = 1_000_000
FINAL_BATCH = 16
FIGURES_FILE = "evaluation.json"


def evaluate_final(context: RunContext, model: Transformer, step: int) -> Mapping[str, Any]:
    """Score held-out text with half-window strides and write ``evaluation.json``; empty without held-out text."""
    data, config, bus = context.data, context.config, context.bus
    if not data.held_out.num_tokens:
        bus.publish(Notice(message="there is no held-out text, so there are no final figures", level="warning"))
        return {}
    window = data.sequence_length
    began = time.perf_counter()

    def report(done: int, total: int) -> None:
        if context.world.is_main:
            bus.publish(Progress(task="Final evaluation", done=done, total=total, unit="windows"))

    try:
        figures = evaluate_documents(
            model,
            data.held_out,
            separator_id=data.tokenizer.separator_id,
            token_bytes=data.token_bytes,
            window=window,
            stride=max(1, window // 2),
            batch_size=config.evaluation.batch_size or FINAL_BATCH,
            device=context.device,
            precision=context.precision,
            max_tokens=config.evaluation.final_max_tokens or FINAL_TOKENS,
            world=context.world,
            progress=report,
            should_stop=(lambda: bool(context.stop)) if context.world.size == 1 else None,
        )
    except DataError as error:
        bus.publish(Notice(message=str(error), level="warning"))
        return {}
    if figures is None:
        raise StoppedEarly(
            f"stopped by {context.stop.reason} during the final evaluation",
            where=str(context.layout.path),
            remedy="the training is finished and saved; the same command evaluates, samples and draws",
        )
    found = figures.as_json()
    if context.world.is_main:
        write_json(context.layout.path / FIGURES_FILE, {"dataset": data.name, **found})
    bus.publish(
        EvaluationCompleted(
            step=step,
            loss_nats=figures.loss_nats,
            perplexity=figures.perplexity,
            bits_per_byte=figures.bits_per_byte,
            accuracy=figures.accuracy,
            num_tokens=figures.num_tokens,
            seconds=time.perf_counter() - began,
            source="final",
            loss_by_source=figures.loss_by_source,
        )
    )
    return found


def write_samples(context: RunContext, model: Transformer, step: int) -> None:
    """Let the model write, show it, and keep it under ``samples/``; the texts are the first ones, not chosen."""
    data, settings = context.data, context.config.evaluation
    if not settings.num_samples:
        return
    prompt = [data.tokenizer.separator_id, *data.tokenizer.encode(settings.prompt)]
    sampling = SamplingSettings(
        temperature=settings.temperature, top_p=settings.top_p, seed=derive_seed(context.config.training.seed, "sample")
    )
    model.eval()
    with eagerly():
        results = generate(
            model,
            [prompt] * settings.num_samples,
            max_new_tokens=settings.sample_tokens,
            sampling=sampling,
            stop=StopRules(token_ids=frozenset({data.tokenizer.separator_id})),
        )
    for index, result in enumerate(results, 1):
        text = data.tokenizer.decode(result.token_ids)
        write_bytes(context.layout.samples / f"sample-{index}.txt", (settings.prompt + text).encode())
        context.bus.publish(SampleGenerated(step=step, prompt=settings.prompt, text=text, number=index, count=len(results)))


def draw_curve(context: RunContext) -> str | None:
    """The loss curve as PNG; None, with a line, where it cannot be drawn."""
    if not context.config.monitoring.plots:
        return None
    try:
        return str(plot_loss_curve(context.layout.path))
    except (ConfigError, DataError) as error:
        context.bus.publish(Notice(message=str(error), level="warning"))
        return None


def say_next_commands(context: RunContext, checkpoint: str, curve: str | None) -> None:
    """Where things are, and the three next useful commands."""
    run = context.layout.path
    latest = Path(run) / "checkpoints" / "latest"
    lines = [f"Checkpoint  {checkpoint}"]
    if curve:
        lines.append(f"Loss curve  {curve}")
    best = context.layout.checkpoints / "best_model"
    if best.exists() and best.resolve() != latest.resolve():
        lines.append(f"Best        {best.parent / best.resolve().name} (lowest held-out loss)")
        latest = best
    prompt = " --prompt 'def '" if context.data.name.startswith("stdlib-") else ""
    lines += [
        "",
        "Next:",
        f"  {shlex.join(['llm-generate', '--model-path', str(latest)])}{prompt}",
        f"  {shlex.join(['llm-evaluate', '--model-path', str(latest)])} --test-data FILE",
        f"  {shlex.join(['llm-plot', str(run)])} --output curves.png",
    ]
    for line in lines:
        context.bus.publish(Notice(message=line, level="plain"))
