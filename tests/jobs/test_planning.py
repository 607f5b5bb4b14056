"""From configuration to numbers: golden step counts, lengths, batches, budgets, and the shape of every preset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.end_to_end.tiny import tiny_config, write_corpus

from llm_training.config.files import preset_names
from llm_training.config.load import load_config
from llm_training.config.root import Config
from llm_training.errors import ConfigError, DataError
from llm_training.events import Event, EventBus, Notice, PlanReady
from llm_training.jobs import planning, rates
from llm_training.jobs.planning import Batching
from llm_training.jobs.train import train
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from llm_training.runtime.device import Device, Precision
from llm_training.training.dial import Choice
from llm_training.training.plan import TrainingPlan

CPU = Device("cpu", 0, "CPU", 1)
CHOICE = Choice(256, 6, 2, 2, 704, 4_096, 256, 16_384, "test")
GPT2_VOCABULARY = 50_257


def configured(**values: Any) -> Config:
    return load_config(overrides={name.replace("__", "."): value for name, value in values.items()}).config


def planned(sequences: int, *, effective: int = 72, length: int = 512, expected: int | None = None, **values: Any) -> TrainingPlan:
    return planning.build_plan(
        configured(**values),
        sequences=sequences,
        batching=Batching(effective, effective),
        sequence_length=length,
        expected_steps=expected,
        seconds_per_step=1.0,
    )


def batching(*, world_size: int = 1, begun_on: int | None = None, **values: Any) -> Batching:
    return planning.choose_batching(configured(**values), CHOICE, sequence_length=256, world_size=world_size, device=CPU, begun_on=begun_on)


EPOCHS = {"training__num_epochs": 5, "training__epoch_dataset_fraction": 0.8}


@pytest.mark.parametrize(("sequences", "steps"), [(352_217, 19_567), (472_240, 26_235), (2_500_000, 138_888)])
def test_golden_steps_from_epochs(sequences: int, steps: int) -> None:
    assert planned(sequences, **EPOCHS).total_steps == steps


def test_golden_smart_warmup_is_of_the_full_dataset_and_warns_when_it_exceeds_the_run() -> None:
    estimate = {"training__warmup_ratio": 0.025, "training__estimated_full_sequences": 2_500_000}
    plan = planned(352_217, **EPOCHS, **estimate)
    assert (plan.warmup_steps, plan.total_steps) == (3_472, 19_567)
    assert planning.warn_about_partial_cache(plan) is None
    small = planned(50_000, **EPOCHS, **estimate)
    assert (small.warmup_steps, small.total_steps) == (3_472, 2_777)
    warning = planning.warn_about_partial_cache(small)
    assert warning is not None
    assert "3,472" in warning and "2,777" in warning


def test_warmup_by_ratio_of_the_run_by_steps_and_by_default() -> None:
    assert planned(352_217, **EPOCHS, training__warmup_ratio=0.025).warmup_steps == 489
    assert planned(352_217, **EPOCHS, training__warmup_steps=123).warmup_steps == 123
    assert planned(352_217, **EPOCHS).warmup_steps == int(19_567 * 0.02)


LENGTHS: dict[str, tuple[dict[str, Any], int]] = {
    "steps": ({"training__max_steps": 100}, 100),
    "tokens": ({"training__max_tokens": 72 * 512 * 90 + 5}, 90),
    "epochs": ({"training__num_epochs": 2}, 27),
    "budget": ({"training__time_budget_minutes": 1}, 60),
}


@pytest.mark.parametrize(
    "names", [("steps", "tokens"), ("steps", "tokens", "epochs"), ("tokens", "budget"), ("steps",), ("epochs", "budget")]
)
def test_the_first_of_the_lengths_given_ends_the_run(names: Sequence[str]) -> None:
    values = {key: value for name in names for key, value in LENGTHS[name][0].items()}
    expected = 60 if "budget" in names else None
    assert planned(1_000, expected=expected, **values).total_steps == min(LENGTHS[name][1] for name in names)


def test_no_length_means_five_minutes() -> None:
    assert planning.budget_seconds(configured().training) == 300.0
    assert planning.budget_seconds(configured(training__time_budget_minutes=2).training) == 120.0
    for name in ("steps", "tokens", "epochs"):
        assert planning.budget_seconds(configured(**LENGTHS[name][0]).training) is None


def test_no_step_at_all_is_bad_data_unless_asked_for() -> None:
    with pytest.raises(DataError, match="do not fill one step of 72"):
        planned(35, training__num_epochs=2)
    assert planned(35, training__max_steps=0).total_steps == 0


@pytest.mark.parametrize(
    ("values", "world_size", "expected"),
    [
        ({"batch_size": 12}, 1, Batching(12, 12)),
        ({"batch_size": 12, "gradient_accumulation_steps": 3}, 2, Batching(72, 12)),
        ({"global_batch_tokens": 256 * 48}, 1, Batching(48, 48)),
        ({"global_batch_tokens": 256 * 48}, 4, Batching(48, 12)),
        ({"global_batch_tokens": 256 * 48, "batch_size": 5}, 2, Batching(48, 5)),
        ({"global_batch_tokens": 256 * 50}, 4, Batching(50, 12)),
        ({"global_batch_tokens": 256 * 3, "batch_size": 64}, 2, Batching(3, 2)),
        ({}, 1, Batching(64, 64)),
        ({}, 128, Batching(128, 1)),
    ],
)
def test_batch_times_accumulation_times_ranks(values: dict[str, int], world_size: int, expected: Batching) -> None:
    given = {f"training__{name}": value for name, value in values.items()}
    assert batching(world_size=world_size, **given) == expected


def test_a_run_keeps_its_steps_on_another_number_of_ranks() -> None:
    given = {"training__batch_size": 4, "training__gradient_accumulation_steps": 2}
    assert batching(world_size=2, **given) == Batching(16, 4)
    assert batching(world_size=1, begun_on=2, **given) == Batching(16, 4)
    assert batching(world_size=3, begun_on=1, **given) == Batching(8, 3)
    with pytest.raises(ConfigError, match="a step of 8 sequences cannot be shared by 9 ranks"):
        batching(world_size=9, begun_on=1, **given)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_plans_and_builds_its_model(name: str) -> None:
    """On the meta device: shapes without memory."""
    config = load_config([name]).config
    choice = planning.choose_shape(config, peak_flops=2e12, text_bytes=50_000_000, vocab_size=GPT2_VOCABULARY, device=CPU)
    spec = planning.build_spec(config, choice, config.model.vocab_size or GPT2_VOCABULARY)
    with torch.device("meta"):
        model = Transformer(spec)
    unique = {id(parameter): parameter.numel() for parameter in model.parameters()}
    assert sum(unique.values()) == planning.count_parameters(spec)
    length = config.cache.sequence_length or choice.sequence_length
    assert spec.max_seq_len >= length
    ranks = config.resources.world_size or 1
    estimate = planning.estimate_run(
        config, spec, choice, sequences=1_000_000, sequence_length=length, peak_flops=2e12, world_size=ranks, device=CPU
    )
    assert estimate.plan.total_steps >= 1
    assert estimate.plan.effective_batch % ranks == 0
    lines = planning.describe_plan(
        estimate, spec, choice, dataset="data", train_bytes=50_000_000, device=CPU, precision=Precision("fp32", "test")
    )
    (steps,) = [line for line in lines if line.startswith("Steps: ")]
    tokens = estimate.plan.effective_batch * length
    assert f" of {tokens:,} tokens ({estimate.plan.effective_batch} sequences)" in steps


def test_the_warning_about_a_partial_cache_follows_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)
    source = write_corpus(tmp_path / "corpus")
    smart = {"training.warmup_ratio": 0.1, "training.num_epochs": 1, "training.estimated_full_sequences": 1_000_000}
    config = tiny_config(tmp_path, source, **smart, **{"training.max_steps": 2})
    for dry_run in (True, False):
        seen: list[Event] = []
        bus = EventBus()
        bus.subscribe(seen.append)
        train(config, bus=bus, dry_run=dry_run)
        (place,) = [index for index, event in enumerate(seen) if isinstance(event, PlanReady)]
        warning = seen[place + 1]
        assert isinstance(warning, Notice)
        assert warning.level == "warning"
        assert "warm-up takes 12,500 steps" in warning.message


def test_a_dry_run_counts_weights_and_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two sources of one size, one four times as often as the other, which ends after two epochs: so does the run."""
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)
    sources = [str(write_corpus(tmp_path / name)) for name in ("often", "seldom")]
    capped = [f"{sources[0]}#weight=4,max_epochs=2", f"{sources[1]}#weight=1,max_epochs=2"]
    values = {"data.sources": capped, "training.max_steps": None, "training.num_epochs": None, "training.max_tokens": 10**9}
    plans: dict[bool, PlanReady] = {}
    for dry_run in (True, False):
        bus = EventBus()
        bus.subscribe(lambda event, dry_run=dry_run: plans.update({dry_run: event}) if isinstance(event, PlanReady) else None)
        train(tiny_config(tmp_path, tmp_path, **values), bus=bus, dry_run=dry_run)
    guessed, true = (list(filter(lambda line: line.startswith("Mixture: "), plans[dry_run].lines)) for dry_run in (True, False))
    assert len(guessed) == len(true) == 2
    for line in (*guessed, *true):
        found = re.search(r": ([\d.]+)% of the samples \(weight [14]\), ([\d.]+) epochs of at most 2$", line)
        # Both are used up at the end, but for what does not fill a step.
        assert found and float(found.group(1)) == pytest.approx(50.0, abs=2.0) and float(found.group(2)) == pytest.approx(2.0, abs=0.1)
    steps = {dry_run: plan.total_steps for dry_run, plan in plans.items()}
    assert steps[True] == pytest.approx(steps[False], rel=0.5), "by four bytes a token"


def test_many_passes_over_little_text_are_warned_about() -> None:
    plan = planned(1_000, **EPOCHS)
    tokens = plan.target_tokens
    assert planning.warn_about_repetition(plan, tokens // 4) is None
    warning = planning.warn_about_repetition(plan, tokens // 20)
    assert warning is not None
    assert "20 times" in warning


@pytest.mark.parametrize(
    ("family", "is_tied", "values", "ratio"),
    [
        ("qwen3", False, {}, 15.0),
        ("llama", False, {"training__learning_rate": 0.003}, 15.0),
        ("qwen3", True, {}, 1.0),
        ("gpt2", False, {}, 1.0),
        ("qwen3", False, {"training__optimizer": "adamw"}, 1.0),
        ("qwen3", False, {"training__optimizer": "muon", "model__init_from": "x"}, 1.0),
    ],
)
def test_a_new_embedding_of_size_one_has_a_rate_of_its_own(family: str, is_tied: bool, values: dict[str, Any], ratio: float) -> None:
    spec = ModelSpec(family=family, vocab_size=300, hidden_size=64, num_layers=1, num_attention_heads=1, tie_embeddings=is_tied)
    settings = rates.optimizer_settings(configured(**values), Precision("fp32", "test"), spec)
    assert settings.embedding_learning_rate == pytest.approx(ratio * settings.learning_rate)
    given = rates.optimizer_settings(configured(**values, training__embedding_learning_rate=0.7), Precision("fp32", "test"), spec)
    assert given.embedding_learning_rate == 0.7
    schedule = rates.rate_settings(configured(training__min_learning_rate=0.001).training, settings)
    plan = planned(1_000, training__max_steps=100)
    assert schedule.at(50, plan)["embedding"] == pytest.approx(ratio * schedule.at(50, plan)["adamw"])
