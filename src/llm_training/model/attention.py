"""Attention kernels behind one signature, and the choice among them.

Shapes: ``B`` batch, ``H`` query heads, ``K`` key/value heads, ``G = H / K``, ``T`` queries, ``S`` keys, ``C`` channels.

A backend has two functions: ``prepare`` turns the facts about who may see whom into whatever mask its kernel wants (once per
forward pass), ``attend`` does one layer. The choice is a pure function of the request, the device and the shape, never of a
timing, so that a resumed run makes the same choice; its reason is a sentence to print. Measured on 2 cores, bf16, heads of 128,
forward and backward: at 256 tokens plain products take 5.2 ms where the fused CPU kernel takes 9.5 ms; from 512 tokens on the
fused kernel wins (2.3 times at 512, 5 times at 1024). With documents masks cost at most a tenth up to 512 tokens; in longer rows
each document is a call of its own (``split_attention.py``).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from llm_training.model.split_attention import split_attention

CPU_EAGER_MAX_TOKENS = 256
CPU_MASK_MAX_TOKENS = 512
HAS_TRITON = importlib.util.find_spec("triton") is not None
PROBE_TOKENS = 256
# Why a kernel that should run here does not, by its name: what `probe_flex` found. Plain data, since compiled code reads it too.
PROBLEMS: dict[str, str] = {}


@dataclass(frozen=True)
class Visibility:
    """Who may see whom in one forward pass.

    Causal among ``num_tokens`` tokens; within runs of equal ``segment_ids`` [B, T] where those are given; or whatever ``allowed``
    says, a boolean mask [1 or B, T, S].
    """

    num_tokens: int
    allowed: Tensor | None = None
    segment_ids: Tensor | None = None

    def mask(self) -> Tensor | None:
        """The boolean mask [1 or B, T, S]; None for plain causal attention."""
        if self.allowed is None and self.segment_ids is not None:
            return document_mask(self.segment_ids)
        return self.allowed


@dataclass(frozen=True)
class Backend:
    """One kernel: ``prepare(visibility, B, K, G, dtype, device) -> mask`` and ``attend(q, k, v, mask, dropout) -> out``."""

    name: str
    prepare: Callable[[Visibility, tuple[int, int, int], torch.dtype, torch.device], Any]
    attend: Callable[[Tensor, Tensor, Tensor, Any, float], Tensor]


@dataclass(frozen=True)
class Choice:
    """The backend taken and, for the reader, why."""

    name: str
    reason: str


def causal_mask(num_tokens: int, device: torch.device) -> Tensor:
    """Lower triangle, bool [1, T, T]."""
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()[None]


def document_mask(segment_ids: Tensor) -> Tensor:
    """Causal and within the same document: bool [B, T, T] from ids [B, T]."""
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same & causal_mask(segment_ids.shape[1], segment_ids.device)


def document_positions(segment_ids: Tensor) -> Tensor:
    """Position of each token inside its document, int64 [B, T]; a document is a run of equal ids."""
    num_tokens = segment_ids.shape[1]
    index = torch.arange(num_tokens, device=segment_ids.device)
    starts_here = torch.ones_like(segment_ids, dtype=torch.bool)
    starts_here[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = torch.where(starts_here, index, 0).cummax(dim=1).values
    return index - starts


def _prepare_eager(visible: Visibility, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask broadcastable to [B * K, G * T, S]: queries of a group lie behind each other, so that no key is copied."""
    _, num_kv, group = shape
    allowed = visible.mask()
    if allowed is None:
        allowed = causal_mask(visible.num_tokens, device)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, float("-inf"))
    if group > 1:
        mask = mask.repeat(1, group, 1)
    return mask if mask.shape[0] == 1 or num_kv == 1 else mask.repeat_interleave(num_kv, dim=0)


def _attend_eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    batch, num_heads, num_tokens, channels = q.shape
    num_kv = k.shape[1]
    # Scaling the queries costs a pass over [B, T, H, C]; as alpha of the product its gradient is a pass over [B, H, T, S].
    q = (q * channels**-0.5).reshape(batch * num_kv, -1, channels)
    k, v = (x.reshape(batch * num_kv, -1, channels) for x in (k, v))
    weights = torch.baddbmm(mask, q, k.transpose(1, 2)).softmax(dim=-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return (weights @ v).view(batch, num_heads, num_tokens, channels)


def _prepare_sdpa(visible: Visibility, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    allowed = visible.mask()
    return None if allowed is None else allowed[:, None]


def _attend_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    is_grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, enable_gqa=is_grouped)


def _attend_flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    if mask is not None:  # flash kernels know only the causal mask
        return _attend_sdpa(q, k, v, mask, dropout)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        return _attend_sdpa(q, k, v, None, dropout)


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    """FlexAttention compiled once; without compilation it would store all scores."""
    return torch.compile(flex_attention, dynamic=False)


def _prepare_flex(visible: Visibility, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Any:
    segment_ids = visible.segment_ids

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        causal = query >= key
        return causal if segment_ids is None else causal & (segment_ids[batch, query] == segment_ids[batch, key])

    batch = None if segment_ids is None else shape[0]
    return create_block_mask(is_visible, batch, None, visible.num_tokens, visible.num_tokens, device=device)


def _attend_flex(q: Tensor, k: Tensor, v: Tensor, mask: Any, dropout: float) -> Tensor:
    return _compiled_flex()(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])


def _prepare_split(visible: Visibility, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    return visible.segment_ids


def _attend_split(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    return _attend_sdpa(q, k, v, None, dropout) if mask is None else split_attention(q, k, v, mask)


def probe_flex(device: torch.device, dtype: torch.dtype, *, num_heads: int, num_kv: int, head_dim: int) -> None:
    """Try FlexAttention on documents once, forward and backward, against the masked kernel; note in ``PROBLEMS`` what goes wrong.

    It is compiled for each device and shape of heads: whether that works is known only by doing it.
    """
    PROBLEMS.pop("flex", None)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, PROBE_TOKENS, head_dim) for heads in (num_heads, num_kv, num_kv)]
    inputs = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]
    segment_ids = (torch.arange(PROBE_TOKENS, device=device) // 100)[None]
    visible = Visibility(PROBE_TOKENS, segment_ids=segment_ids)

    def run(backend: Backend) -> list[Tensor]:
        mask = backend.prepare(visible, (1, num_kv, num_heads // num_kv), dtype, device)
        out = backend.attend(inputs[0], inputs[1], inputs[2], mask, 0.0)
        return [out.detach(), *torch.autograd.grad(out.float().square().sum(), inputs)]

    expected = run(BACKENDS["sdpa"])
    try:
        found = run(BACKENDS["flex"])
    except Exception as error:  # the compiler is a large program of others: any failure of it means another kernel
        PROBLEMS["flex"] = f"FlexAttention does not run here ({type(error).__name__})"
        return
    if not all(torch.allclose(a.float(), b.float(), rtol=0.1, atol=0.1) for a, b in zip(found, expected, strict=True)):
        PROBLEMS["flex"] = "FlexAttention gives other numbers than the masked kernel here"


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("eager", _prepare_eager, _attend_eager),
        Backend("sdpa", _prepare_sdpa, _attend_sdpa),
        Backend("flash", _prepare_sdpa, _attend_flash),
        Backend("flex", _prepare_flex, _attend_flex),
        Backend("split", _prepare_split, _attend_split),
    )
}


def _why_not_flash(device_type: str, dtype: torch.dtype, dropout: float, has_documents: bool) -> str:
    if device_type != "cuda":
        return f"flash kernels of that name need CUDA, the device is {device_type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash kernels need fp16 or bf16, the model computes in {str(dtype).removeprefix('torch.')}"
    return "flash kernels know no document mask" if has_documents else ""


def _why_not_flex(device_type: str, dtype: torch.dtype, dropout: float, has_documents: bool) -> str:
    if device_type != "cuda":
        return f"FlexAttention has no backward pass on {device_type}"
    if not HAS_TRITON:
        return "FlexAttention needs Triton"
    if "flex" in PROBLEMS:
        return PROBLEMS["flex"]
    return "FlexAttention has no dropout" if dropout else ""


_WHY_NOT: dict[str, Callable[[str, torch.dtype, float, bool], str]] = {"flash": _why_not_flash, "flex": _why_not_flex}


def choose(
    requested: str, *, device_type: str, dtype: torch.dtype, num_tokens: int, dropout: float = 0.0, has_documents: bool = False
) -> Choice:
    """The backend for sequences of ``num_tokens`` queries, and the reason.

    ``requested`` is one of ``auto, flash, flex, sdpa, eager``. What cannot run here falls back to the automatic choice, and the
    reason says so.
    """
    prefix = ""
    if requested != "auto":
        obstacle = _WHY_NOT[requested](device_type, dtype, dropout, has_documents) if requested in _WHY_NOT else ""
        if not obstacle:
            return Choice(requested, "as configured")
        prefix = f"{requested} was asked for, but {obstacle}; "
    if device_type == "cuda" and has_documents and not _why_not_flex(device_type, dtype, dropout, True):
        return Choice("flex", prefix + "document-limited attention skips whole blocks in FlexAttention")
    if device_type == "cpu" and has_documents and num_tokens > CPU_MASK_MAX_TOKENS and not dropout:
        return Choice("split", prefix + f"on a CPU documents attend one by one in rows longer than {CPU_MASK_MAX_TOKENS} tokens")
    if device_type == "cpu" and num_tokens <= CPU_EAGER_MAX_TOKENS:
        return Choice("eager", prefix + f"on a CPU plain products are fastest up to {CPU_EAGER_MAX_TOKENS} tokens")
    return Choice("sdpa", prefix + "torch's scaled_dot_product_attention picks the fused kernel for this device")
