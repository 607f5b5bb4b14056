"""Tiny random models of every family, ours and Hugging Face's, for the tests of this room."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, Qwen3Config

from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer

VOCAB_SIZE = 97
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

HF_CONFIGS: dict[str, Any] = {
    "qwen3": lambda: Qwen3Config(**_COMMON, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False),
    "qwen3-tied-bias": lambda: Qwen3Config(**_COMMON, num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, attention_bias=True),
    "llama-grouped": lambda: LlamaConfig(**_COMMON, num_key_value_heads=2, tie_word_embeddings=False),
    "llama-tied": lambda: LlamaConfig(**_COMMON, num_key_value_heads=4, tie_word_embeddings=True),
    "llama-biases": lambda: LlamaConfig(**_COMMON, num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "llama-rope3": lambda: LlamaConfig(**_COMMON, num_key_value_heads=2, rope_parameters=dict(_LLAMA3)),
    "llama-linear": lambda: LlamaConfig(
        **_COMMON, num_key_value_heads=2, rope_parameters={"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "gpt2-untied": lambda: GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=40,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    ),
}

SPECS: dict[str, ModelSpec] = {
    "qwen3": ModelSpec(vocab_size=VOCAB_SIZE, hidden_size=32, num_layers=2, num_attention_heads=4, num_key_value_heads=2, max_seq_len=64),
    "llama": ModelSpec(
        family="llama",
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_seq_len=64,
        tie_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
    ),
    "gpt2": ModelSpec(
        family="gpt2", vocab_size=VOCAB_SIZE, hidden_size=32, num_layers=2, num_attention_heads=4, max_seq_len=64, tie_embeddings=True
    ),
}


def hf_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A Hugging Face model with weights wide enough that a wrong formula shows."""
    model = AutoModelForCausalLM.from_config(HF_CONFIGS[name]())
    randomise(model, seed)
    return model.float().eval()


def our_model(name: str, seed: int = 0) -> Transformer:
    """One of ours with such weights."""
    model = Transformer(SPECS[name])
    randomise(model, seed)
    return model.eval()


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Every parameter from a normal distribution; norms around one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, 0.2, generator=generator)


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random ids [batch, length]."""
    return torch.randint(0, VOCAB_SIZE, (batch, length), generator=torch.Generator().manual_seed(seed))
