"""config.json in and out: both spellings of the rotary keys, and refusal of what is not computed."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig

from llm_training.errors import ConfigError, IntegrityError
from llm_training.model.hf_config import from_hf_config, to_hf_config
from llm_training.model.spec import ModelSpec, RopeScaling
from tests.model.tiny import HF_CONFIGS, SPECS

BASE = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 500.0},
        {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
        {"rope_theta": 500.0, "rope_scaling": None},
        {"rope_theta": 1.0, "rope_parameters": {"rope_theta": 500.0}},
    ],
)
def test_old_and_new_rope_keys_are_read(keys: dict) -> None:
    spec = from_hf_config(BASE | keys)
    assert (spec.rope_theta, spec.rope_scaling) == (500.0, None)


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}},
    ],
)
def test_old_and_new_scaling_keys_are_read(keys: dict) -> None:
    spec = from_hf_config(BASE | keys)
    assert spec.rope_theta == 500.0
    assert spec.rope_scaling == RopeScaling(rope_type="llama3", factor=8.0, original_max_seq_len=16)
    linear = from_hf_config(BASE | {"rope_scaling": {"type": "linear", "factor": 2.0}})
    assert linear.rope_scaling is not None and linear.rope_scaling.factor == 2.0


@pytest.mark.parametrize("name", SPECS)
def test_what_we_write_is_json_that_both_generations_read(name: str) -> None:
    config = json.loads(json.dumps(to_hf_config(SPECS[name], eos_token_id=0)))
    assert from_hf_config(config) == SPECS[name]
    theirs = AutoConfig.for_model(**config)
    assert from_hf_config(theirs.to_dict()) == SPECS[name]
    if SPECS[name].traits.uses_rope:
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_their_config_survives(name: str) -> None:
    spec = from_hf_config(HF_CONFIGS[name]().to_dict())
    assert from_hf_config(to_hf_config(spec)) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "known: qwen3, llama, gpt2"),
        ({"model_type": None}, "known: qwen3, llama, gpt2"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope type 'yarn'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding windows"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "multiple of num_key_value_heads"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window"),
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4, "embd_pdrop": 0.5}, "must be equal"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_hf_config(BASE | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": None}, "lacks vocab_size"),
        ({"intermediate_size": None}, "lacks intermediate_size"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"tie_word_embeddings": 1}, "tie_embeddings is 1"),
        ({"rope_parameters": [1]}, "not a mapping"),
        ({"rope_scaling": {"rope_type": "linear"}}, "needs a factor"),
    ],
)
def test_a_damaged_config_is_an_integrity_error(change: dict, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        from_hf_config(BASE | change)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"family": "bloom"}, "known: qwen3, llama, gpt2"),
        ({"hidden_size": 0}, "model.hidden_size is 0; it must be greater than 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"num_key_value_heads": 3}, "multiple of"),
        ({"head_dim": 7}, "even number"),
        ({"attention": "magic"}, "known: auto, flash"),
        ({"activation": "mish"}, "known: silu"),
        ({"family": "gpt2", "head_dim": 4}, "equal to hidden_size"),
        ({"family": "gpt2", "num_key_value_heads": 2}, "no grouped heads"),
        ({"rope_scaling": RopeScaling(rope_type="yarn", factor=2.0)}, "known: linear, llama3"),
        ({"rope_scaling": RopeScaling(rope_type="linear", factor=0.5)}, "at least 1"),
        ({"mlp_bias": True}, "qwen3 has no bias"),
    ],
)
def test_an_impossible_shape_is_refused(values: dict, message: str) -> None:
    good = {"vocab_size": 97, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 4}
    with pytest.raises(ConfigError, match=message):
        ModelSpec(**(good | values))


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSpec(vocab_size=-1, hidden_size=32, num_layers=0, num_attention_heads=4, dropout=2.0)
    assert len(caught.value.problems) == 3


def test_derived_fields_and_differences() -> None:
    spec = ModelSpec(vocab_size=97, hidden_size=256, num_layers=2, num_attention_heads=2)
    assert (spec.head_dim, spec.num_key_value_heads, spec.intermediate_size, spec.activation) == (128, 2, 704, "silu")
    other = ModelSpec(vocab_size=98, hidden_size=256, num_layers=2, num_attention_heads=2, attention="eager")
    assert spec.differences(other) == ["vocab_size: 97 -> 98"]
