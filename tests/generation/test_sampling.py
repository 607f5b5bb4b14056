"""Sampling follows the distribution it claims, and nothing but seed, row and position moves it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_training.errors import ConfigError
from llm_training.generation.sampling import SamplingSettings, next_tokens, uniform

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0, 3.0])


def _draws(settings: SamplingSettings, count: int = 4000) -> list[float]:
    tokens = next_tokens(LOGITS.expand(count, -1), settings, rows=range(count), positions=[0] * count)
    return [tokens.count(token) / count for token in range(5)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature: float) -> None:
    wanted = (LOGITS / temperature).softmax(0)
    found = torch.tensor(_draws(SamplingSettings(temperature=temperature, seed=1)))
    assert (found - wanted).abs().max() < 0.03


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert [share > 0 for share in _draws(SamplingSettings(temperature=1.0, top_k=2))] == [False, True, False, False, True]
    # probabilities in falling order: 0.64, 0.23, 0.09, 0.03, 0.01
    assert [share > 0 for share in _draws(SamplingSettings(temperature=1.0, top_p=0.7))] == [False, True, False, False, True]
    assert _draws(SamplingSettings(temperature=1.0, top_p=0.5))[4] == 1.0
    assert _draws(SamplingSettings(temperature=1.0, top_k=1))[4] == 1.0


def test_temperature_zero_is_the_most_likely() -> None:
    assert next_tokens(LOGITS[None], SamplingSettings(temperature=0, top_k=3), rows=[0], positions=[0]) == [4]


@given(st.integers(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_uniform_numbers_lie_in_the_unit_interval(seed: int, row: int, position: int) -> None:
    value = uniform(seed, row, position)
    assert 0 <= value < 1
    assert value == uniform(seed, row, position)


def test_uniform_numbers_are_spread() -> None:
    values = [uniform(0, row, position) for row in range(50) for position in range(50)]
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.02)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "finite"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_bad_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingSettings(**values)
