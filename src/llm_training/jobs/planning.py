"""From configuration and facts to numbers: shape, batch, length. Pure arithmetic plus the dial; touches no file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_training.cache.packing import PackingStats
from llm_training.config.root import Config
from llm_training.config.training import TrainingConfig
from llm_training.errors import ConfigError, DataError
from llm_training.jobs.datasets import PreparedData
from llm_training.model import attention, sizes
from llm_training.model.spec import ModelSpec
from llm_training.runtime.device import Device, Precision, free_bytes
from llm_training.training import dial
from llm_training.training.compiling import CompileChoice
from llm_training.training.documents import DocumentChoice, choose_document_attention
from llm_training.training.plan import TrainingPlan, default_interval, steps_for_epochs, warmup_for_ratio

DEFAULT_BUDGET_MINUTES = 5.0
SECONDS_PER_MINUTE = 60.0
WARMUP_FRACTION = 0.02
EVALUATIONS_PER_RUN = 10
SECONDS_BETWEEN_SAVES = 600.0
LARGEST_CPU_MICRO_BATCH_TOKENS = 16_384
SIZE_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}

MANY_PASSES = 16


@dataclass(frozen=True)
class Batching:
    """``effective`` sequences a step over all ranks, in micro-batches of at most ``micro`` per rank."""

    effective: int
    micro: int


def has_length(training: TrainingConfig) -> bool:
    """True when epochs, steps or tokens say how long to train."""
    return any(value is not None for value in (training.num_epochs, training.max_steps, training.max_tokens))


def budget_seconds(training: TrainingConfig) -> float | None:
    """The time budget; five minutes when nothing says how long to train."""
    if training.time_budget_minutes is not None:
        return training.time_budget_minutes * SECONDS_PER_MINUTE
    return None if has_length(training) else DEFAULT_BUDGET_MINUTES * SECONDS_PER_MINUTE


def parse_size(size: str) -> int | None:
    """``10M`` as 10,000,000; None for auto."""
    return None if size == "auto" else round(float(size[:-1]) * SIZE_UNITS[size[-1]])


def choose_shape(config: Config, *, peak_flops: float, text_bytes: int, vocab_size: int | None, device: Device) -> dial.Choice:
    """Ask the dial, with everything that the configuration fixes."""
    model, training, cache = config.model, config.training, config.cache
    length = cache.sequence_length or model.max_seq_len
    total = training.max_tokens
    if total is None and training.max_steps is not None:
        per_step = training.global_batch_tokens or (training.batch_size or 16) * (training.gradient_accumulation_steps or 1) * (
            length or 256
        )
        total = training.max_steps * per_step
    if total is None and training.num_epochs is not None:
        total = int(training.num_epochs * text_bytes / 4)
    return dial.choose(
        flops_per_second=peak_flops,
        seconds=budget_seconds(training),
        total_tokens=total,
        text_bytes=text_bytes,
        parameters=parse_size(model.size),
        vocab_size=vocab_size or config.tokenizer.vocab_size,
        sequence_length=length,
        has_gpu=device.kind == "cuda",
    )


def build_spec(config: Config, choice: dial.Choice, vocab_size: int) -> ModelSpec:
    """The architecture: what is configured, else what the dial chose.

    Raises:
        ConfigError: the shape is impossible, or model.vocab_size is not the tokenizer's.
    """
    model = config.model
    if model.vocab_size is not None and model.vocab_size != vocab_size:
        raise ConfigError(
            f"model.vocab_size={model.vocab_size} but the tokenizer has {vocab_size} entries",
            remedy="leave model.vocab_size empty, or set tokenizer.vocab_size or tokenizer.path to match",
        )
    width = model.hidden_size or choice.hidden_size
    is_dialled = model.hidden_size is None
    heads = model.num_attention_heads or (choice.num_attention_heads if is_dialled else max(1, width // 64))
    key_value_heads = model.num_key_value_heads or (
        choice.num_key_value_heads if is_dialled and model.num_attention_heads is None and model.family != "gpt2" else heads
    )
    length = config.cache.sequence_length or choice.sequence_length
    return ModelSpec(
        family=model.family,
        vocab_size=vocab_size,
        hidden_size=width,
        num_layers=model.num_layers or choice.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=model.head_dim or 0,
        intermediate_size=model.intermediate_size or 0,
        max_seq_len=max(model.max_seq_len or length, length),
        rope_theta=model.rope_theta,
        norm_eps=model.norm_eps or 0.0,
        tie_embeddings=model.family == "gpt2" if model.tie_embeddings is None else model.tie_embeddings,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        activation={"gelu_new": "gelu_tanh", None: ""}.get(model.activation, model.activation or ""),
        attention=model.attention,
    )


def choose_batching(
    config: Config, choice: dial.Choice, *, sequence_length: int, world_size: int, device: Device, begun_on: int | None = None
) -> Batching:
    """Effective and micro-batch.

    ``global_batch_tokens`` is canonical; batch x accumulation x ranks is accepted in its place, and a batch alone means one
    micro-batch a step.

    Args:
        begun_on: the number of ranks that the run began on, when not the present one: its steps stay as large as they were.

    Raises:
        ConfigError: more ranks than sequences in a step.
    """
    training = config.training
    accumulation, ranks = training.gradient_accumulation_steps, begun_on or world_size
    if training.global_batch_tokens is None and (accumulation is not None or training.batch_size is not None):
        micro = training.batch_size or _default_micro(choice.global_batch_tokens // sequence_length, sequence_length, device)
        effective = micro * (accumulation or 1) * ranks
    else:
        tokens = training.global_batch_tokens or max(choice.global_batch_tokens, ranks * sequence_length)
        effective = max(1, round(tokens / sequence_length))
        micro = training.batch_size or _default_micro(max(1, effective // world_size), sequence_length, device)
    if effective < world_size:
        raise ConfigError(
            f"a step of {effective} sequences cannot be shared by {world_size} ranks",
            where="training.global_batch_tokens",
            remedy="raise the batch or start fewer ranks",
        )
    return Batching(effective, min(micro, -(-effective // world_size)))


def _default_micro(share: int, sequence_length: int, device: Device) -> int:
    """The largest divisor of the share that keeps a forward pass within bounds; equal micro-batches compile once."""
    limit = LARGEST_CPU_MICRO_BATCH_TOKENS if device.kind == "cpu" else 4 * LARGEST_CPU_MICRO_BATCH_TOKENS
    most = max(1, limit // sequence_length)
    return next((size for size in range(min(share, most), 0, -1) if share % size == 0), 1)


def build_plan(
    config: Config,
    *,
    sequences: int,
    batching: Batching,
    sequence_length: int,
    expected_steps: int | None,
    seconds_per_step: float,
    most_samples: int | None = None,
) -> TrainingPlan:
    """Steps, warm-up and intervals.

    Args:
        sequences: rows of the packed cache.
        expected_steps: steps that the time budget is expected to allow; None without a budget.
        seconds_per_step: expected; spaces the checkpoints about ten minutes apart.
        most_samples: sequences until every source of a mixture has reached its cap; None without.

    Raises:
        DataError: the data do not fill one step.
    """
    training = config.training
    totals = [value for value in (training.max_steps, expected_steps) if value is not None]
    if training.max_tokens is not None:
        totals.append(training.max_tokens // (batching.effective * sequence_length))
    if training.num_epochs is not None:
        totals.append(steps_for_epochs(sequences, training.num_epochs, training.epoch_dataset_fraction, batching.effective))
    if most_samples is not None:
        totals.append(most_samples // batching.effective)
    total = min(totals)
    if total < 1 and training.max_steps != 0:
        raise DataError(
            f"{sequences:,} sequences of {sequence_length} tokens do not fill one step of {batching.effective}",
            remedy="add data, train more epochs, or lower training.batch_size",
        )
    warmup = choose_warmup(training, total, effective_batch=batching.effective)
    return TrainingPlan(
        total_steps=total,
        first_total_steps=total,
        warmup_steps=warmup,
        effective_batch=batching.effective,
        sequence_length=sequence_length,
        sequences=sequences,
        first_sequences=sequences,
        epochs=training.num_epochs,
        epoch_fraction=training.epoch_dataset_fraction,
        # The other schedules have no stretch of their own that decays; new data and lengths may join them to the end.
        decay_start=1.0 - training.decay_fraction if training.lr_schedule == "wsd" else 1.0,
        horizon_steps=training.lr_decay_steps,
        logging_steps=training.logging_steps,
        eval_steps=training.eval_steps or default_interval(total, EVALUATIONS_PER_RUN),
        save_steps=training.save_steps or max(1, min(max(total, 1), math.ceil(SECONDS_BETWEEN_SAVES / seconds_per_step))),
    )


def choose_warmup(training: TrainingConfig, total_steps: int, *, effective_batch: int) -> int:
    """Warm-up in steps: as given, or a ratio of the full dataset's steps when its size is estimated, else of the run."""
    if training.warmup_steps is not None:
        return training.warmup_steps
    full = total_steps
    if training.estimated_full_sequences is not None:
        full = steps_for_epochs(
            training.estimated_full_sequences, training.num_epochs or 1.0, training.epoch_dataset_fraction, effective_batch
        )
    return warmup_for_ratio(training.warmup_ratio if training.warmup_ratio is not None else WARMUP_FRACTION, full)


def probe_kernels(config: Config, spec: ModelSpec, device: Device, precision: Precision) -> None:
    """Before documents are left to FlexAttention on a GPU, see that it runs there."""
    if device.kind == "cuda" and config.cache.document_attention != "false" and attention.HAS_TRITON:
        attention.probe_flex(
            device.torch,
            precision.dtype,
            num_heads=spec.num_attention_heads,
            num_kv=spec.num_key_value_heads,
            head_dim=spec.head_dim,
        )


def choose_documents(
    config: Config, spec: ModelSpec, sequence_length: int, device: Device, precision: Precision, packed: PackingStats | None = None
) -> DocumentChoice:
    """Whether attention stays inside the documents of a row, for a run that starts here on ``packed`` rows, if they are known."""
    kernel = attention.choose(
        spec.attention,
        device_type=device.kind,
        dtype=precision.dtype,
        num_tokens=sequence_length,
        dropout=spec.attention_dropout,
        has_documents=True,
    )
    return choose_document_attention(
        config.cache.document_attention,
        device,
        strategy=config.cache.packing_strategy,
        kernel=kernel.name,
        documents_per_row=None if packed is None else packed.num_documents / max(1, packed.num_rows),
    )


def uses_documents(config: Config, start: Mapping[str, Any]) -> bool:
    """The same for a run that has started: what is asked for, else what its start recorded (nothing, before the choice existed)."""
    wanted = config.cache.document_attention
    return wanted == "true" if wanted != "auto" else bool(start.get("document_attention"))


def warn_about_partial_cache(plan: TrainingPlan) -> str | None:
    """A line when the warm-up, by steps or from the full estimate, is longer than the run as the cache is now."""
    if plan.warmup_steps <= plan.total_steps:
        return None
    return (
        f"warm-up takes {plan.warmup_steps:,} steps, but the run has {plan.total_steps:,} with what the cache holds now: "
        "the rate reaches its peak only if the cache grows or the run is made longer"
    )


def warn_about_repetition(plan: TrainingPlan, num_tokens: int) -> str | None:
    """A line when the run sees each of its ``num_tokens`` unique tokens more often than does any good.

    Up to about four passes are worth nearly as much as new text, past sixteen little is left (Muennighoff et al. 2023).
    """
    passes = plan.target_tokens / max(1, num_tokens)
    if passes <= MANY_PASSES:
        return None
    return (
        f"the run passes {passes:,.0f} times over {num_tokens:,} tokens and will learn them by heart: give more text or less time; "
        "best_model keeps the best point"
    )


def as_facts(plan: TrainingPlan, spec: ModelSpec) -> Mapping[str, Any]:
    """What the run log and scripts may want of the plan."""
    return {
        "total_steps": plan.total_steps,
        "warmup_steps": plan.warmup_steps,
        "target_tokens": plan.target_tokens,
        "effective_batch": plan.effective_batch,
        "sequence_length": plan.sequence_length,
        "sequences": plan.sequences,
        "hidden_size": spec.hidden_size,
        "num_layers": spec.num_layers,
        "vocab_size": spec.vocab_size,
    }


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to be, before it starts. ``seconds`` is None only when nothing can be said."""

    plan: TrainingPlan
    micro_batch: int
    seconds: float
    tokens_per_second: float


def estimate_run(
    config: Config,
    spec: ModelSpec,
    choice: dial.Choice,
    *,
    sequences: int,
    sequence_length: int,
    peak_flops: float,
    world_size: int,
    device: Device,
    most_samples: int | None = None,
) -> Estimate:
    """Batch and plan, with the speed guessed as a share of the matmul peak; the first steps then show the true one."""
    batching = choose_batching(config, choice, sequence_length=sequence_length, world_size=world_size, device=device)
    speed = dial.USABLE_SHARE * peak_flops * world_size / flops_per_token(spec, sequence_length)
    per_step = batching.effective * sequence_length / speed
    budget = budget_seconds(config.training)
    plan = build_plan(
        config,
        sequences=sequences,
        batching=batching,
        sequence_length=sequence_length,
        expected_steps=None if budget is None else max(1, int(budget / per_step)),
        seconds_per_step=per_step,
        most_samples=most_samples,
    )
    return Estimate(plan, batching.micro, plan.total_steps * per_step, speed)


def count_parameters(spec: ModelSpec) -> int:
    """All parameters, each counted once."""
    return sizes.count_parameters(spec).total


def flops_per_token(spec: ModelSpec, sequence_length: int) -> float:
    """Training FLOPs of one token, forward and backward."""
    return sizes.train_flops_per_token(spec, num_tokens=sequence_length)


def default_eval_tokens(plan: TrainingPlan) -> int:
    """Held-out tokens of an evaluation within training: half a percent of the run's, so that ten cost a few percent of its time."""
    return max(4_096, min(1_000_000, plan.target_tokens // 200))


def describe_plan(
    estimate: Estimate,
    spec: ModelSpec,
    choice: dial.Choice,
    *,
    dataset: str,
    train_bytes: int,
    device: Device,
    precision: Precision,
    data: PreparedData | None = None,
    documents: DocumentChoice | None = None,
    compiled: CompileChoice | None = None,
    mixture: Iterable[tuple[str, str]] = (),
) -> tuple[str, ...]:
    """The plan as aligned lines: what is trained, on what, for how long, and why so."""
    plan = estimate.plan
    is_dialled = (spec.hidden_size, spec.num_layers) == (choice.hidden_size, choice.num_layers)
    parameters = sizes.count_parameters(spec)
    memory = sizes.estimate_memory(
        spec, batch_size=estimate.micro_batch, num_tokens=plan.sequence_length, is_mixed=precision.name != "fp32"
    ).total_bytes
    seen = plan.target_tokens
    rows = [("Data", f"{dataset}: {train_bytes / 1e6:,.1f} MB of training text")]
    if data is not None:
        unique = data.num_tokens
        rows += [
            ("Rows", f"{unique:,} unique tokens in {plan.sequences:,} sequences of {plan.sequence_length}"),
            (
                "Tokenizer",
                f"{data.tokenizer.vocab_size:,} entries, {train_bytes / max(1, unique):.2f} bytes per token, {data.tokenizer.backend}",
            ),
        ]
    rows += mixture
    rows += [
        ("Model", f"{spec.family}, {parameters.total:,} parameters: {spec.num_layers} layers, width {spec.hidden_size}, "
                  f"{_heads(spec)}, context {plan.sequence_length}"),
        ("Size", choice.reason if is_dialled else "as configured"),
        ("Device", f"{device.name}; {precision.name} ({precision.reason})"),
    ]  # fmt: skip
    if documents is not None:
        rows.append(("Attention", documents.line))
    if compiled is not None:
        rows.append(("Compile", f"{'on' if compiled.is_on else 'off'} ({compiled.reason})"))
    rows += [
        ("Steps", f"{plan.total_steps:,} of {plan.tokens_per_step:,} tokens ({plan.effective_batch} sequences), "
                  f"warm-up {plan.warmup_steps:,}"),
        ("Tokens", f"{seen:,} in all" + (f", {seen / data.num_tokens:.2f} epochs" if data is not None and data.num_tokens else "")),
        ("Memory", _memory_line(memory, free_bytes(device))),
        ("Time", f"about {_duration(estimate.seconds)} (guessed at {estimate.tokens_per_second:,.0f} tok/s; "
                 "the first steps show the true speed)"),
    ]  # fmt: skip
    return tuple(f"{name}: {text}" for name, text in rows)


def _memory_line(needed_bytes: int, free: int) -> str:
    line = f"about {needed_bytes / 1e9:.2f} GB for the model and a step, beside the program itself"
    return f"{line}; only {free / 1e9:.1f} GB are free: lower training.batch_size" if needed_bytes > free else line


def _heads(spec: ModelSpec) -> str:
    return f"{spec.num_attention_heads} head{'' if spec.num_attention_heads == 1 else 's'} of {spec.head_dim}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
