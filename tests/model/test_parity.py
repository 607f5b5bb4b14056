"""Equality with transformers, both directions: logits, loss, gradients, greedy text, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llm_training.generation.generate import generate
from llm_training.generation.sampling import SamplingSettings
from llm_training.model.families import hf_shapes, load_hf_tensors, to_hf_tensors
from llm_training.model.hf_config import from_hf_config, to_generation_config, to_hf_config
from llm_training.model.loss import token_loss_sum
from llm_training.model.transformer import Transformer
from tests.model.tiny import HF_CONFIGS, SPECS, hf_model, our_model, tokens


def _from_hf(name: str, theirs: torch.nn.Module) -> Transformer:
    ours = Transformer(from_hf_config(theirs.config.to_dict())).eval()
    load_hf_tensors(ours, theirs.state_dict())
    return ours


def _write(model: Transformer, directory: Path) -> None:
    tensors = {name: tensor.clone().contiguous() for name, tensor in to_hf_tensors(model).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(to_hf_config(model.spec, eos_token_id=0)))
    (directory / "generation_config.json").write_text(json.dumps(to_generation_config(eos_token_id=0)))


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_their_weights_give_their_logits_loss_and_gradients(name: str) -> None:
    theirs = hf_model(name)
    ours = _from_hf(name, theirs)
    ids = tokens(3, 33)
    assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-4

    labels = torch.cat([ids[:, 1:], torch.full((3, 1), -100)], dim=1)
    their_loss = theirs(ids, labels=ids).loss
    our_loss = token_loss_sum(ours, ids, labels) / (3 * 32)
    assert abs(their_loss.item() - our_loss.item()) < 1e-5

    their_loss.backward()
    our_loss.backward()
    norms = [torch.stack([p.grad.norm() for p in m.parameters() if p.grad is not None]).norm().item() for m in (theirs, ours)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_gradients_agree_tensor_by_tensor(name: str) -> None:
    theirs = hf_model(name)
    ours = _from_hf(name, theirs)
    ids = tokens(2, 20)
    theirs(ids, labels=ids).loss.backward()
    (token_loss_sum(ours, ids[:, :-1], ids[:, 1:]) / (2 * 19)).backward()
    gradients = Transformer(ours.spec)
    with torch.no_grad():
        for target, source in zip(gradients.parameters(), ours.parameters(), strict=True):
            target.copy_(source.grad)
    named = dict(theirs.named_parameters())
    for key, value in to_hf_tensors(gradients).items():
        torch.testing.assert_close(value, named[key].grad, rtol=1e-3, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", SPECS)
def test_transformers_opens_our_directory(name: str, tmp_path: Path) -> None:
    ours = our_model(name)
    _write(ours, tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ids = tokens(2, 40)
    assert (theirs.eval()(ids).logits - ours(ids)).abs().max() < 1e-4


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_a_directory_of_theirs_survives_the_round_trip_bit_for_bit(name: str, tmp_path: Path) -> None:
    theirs = hf_model(name)
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    ours = Transformer(from_hf_config(json.loads((tmp_path / "config.json").read_text())))
    load_hf_tensors(ours, stored)
    again = to_hf_tensors(ours)
    assert again.keys() == stored.keys() == hf_shapes(ours.spec).keys()
    assert all(torch.equal(again[key], stored[key]) for key in stored)
    assert from_hf_config(to_hf_config(ours.spec)) == ours.spec


@pytest.mark.parametrize("name", ["qwen3", "llama-grouped", "llama-tied", "gpt2"])
def test_greedy_text_is_theirs_with_and_without_cache(name: str) -> None:
    theirs = hf_model(name)
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    ours = _from_hf(name, theirs)
    prompt = tokens(1, 5)
    wanted = [
        theirs.generate(prompt, max_new_tokens=20, do_sample=False, use_cache=use_cache)[0, 5:].tolist() for use_cache in (True, False)
    ]
    assert wanted[0] == wanted[1]
    cached = generate(ours, [prompt[0].tolist()], max_new_tokens=20, sampling=SamplingSettings(temperature=0))[0].token_ids
    assert cached == wanted[0]
    ids = prompt[0].tolist()
    for _ in range(20):
        ids.append(int(ours(torch.tensor([ids]))[0, -1].argmax()))
    assert ids[5:] == wanted[0]
