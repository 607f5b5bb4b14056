"""The decoder-only transformer: one body for the families qwen3, llama and gpt2.

Shapes: ``B`` batch, ``T`` tokens, ``D`` model width, ``H`` query heads, ``K`` key/value heads, ``C`` channels of a head, ``V``
vocabulary. Pre-norm blocks around a residual stream; a family differs only by the parts that its traits name. Parameter names are
those of Hugging Face's Llama without the leading ``model.``; ``families.py`` translates.

It chose not to know about losses (``loss.py``), devices or autocast: the caller opens autocast, and the parts follow it.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llm_training.errors import ConfigError
from llm_training.model import attention as kernels
from llm_training.model.kv_cache import KVCache
from llm_training.model.layers import Linear, RMSNorm, compute_dtype, make_mlp, make_norm, rope_tables, rotate
from llm_training.model.spec import ModelSpec


class Context:
    """What every layer of one forward pass shares: rotary tables, the mask as the kernel wants it, the cache."""

    def __init__(
        self,
        *,
        backend: kernels.Backend,
        mask: object,
        rope: tuple[Tensor, Tensor] | None,
        dropout: float,
        cache: KVCache | None,
        positions: Tensor | None,
    ) -> None:
        self.backend = backend
        self.mask = mask
        self.rope = rope
        self.dropout = dropout
        self.cache = cache
        self.positions = positions


class Attention(nn.Module):
    """Grouped-query self-attention with optional QK-norm and rotary positions."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = spec.head_dim
        self.q_proj = Linear(spec.hidden_size, spec.query_size, has_bias=spec.attention_bias)
        self.k_proj = Linear(spec.hidden_size, spec.key_value_size, has_bias=spec.attention_bias)
        self.v_proj = Linear(spec.hidden_size, spec.key_value_size, has_bias=spec.attention_bias)
        self.o_proj = Linear(spec.query_size, spec.hidden_size, has_bias=spec.attention_bias)
        has_norm = spec.traits.uses_qk_norm
        self.q_norm = RMSNorm(spec.head_dim, spec.norm_eps) if has_norm else None
        self.k_norm = RMSNorm(spec.head_dim, spec.norm_eps) if has_norm else None

    def _heads(self, projection: Linear, norm: RMSNorm | None, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, T, D] -> heads [B, N, T, C], normalised and rotated where the family does."""
        heads = projection(x).unflatten(-1, (-1, self.head_dim))
        if norm is not None:
            heads = norm(heads)
        if rope is not None:
            heads = rotate(heads, *rope)
        return heads.transpose(1, 2)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        q = self._heads(self.q_proj, self.q_norm, x, context.rope)
        k = self._heads(self.k_proj, self.k_norm, x, context.rope)
        v = self._heads(self.v_proj, None, x, None)
        if context.cache is not None:
            k, v = context.cache.update(self.layer, k, v, cast(Tensor, context.positions))
            k, v = k.to(q.dtype), v.to(q.dtype)
        out = context.backend.attend(q, k, v, context.mask, context.dropout)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream after its own norm."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.dropout = spec.dropout
        self.input_layernorm = make_norm(spec)
        self.self_attn = Attention(spec, layer)
        self.post_attention_layernorm = make_norm(spec)
        self.mlp = make_mlp(spec)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x = x + self._drop(self.self_attn(self.input_layernorm(x), context))
        return x + self._drop(self.mlp(self.post_attention_layernorm(x)))


class Embedding(nn.Module):
    """A table [rows, D] looked up by id; zero until ``init.py`` fills it."""

    def __init__(self, num_rows: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_rows, size))

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        return F.embedding(ids, self.weight)


class Transformer(nn.Module):
    """The model of a ``ModelSpec``; all weights are zero (norms one) until ``init.initialise`` or ``families.load_hf_tensors``.

    Build it under ``torch.device("meta")`` to count without memory. ``gradient_checkpointing`` trades compute for memory: only
    the input of each block is kept and the block is run again in the backward pass.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.gradient_checkpointing = False
        self.embed_tokens = Embedding(spec.vocab_size, spec.hidden_size)
        self.embed_positions = None if spec.traits.uses_rope else Embedding(spec.max_seq_len, spec.hidden_size)
        self.layers = nn.ModuleList(Block(spec, layer) for layer in range(spec.num_layers))
        self.norm = make_norm(spec)
        self.lm_head = None if spec.tie_embeddings else Linear(spec.hidden_size, spec.vocab_size, has_bias=False)
        if spec.traits.uses_rope:
            cos, sin = rope_tables(spec)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]: the embedding's own when tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits [B, T, V] for ids [B, T]; see ``hidden`` for the rest."""
        return F.linear(self.hidden(input_ids, segment_ids=segment_ids, cache=cache), self.head_weight)

    def hidden(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """The last hidden state [B, T, D], normalised, that the output matrix is applied to.

        Args:
            input_ids: token ids [B, T].
            segment_ids: document number of each token [B, T]; attention then stays inside a document and positions restart in it.
            cache: keys and values of earlier tokens; the new ones are appended to it.

        Raises:
            ConfigError: more tokens than ``max_seq_len`` or than the cache holds.
        """
        num_before = 0 if cache is None else cache.num_filled
        if num_before + input_ids.shape[1] > self.spec.max_seq_len:
            raise ConfigError(
                f"a sequence of {num_before + input_ids.shape[1]} tokens is longer than model.max_seq_len ({self.spec.max_seq_len})",
                remedy="shorten the sequence or use a model with a longer context",
            )
        positions = _positions(input_ids, segment_ids, cache)
        x = self.embed_tokens(input_ids)
        if self.embed_positions is not None:
            x = x + (self.embed_positions.weight[: input_ids.shape[1]] if positions is None else self.embed_positions(positions))
        if self.spec.dropout and self.training:
            x = F.dropout(x, self.spec.dropout)
        context = self._context(x, positions, segment_ids, cache)
        for block in self.layers:
            x = self._run(cast(Block, block), x, context)
        if cache is not None:
            cache.advance(input_ids.shape[1])
        return self.norm(x)

    def _run(self, block: Block, x: Tensor, context: Context) -> Tensor:
        if context.cache is not None:
            return block.forward(x, context)  # past a compiled call: every new length would be compiled anew
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(block, x, context, use_reentrant=False))
        return block(x, context)

    def compile_blocks(self) -> None:
        """Compile one block for all layers, at the first call for each shape.

        The blocks share one compiled graph, so the cold start is that of a single block: 19 s where the whole model of 6 layers takes
        40 s, for a step that is 4 % slower (head and loss are fast without a compiler).
        """
        for block in self.layers:
            block.compile(dynamic=False, fullgraph=True)

    def attention_choice(
        self, *, num_tokens: int, dtype: torch.dtype, has_documents: bool = False, is_training: bool = True
    ) -> kernels.Choice:
        """Which attention kernel sequences of ``num_tokens`` get on the model's device, and why: a line for the reader."""
        return kernels.choose(
            self.spec.attention,
            device_type=self.embed_tokens.weight.device.type,
            dtype=dtype,
            num_tokens=num_tokens,
            dropout=self.spec.attention_dropout if is_training else 0.0,
            has_documents=has_documents,
        )

    def _context(self, x: Tensor, positions: Tensor | None, segment_ids: Tensor | None, cache: KVCache | None) -> Context:
        """Choose the kernel and prepare everything that the layers share, once per forward pass."""
        batch, num_tokens, _ = x.shape
        dtype = compute_dtype(x)
        choice = self.attention_choice(
            num_tokens=num_tokens, dtype=dtype, has_documents=segment_ids is not None or cache is not None, is_training=self.training
        )
        backend = kernels.BACKENDS["sdpa" if cache is not None and choice.name in ("flex", "split") else choice.name]
        visible = _visibility(num_tokens, positions, segment_ids, cache)
        num_kv = self.spec.num_key_value_heads
        mask = backend.prepare(visible, (batch, num_kv, self.spec.num_attention_heads // num_kv), dtype, x.device)
        dropout = self.spec.attention_dropout if self.training else 0.0
        rope = self._rope(positions, num_tokens, dtype) if self.spec.traits.uses_rope else None
        return Context(backend=backend, mask=mask, rope=rope, dropout=dropout, cache=cache, positions=positions)

    def _rope(self, positions: Tensor | None, num_tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1 or B, T, 1, C/2], cast once for all layers."""
        tables = (cast(Tensor, self.rope_cos), cast(Tensor, self.rope_sin))
        rows = [table[None, :num_tokens] if positions is None else table[positions] for table in tables]
        return rows[0][:, :, None].to(dtype), rows[1][:, :, None].to(dtype)


def _positions(input_ids: Tensor, segment_ids: Tensor | None, cache: KVCache | None) -> Tensor | None:
    """Position of each token [B, T], or None for 0, 1, 2, ... in every row."""
    if cache is not None:
        return cache.positions(input_ids.shape[1])
    return None if segment_ids is None else kernels.document_positions(segment_ids)


def _visibility(num_tokens: int, positions: Tensor | None, segment_ids: Tensor | None, cache: KVCache | None) -> kernels.Visibility:
    if cache is not None and cache.num_filled:
        keys = torch.arange(cache.num_filled + num_tokens, device=cache.lengths.device)
        return kernels.Visibility(num_tokens, allowed=keys <= cast(Tensor, positions)[:, :, None])
    if segment_ids is not None:
        return kernels.Visibility(num_tokens, segment_ids=segment_ids)
    return kernels.Visibility(num_tokens)
