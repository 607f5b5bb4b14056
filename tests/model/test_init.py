"""Initial weights depend on the seed and the name alone; roles cover every parameter."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from llm_training.errors import ConfigError
from llm_training.model.init import SCHEMES, initialise
from llm_training.model.loss import token_loss_sum
from llm_training.model.roles import ROLES, parameter_roles, parameters_by_role
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from tests.model.tiny import SPECS, tokens


@pytest.mark.parametrize("name", SPECS)
def test_same_seed_same_weights_whatever_ran_before(name: str) -> None:
    first = initialise(Transformer(SPECS[name]), seed=7)
    torch.manual_seed(123)
    second = initialise(Transformer(SPECS[name]), seed=7)
    other = initialise(Transformer(SPECS[name]), seed=8)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)


def test_a_deeper_model_begins_with_the_same_layers() -> None:
    small = initialise(Transformer(SPECS["qwen3"]), seed=0)
    deep = initialise(Transformer(replace(SPECS["qwen3"], num_layers=5)), seed=0)
    values = dict(deep.named_parameters())
    assert all(torch.equal(parameter, values[name]) for name, parameter in small.named_parameters())


@pytest.mark.parametrize("name", SPECS)
def test_the_first_loss_is_that_of_a_guess(name: str) -> None:
    spec = replace(SPECS[name], hidden_size=64, head_dim=16)
    model = initialise(Transformer(spec), seed=0)
    ids = tokens(8, 33)
    loss = token_loss_sum(model, ids[:, :-1], ids[:, 1:]) / (8 * 32)
    assert loss.item() == pytest.approx(math.log(97), abs=0.1)


def test_standard_deviations_are_those_of_the_table() -> None:
    wide = ModelSpec(vocab_size=400, hidden_size=256, num_layers=2, num_attention_heads=2)
    ours = dict(initialise(Transformer(wide), seed=0).named_parameters())
    assert ours["layers.0.self_attn.q_proj.weight"].std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert not ours["layers.1.mlp.down_proj.weight"].any() and not ours["layers.1.self_attn.o_proj.weight"].any()
    assert ours["lm_head.weight"].std().item() == pytest.approx(0.001, rel=0.05)
    gpt2 = ModelSpec(family="gpt2", vocab_size=400, hidden_size=256, num_layers=8, num_attention_heads=2, tie_embeddings=True)
    theirs = dict(initialise(Transformer(gpt2), seed=0).named_parameters())
    assert theirs["layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert theirs["layers.0.mlp.down_proj.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert all(rule.reason for rules in SCHEMES.values() for rule in rules.values())


def test_an_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="known: auto, zero_output, gpt2, normal"):
        initialise(Transformer(SPECS["qwen3"]), seed=0, scheme="magic")


def test_roles() -> None:
    roles = parameter_roles(Transformer(SPECS["qwen3"]))
    assert roles["embed_tokens.weight"] == "embedding" and roles["lm_head.weight"] == "head"
    assert roles["layers.0.self_attn.q_norm.weight"] == roles["norm.weight"] == "norm"
    assert roles["layers.1.mlp.gate_proj.weight"] == "matrix"
    gpt2 = Transformer(SPECS["gpt2"])
    assert parameter_roles(gpt2)["embed_positions.weight"] == "embedding"
    assert parameter_roles(gpt2)["norm.bias"] == "bias"
    groups = parameters_by_role(gpt2)
    assert set(groups) <= set(ROLES) and "head" not in groups
    assert sum(len(group) for group in groups.values()) == len(list(gpt2.parameters()))
    assert all(parameter.dim() == 2 for _, parameter in groups["matrix"])
