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
