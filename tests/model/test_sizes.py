"""Counts from the spec alone against the built model, torch's FLOP counter, and what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llm_training.model import sizes
from llm_training.model.init import initialise
from llm_training.model.loss import token_loss_sum
from llm_training.model.roles import parameters_by_role
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from tests.model.tiny import SPECS

SHAPES = {
    **SPECS,
    "qwen3-default": ModelSpec(vocab_size=4096, hidden_size=256, num_layers=6, num_attention_heads=2, head_dim=128, max_seq_len=256),
    "gpt2-124m": ModelSpec(
        family="gpt2", vocab_size=50257, hidden_size=768, num_layers=12, num_attention_heads=12, max_seq_len=1024, tie_embeddings=True
    ),
    "qwen3-0.6b": ModelSpec(
        vocab_size=151936,
        hidden_size=1024,
        num_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        max_seq_len=4096,
        tie_embeddings=True,
    ),
    "qwen3-bias": replace(SPECS["qwen3"], attention_bias=True),
    "gpt2-untied": replace(SPECS["gpt2"], tie_embeddings=False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_exact_by_role(name: str) -> None:
    counts = sizes.count_parameters(SHAPES[name])
    with torch.device("meta"):
        model = Transformer(SHAPES[name])
    built = {role: sum(parameter.numel() for _, parameter in group) for role, group in parameters_by_role(model).items()}
    assert {role: getattr(counts, role) for role in built} == built
    assert counts.total == sum(built.values())


def test_known_models_have_their_known_size() -> None:
    assert sizes.count_parameters(SHAPES["gpt2-124m"]).total == 124_439_808
    assert sizes.count_parameters(SHAPES["qwen3-0.6b"]).total == 596_049_920
    assert sizes.human_count(124_439_808) == "124M" and sizes.human_count(6_900_000) == "6.9M" and sizes.human_count(12) == "12"


@pytest.mark.parametrize("name", ["qwen3", "llama", "gpt2", "qwen3-default"])
def test_flops_are_those_of_the_counter(name: str) -> None:
    spec = replace(SHAPES[name], attention="eager")
    model = initialise(Transformer(spec), seed=0)
    length = 64
    ids = torch.zeros(2, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward:
        model(ids)
    counted = sizes.forward_flops_per_token(spec, num_tokens=length, is_causal=False)
    assert counted == pytest.approx(forward.get_total_flops() / (2 * length), rel=0.02)
    with FlopCounterMode(display=False) as both:
        token_loss_sum(model, ids, ids).backward()
    train = sizes.train_flops_per_token(spec, num_tokens=length, is_causal=False)
    assert train == pytest.approx(both.get_total_flops() / (2 * length), rel=0.03)


def test_causal_attention_is_counted_as_the_half_it_is() -> None:
    spec = SHAPES["qwen3-default"]
    full, half = (sizes.train_flops_per_token(spec, num_tokens=256, is_causal=flag) for flag in (False, True))
    assert full - half == pytest.approx(3 * 2 * 2 * 6 * 256 * (256 - 257 / 2))
    matrices = sizes.count_parameters(spec).matrix + 4096 * 256
    assert full == 6 * matrices + 12 * 6 * 256 * 256


def _kept_bytes(model: Transformer, batch: int, length: int, *, is_mixed: bool) -> int:
    """Bytes of all distinct storages that autograd keeps, parameters excepted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.zeros(batch, length, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
        hidden = model.hidden(ids)
    del hidden
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", ["qwen3-default", "gpt2", "llama"])
@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_activation_memory_within_a_third(name: str, is_mixed: bool, backend: str) -> None:
    spec = replace(SHAPES[name], attention=backend, hidden_size=256, num_attention_heads=4, num_key_value_heads=4, head_dim=64)
    spec = replace(spec, max_seq_len=256, intermediate_size=704, attention_bias=False, mlp_bias=False)
    model = initialise(Transformer(spec), seed=0)
    estimate = sizes.estimate_memory(spec, batch_size=2, num_tokens=128, is_mixed=is_mixed, stores_scores=backend == "eager")
    narrow = estimate.weights_bytes - 4 * sizes.count_parameters(spec).total
    ratio = (estimate.activations_bytes + narrow) / _kept_bytes(model, 2, 128, is_mixed=is_mixed)
    assert 0.75 < ratio < 1.33, ratio


def test_memory_by_part() -> None:
    spec = SHAPES["qwen3-default"]
    counts = sizes.count_parameters(spec)
    muon = sizes.estimate_memory(spec, batch_size=16, num_tokens=256, is_mixed=True)
    adamw = sizes.estimate_memory(spec, batch_size=16, num_tokens=256, is_mixed=True, optimizer="adamw")
    light = sizes.estimate_memory(spec, batch_size=16, num_tokens=256, is_mixed=True, gradient_checkpointing=True)
    assert adamw.optimizer_bytes == 8 * counts.total and adamw.optimizer_bytes - muon.optimizer_bytes == 4 * counts.matrix
    assert light.activations_bytes < muon.activations_bytes / 2
    assert muon.total_bytes == sum(
        (muon.weights_bytes, muon.gradients_bytes, muon.optimizer_bytes, muon.activations_bytes, muon.logits_bytes)
    )
    assert sizes.kv_cache_bytes(spec, batch_size=2, num_tokens=10) == 2 * 6 * 2 * 10 * 256 * 4
