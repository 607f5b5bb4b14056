"""Causal attention inside the documents of packed rows, one fused call a document: for processors, where no kernel knows documents.

Torch's fused kernel for processors takes a mask, but works through every block of it, also the blocks that are masked whole. Here
each document of a row is a call of its own with the plain causal mask, so work falls with the square of the documents' lengths;
neighbouring rows of one document each share a call. Forward and backward of 4,096 tokens in rows of 2,048, bf16, 2 heads of 128, 2
cores: 24 to 26 ms, against 46 to 49 with a mask and 25 to 27 for causal attention across documents. In rows of 512 tokens the
calls cost more than the blocks, so ``attention.choose`` takes masks up to there.

Both directions are custom operators, opaque to the compiler: the number of documents differs from batch to batch, and a graph that
saw it would be compiled anew for each. Registering them is the one thing this module does when it is imported.

Shapes: ``B`` rows, ``H`` heads (keys and values repeated to as many), ``T`` tokens, ``C`` channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Part = tuple[slice, slice, slice]


def split_attention(q: Tensor, k: Tensor, v: Tensor, segment_ids: Tensor) -> Tensor:
    """Attention [B, H, T, C] of queries [B, H, T, C] on keys and values [B, K, T, C], causal and within a document.

    ``segment_ids`` [B, T]: a document is a run of equal numbers.
    """
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return _split_forward(q, k, v, segment_ids)[0]


def _parts(segment_ids: Tensor) -> Iterator[Part]:
    """Index of each document in [B, H, T, ...]; neighbouring rows without a boundary are one part."""
    num_rows, num_tokens = segment_ids.shape
    ends_here = segment_ids[:, 1:] != segment_ids[:, :-1]
    bounds: list[list[int]] = [[] for _ in range(num_rows)]
    for row, place in ends_here.nonzero().tolist():
        bounds[row].append(place + 1)
    row = 0
    while row < num_rows:
        last = row + 1
        while not bounds[row] and last < num_rows and not bounds[last]:
            last += 1
        edges = [0, *bounds[row], num_tokens]
        for start, end in itertools.pairwise(edges):
            yield slice(row, last), slice(None), slice(start, end)
        row = last


def _new_like(x: Tensor) -> Tensor:
    """[B, H, T, C] laid out as [B, T, H, C], as torch's own kernel does: the projection after it then copies nothing."""
    batch, heads, tokens, channels = x.shape
    return x.new_empty(batch, tokens, heads, channels).transpose(1, 2)


def _new_sums(x: Tensor) -> Tensor:
    """[B, H, T] laid out as [B, T, H], for the logarithms of the softmax's denominators."""
    batch, heads, tokens, _ = x.shape
    return x.new_empty(batch, tokens, heads, dtype=torch.promote_types(x.dtype, torch.float32)).transpose(1, 2)


@torch.library.custom_op("llm_training::split_attention", mutates_args=(), device_types="cpu")
def _split_forward(q: Tensor, k: Tensor, v: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
    out, sums = _new_like(q), _new_sums(q)
    for part in _parts(segment_ids):
        out[part], sums[part] = _FORWARD(q[part], k[part], v[part], 0.0, True)
    return out, sums


@_split_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
    return _new_like(q), _new_sums(q)


@torch.library.custom_op("llm_training::split_attention_backward", mutates_args=(), device_types="cpu")
def _split_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, segment_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = (_new_like(q), _new_like(k), _new_like(v))
    for part in _parts(segment_ids):
        found = _BACKWARD(grad[part], q[part], k[part], v[part], out[part], sums[part], 0.0, True)
        for gradient, values in zip(gradients, found, strict=True):
            gradient[part] = values
    return gradients


@_split_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _new_like(q), _new_like(k), _new_like(v)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, segment_ids = inputs
    ctx.save_for_backward(q, k, v, *output, segment_ids)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    q, k, v, out, sums, segment_ids = ctx.saved_tensors
    return (*_split_backward(grad, q, k, v, out, sums, segment_ids), None)


_split_forward.register_autograd(_differentiate, setup_context=_keep)
