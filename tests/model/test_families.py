"""Weights that do not fit are refused with the whole list (S-9); files of older writers are read."""

from __future__ import annotations

import pytest
import torch

from llm_training.errors import IntegrityError
from llm_training.model.families import hf_shapes, load_hf_tensors, to_hf_tensors
from llm_training.model.transformer import Transformer
from tests.model.tiny import SPECS, our_model


def _tensors(name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in to_hf_tensors(our_model(name)).items()}


@pytest.mark.parametrize("name", SPECS)
def test_missing_extra_and_misshapen_tensors_are_all_listed(name: str) -> None:
    tensors = _tensors(name)
    keys = list(tensors)
    tensors["renamed.weight"] = tensors.pop(keys[2])
    tensors[keys[3]] = torch.zeros(3, 3)
    model = our_model(name, seed=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(IntegrityError) as caught:
        load_hf_tensors(model, tensors)
    text = str(caught.value)
    assert f"missing {keys[2]}" in text and "unexpected renamed.weight" in text and f"{keys[3]} has shape [3, 3]" in text
    assert "3 problems" in text and "\n" not in text
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items()), "nothing is loaded by halves"


def test_a_long_list_is_cut_with_its_length() -> None:
    with pytest.raises(IntegrityError, match=r"25 problems.*and 5 more"):
        load_hf_tensors(Transformer(SPECS["qwen3"]), {})


def test_files_of_a_bare_base_model_and_old_buffers_are_read() -> None:
    tensors = {key.removeprefix("transformer."): value for key, value in _tensors("gpt2").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    model = Transformer(SPECS["gpt2"])
    load_hf_tensors(model, tensors)
    assert torch.equal(model.embed_tokens.weight, tensors["wte.weight"])
    llama = _tensors("llama") | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    load_hf_tensors(Transformer(SPECS["llama"]), llama)


def test_a_tied_head_stored_twice_must_agree() -> None:
    tensors = _tensors("llama")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    load_hf_tensors(Transformer(SPECS["llama"]), tensors)
    tensors["lm_head.weight"][0, 0] += 1
    with pytest.raises(IntegrityError, match="differs from the embedding"):
        load_hf_tensors(Transformer(SPECS["llama"]), tensors)


def test_shapes_from_the_spec_are_those_of_the_tensors() -> None:
    for name, spec in SPECS.items():
        assert hf_shapes(spec) == {key: tuple(value.shape) for key, value in _tensors(name).items()}


def test_loading_converts_the_dtype() -> None:
    model = Transformer(SPECS["qwen3"])
    load_hf_tensors(model, {key: value.bfloat16() for key, value in _tensors("qwen3").items()})
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
