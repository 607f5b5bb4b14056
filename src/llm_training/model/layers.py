"""The small parts of the transformer: norms, rotary embedding, MLPs, activations.

Shapes: ``B`` batch, ``T`` tokens, ``D`` model width, ``N`` heads of any kind, ``C`` channels of a head, ``I`` width of the MLP.

Each part computes in the dtype of the matrix products (``compute_dtype``: bf16 under autocast), because on a processor these
parts are bound by memory: half the bytes is half the time. Parameters keep their own dtype, fp32 in training.
Weights are created as zeros and norms as ones; ``init.py`` fills them, so that building a model draws no random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_training.model.cpu_functions import RMSNormFunction, RotateFunction
from llm_training.model.spec import ModelSpec, RopeScaling

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of ``x``: autocast's where the caller switched it on, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class Linear(nn.Module):
    """``y = x W^T + b`` with ``W`` of [out, in], as torch and Hugging Face store it."""

    def __init__(self, num_in: int, num_out: int, *, has_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_out, num_in))
        self.bias = nn.Parameter(torch.zeros(num_out)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size] in the compute dtype."""
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Mean and variance normalisation with weight and bias, as GPT-2 has it."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size] in the compute dtype."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(compute_dtype(x))


def _is_eager_cpu(x: Tensor) -> bool:
    """Whether the hand-written passes win: not where a compiler, an exporter or a CUDA kernel fuses the plain formula."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[..., C] -> [..., C] in the compute dtype; the mean of squares is taken in fp32 at least."""
    dtype = compute_dtype(x)
    if _is_eager_cpu(x):
        return cast(Tensor, RMSNormFunction.apply(x, weight, eps, dtype))
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps).to(dtype)


def make_norm(spec: ModelSpec) -> nn.Module:
    """The norm over the model width that the family uses."""
    kind = RMSNorm if spec.traits.uses_rms_norm else LayerNorm
    return kind(spec.hidden_size, spec.norm_eps)


class GatedMLP(nn.Module):
    """``down(act(gate(x)) * up(x))``: SwiGLU when ``act`` is SiLU."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]
        self.gate_proj = Linear(spec.hidden_size, spec.intermediate_size, has_bias=spec.mlp_bias)
        self.up_proj = Linear(spec.hidden_size, spec.intermediate_size, has_bias=spec.mlp_bias)
        self.down_proj = Linear(spec.intermediate_size, spec.hidden_size, has_bias=spec.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        # Two products, not one over the stacked weights: the halves of a stacked result are strided, and the activation on
        # strided halves costs more than the second product saves (5.0 ms against 3.2 ms at 4096 x 704, bf16, 2 threads).
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class PlainMLP(nn.Module):
    """``down(act(up(x)))``, as GPT-2 has it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]
        self.up_proj = Linear(spec.hidden_size, spec.intermediate_size, has_bias=spec.mlp_bias)
        self.down_proj = Linear(spec.intermediate_size, spec.hidden_size, has_bias=spec.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.down_proj(self.activation(self.up_proj(x)))


def make_mlp(spec: ModelSpec) -> nn.Module:
    """The MLP that the family uses."""
    return GatedMLP(spec) if spec.traits.is_gated else PlainMLP(spec)


def rope_frequencies(spec: ModelSpec) -> Tensor:
    """Angle per position of each channel pair, [C/2], in fp32 as transformers computes it."""
    exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float32, device="cpu") / spec.head_dim
    frequencies = 1.0 / (spec.rope_theta**exponents)
    scaling = spec.rope_scaling
    return frequencies if scaling is None else _SCALINGS[scaling.rope_type](frequencies, scaling)


def _scale_linear(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    return frequencies / scaling.factor


def _scale_llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Slow waves are stretched, fast ones kept, those between the two bounds blended (Llama 3.1)."""
    wavelengths = 2 * math.pi / frequencies
    ratio = scaling.original_max_seq_len / wavelengths
    blend = (ratio - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies


_SCALINGS: dict[str, Callable[[Tensor, RopeScaling], Tensor]] = {"linear": _scale_linear, "llama3": _scale_llama3}


def rope_tables(spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Cosines and sines for every position, each [max_seq_len, C/2] in fp32."""
    positions = torch.arange(spec.max_seq_len, dtype=torch.float32, device="cpu")
    angles = torch.outer(positions, rope_frequencies(spec))
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [B, T, N, C]; ``cos`` and ``sin`` are [1 or B, T, 1, C/2] in the dtype of ``x``.

    Channel i is paired with channel i + C/2, which is Hugging Face's layout of the q and k weights (not the interleaved one of
    the original Llama files).
    """
    if _is_eager_cpu(x):
        return cast(Tensor, RotateFunction.apply(x, cos, sin))
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
