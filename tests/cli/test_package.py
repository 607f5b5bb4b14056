"""The public names of the package."""

from __future__ import annotations

import pytest

import llm_training
from llm_training.config.model import ModelConfig


def test_every_public_name_resolves() -> None:
    for name in llm_training.__all__:
        assert getattr(llm_training, name) is not None
        assert name in dir(llm_training)


def test_names_are_the_ones_of_their_homes() -> None:
    assert llm_training.ModelConfig is ModelConfig
    assert llm_training.DatasetConfig is llm_training.DataConfig
    assert issubclass(llm_training.ConfigError, llm_training.LlmTrainingError)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trianer'"):
        llm_training.Trianer  # noqa: B018


def test_sections_are_settable_and_checked() -> None:
    config = llm_training.TrainingConfig(batch_size=12, learning_rate=3e-4)
    config.batch_size = 8
    assert config.batch_size == 8
    with pytest.raises(ValueError):
        config.batch_size = 0


def test_sections_take_the_spellings_of_other_trainers() -> None:
    model = llm_training.ModelConfig(d_model=768, n_heads=12, n_layers=12, d_ff=3072, activation="gelu", pre_norm=True)
    assert (model.hidden_size, model.num_attention_heads, model.num_layers, model.intermediate_size) == (768, 12, 12, 3072)
    training = llm_training.TrainingConfig(lr_scheduler="cosine", use_amp=False, checkpoint_dir="./checkpoints", report_to=[])
    assert (training.lr_schedule, training.precision, training.output_dir) == ("cosine", "fp32", ".")
    model.hidden_size = 64
    assert model.hidden_size == 64 and model.num_layers == 12


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("ModelConfig", {"d_model": 8, "hidden_size": 8}, "both given"),
        ("ModelConfig", {"d_modl": 8}, "Extra inputs"),
        ("TrainingConfig", {"use_flash_attention": True}, "sets model.attention"),
        ("TrainingConfig", {"use_deepspeed": True}, "torchrun"),
        ("TrainingConfig", {"batch_size": True}, "a number is needed"),
    ],
)
def test_wrong_spellings_in_python(section: str, values: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        getattr(llm_training, section)(**values)
