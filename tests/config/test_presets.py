"""Shipped presets and the files of the checkout's ``config/``."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_training.config.files import PRESET_DIRECTORY, preset_names
from llm_training.config.load import load_config

NAMED = {"default", "small_model", "medium_model", "large_model", "distributed", "training", "gpt2_small", "gpt2_medium"}
# preset: hidden size, layers, heads, sequence length, sequences a micro-batch, micro-batches a step
SHAPES = {
    "fineweb_415m": (1536, 24, 24, 512, 12, 4),
    "wikitext_small": (256, 4, 4, 512, 16, 2),
    "wikitext_medium": (768, 12, 12, 1024, 8, 8),
    "wikitext_large": (1024, 24, 16, 2048, 4, 16),
    "openwebtext_small": (768, 12, 12, 1024, 32, 1),
    "openwebtext_medium": (1024, 24, 16, 1024, 8, 1),
    "gpt2_wikitext2_small": (512, 6, 8, 1024, 16, 1),
    "gpt2_wikitext2_large": (1024, 24, 16, 1024, 4, 1),
    "small_model": (512, 6, 8, 512, 64, None),
    "medium_model": (768, 12, 12, 1024, 32, 4),
    "large_model": (1024, 24, 16, 2048, 8, 16),
    "gpt2_small": (768, 12, 12, 1024, None, None),
    "gpt2_medium": (1024, 24, 16, 1024, None, None),
    "nanogpt_cpu": (128, 4, 4, 64, 12, 1),
    "shakespeare_chars": (128, 4, 4, 64, 12, 1),
    "rtx_4090": (None, None, None, None, 16, 3),
    "rtx_4080": (None, None, None, None, 12, 4),
    "rtx_3080": (None, None, None, None, 10, 5),
    "rtx_3070": (None, None, None, None, 8, 6),
    "low_vram": (None, None, None, 256, 8, 6),
    "lowest_vram": (None, None, None, None, 6, 8),
    "high_vram": (None, None, None, None, 16, 3),
}


def test_the_named_presets_are_shipped() -> None:
    assert set(preset_names()) >= NAMED | set(SHAPES)


@pytest.mark.parametrize("name", preset_names())
def test_preset_loads_and_says_what_it_is_for(name: str) -> None:
    loaded = load_config([name])
    assert all(str(origin).startswith(f"preset {name}:") for origin in loaded.origins.values())
    assert (PRESET_DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_preset_has_its_shape(name: str, shape: tuple[int | None, ...]) -> None:
    config = load_config([name]).config
    model, training = config.model, config.training
    found = (model.hidden_size, model.num_layers, model.num_attention_heads, config.cache.sequence_length)
    assert (*found, training.batch_size, training.gradient_accumulation_steps) == shape


def test_nanogpt_setting() -> None:
    config = load_config(["nanogpt_cpu"]).config
    training = config.training
    assert (config.model.family, config.tokenizer.path, config.model.dropout) == ("gpt2", "bytes", 0.0)
    assert (training.optimizer, training.lr_schedule, training.max_steps, training.lr_decay_steps) == ("adamw", "cosine", 2000, 2000)
    assert (training.learning_rate, training.min_learning_rate, training.warmup_steps) == (1e-3, 1e-4, 100)
    assert (training.beta2, training.weight_decay, training.max_grad_norm) == (0.99, 0.1, 1.0)


def test_presets_lie_over_one_another() -> None:
    config = load_config(["fineweb_415m", "rtx_3070"]).config
    assert (config.model.hidden_size, config.training.batch_size, config.model.attention) == (1536, 8, "sdpa")


def test_default_changes_nothing() -> None:
    assert not load_config(["default"]).origins


def test_files_of_the_checkout_are_the_presets(repository: Path) -> None:
    """``config/NAME.yaml`` is the shipped preset, so that both ways of naming it are the same run."""
    found = {path.stem for path in (repository / "config").glob("*.yaml")}
    assert found >= {"default", "training", "distributed", "small_model", "medium_model", "large_model", "gpt2_medium"}
    for name in found:
        assert (repository / "config" / f"{name}.yaml").read_bytes() == (PRESET_DIRECTORY / f"{name}.yaml").read_bytes(), name
