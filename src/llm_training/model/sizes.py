"""Parameters, FLOPs and memory of a model from its spec alone: nothing is built, no torch is imported.

Parameters are exact. FLOPs count what the mathematics needs: two per multiply-add of every matrix, and causal attention as the
half it is (a query sees (T + 1) / 2 keys on average), not the full square that some tables print; norms, activations and the softmax
are left out, as everyone leaves them out. Memory is an estimate of the peak of a training step, good to a factor of about 1.3
against what autograd really keeps; the tests hold it to that.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_training.model.spec import ModelSpec

_FLOAT32_BYTES = 4
# Extra fp32 values that an optimizer keeps for each parameter.
_OPTIMIZER_VALUES = {"adamw": {"matrix": 2, "other": 2}, "muon": {"matrix": 1, "other": 2}, "none": {"matrix": 0, "other": 0}}


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by role; a tied output matrix is counted once, as the embedding."""

    embedding: int
    head: int
    matrix: int
    norm: int
    bias: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.matrix + self.norm + self.bias


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step, by what holds them."""

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of them; the process itself (torch: some 300 MB) comes on top."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.activations_bytes + self.logits_bytes


def count_parameters(spec: ModelSpec) -> ParameterCounts:
    """Exact number of parameters of each role."""
    width, traits = spec.hidden_size, spec.traits
    num_positions = 0 if traits.uses_rope else spec.max_seq_len
    num_mlp_inputs = 2 if traits.is_gated else 1
    matrix = width * (2 * spec.query_size + 2 * spec.key_value_size) + (num_mlp_inputs + 1) * width * spec.intermediate_size
    num_norms = 2 * spec.num_layers + 1
    bias = 0
    if spec.attention_bias:
        bias += spec.query_size + 2 * spec.key_value_size + width
    if spec.mlp_bias:
        bias += num_mlp_inputs * spec.intermediate_size + width
    return ParameterCounts(
        embedding=(spec.vocab_size + num_positions) * width,
        head=0 if spec.tie_embeddings else spec.vocab_size * width,
        matrix=spec.num_layers * matrix,
        norm=num_norms * width + (2 * spec.num_layers * spec.head_dim if traits.uses_qk_norm else 0),
        bias=spec.num_layers * bias + (0 if traits.uses_rms_norm else num_norms * width),
    )


def forward_flops_per_token(spec: ModelSpec, *, num_tokens: int, is_causal: bool = True) -> float:
    """FLOPs of one token's forward pass, averaged over a sequence of ``num_tokens``, output matrix included.

    ``is_causal=False`` counts attention as the full square, which is what unfused attention executes and what ``6N + 12LDT`` means.
    """
    matrices = count_parameters(spec).matrix + spec.vocab_size * spec.hidden_size
    num_keys = (num_tokens + 1) / 2 if is_causal else num_tokens
    attention = 2 * spec.num_layers * spec.query_size * num_keys
    return 2.0 * (matrices + attention)


def train_flops_per_token(spec: ModelSpec, *, num_tokens: int, is_causal: bool = True) -> float:
    """Forward and backward: three times the forward pass; recomputation by checkpointing is work, not progress, and not counted."""
    return 3.0 * forward_flops_per_token(spec, num_tokens=num_tokens, is_causal=is_causal)


def kv_cache_bytes(spec: ModelSpec, *, batch_size: int, num_tokens: int, element_bytes: int = 4) -> int:
    """Bytes of keys and values for generation."""
    return 2 * spec.num_layers * batch_size * num_tokens * spec.key_value_size * element_bytes


def activation_bytes_per_token(spec: ModelSpec, *, num_tokens: int, element_bytes: int, stores_scores: bool) -> int:
    """Bytes that one layer keeps for the backward pass, per token.

    Each product keeps its input, each norm its normalised input, the MLP its pre-activations; ``stores_scores`` adds the
    attention weights [H, T], which unfused attention keeps.
    """
    width, inner, traits = spec.hidden_size, spec.intermediate_size, spec.traits
    norms = 4 * width if traits.uses_rms_norm else 2 * width + 2 * width * _FLOAT32_BYTES // element_bytes
    heads = 2 * spec.query_size + 2 * spec.key_value_size
    if traits.uses_qk_norm:
        heads += spec.query_size + spec.key_value_size
    mlp = (4 if traits.is_gated else 2) * inner
    scores = spec.num_attention_heads * num_tokens if stores_scores else 0
    return element_bytes * (norms + heads + mlp + scores)


def estimate_memory(
    spec: ModelSpec,
    *,
    batch_size: int,
    num_tokens: int,
    is_mixed: bool,
    optimizer: str = "muon",
    gradient_checkpointing: bool = False,
    stores_scores: bool = False,
    max_logits_bytes: int = 256 * 2**20,
) -> MemoryEstimate:
    """Bytes for training on micro-batches of ``batch_size`` sequences of ``num_tokens``.

    Args:
        spec: the model.
        batch_size: sequences held at once.
        num_tokens: tokens of each.
        is_mixed: bf16 or fp16 autocast over fp32 weights, rather than fp32 throughout.
        optimizer: ``muon``, ``adamw``, or ``none`` for evaluation.
        gradient_checkpointing: only block inputs are kept, and one block's activations at a time.
        stores_scores: the attention kernel is ``eager``.
        max_logits_bytes: the loss's bound on logits.
    """
    counts = count_parameters(spec)
    element_bytes = 2 if is_mixed else _FLOAT32_BYTES
    rows = batch_size * num_tokens
    # Autocast keeps a narrow copy of every matrix for the whole forward pass.
    narrow = element_bytes * counts.matrix if is_mixed else 0
    values = _OPTIMIZER_VALUES[optimizer]
    per_layer = rows * activation_bytes_per_token(spec, num_tokens=num_tokens, element_bytes=element_bytes, stores_scores=stores_scores)
    stream = rows * spec.hidden_size * _FLOAT32_BYTES
    kept = spec.num_layers * stream + per_layer if gradient_checkpointing else spec.num_layers * per_layer + 2 * stream
    logits = min(max_logits_bytes, 2 * rows * spec.vocab_size * element_bytes)
    head = spec.vocab_size * spec.hidden_size * (element_bytes if is_mixed else 0) + spec.vocab_size * spec.hidden_size * _FLOAT32_BYTES
    return MemoryEstimate(
        weights_bytes=_FLOAT32_BYTES * counts.total + narrow,
        gradients_bytes=_FLOAT32_BYTES * counts.total,
        optimizer_bytes=_FLOAT32_BYTES * (values["matrix"] * counts.matrix + values["other"] * (counts.total - counts.matrix)),
        activations_bytes=kept,
        logits_bytes=logits + head,
    )


def human_count(number: float) -> str:
    """``6_900_000`` -> ``6.9M``: the parameter count as names and plans show it."""
    for bound, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= bound:
            value = number / bound
            return f"{value:.1f}{suffix}" if value < 10 else f"{value:.0f}{suffix}"
    return str(int(number))
