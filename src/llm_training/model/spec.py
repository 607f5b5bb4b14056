"""What a model is: one frozen value that every other file of this room reads.

It holds the architecture only. How a model is trained (precision, compile, checkpointing of activations) is not in it, with
one exception: ``attention`` names the wanted kernel, because the shape decides which kernels exist. Hugging Face's spelling
of the same facts lives in ``hf_config.py``; the fields here are the canonical names of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from llm_training.errors import ConfigError

ATTENTION_BACKENDS = ("auto", "flash", "flex", "sdpa", "eager")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
ROPE_TYPES = ("linear", "llama3")


@dataclass(frozen=True, kw_only=True)
class FamilyTraits:
    """What sets a family apart from the others; everything else is a number in the spec."""

    uses_rope: bool
    uses_rms_norm: bool
    uses_qk_norm: bool
    is_gated: bool
    has_biases: bool
    norm_eps: float
    activation: str


FAMILIES: dict[str, FamilyTraits] = {
    "qwen3": FamilyTraits(
        uses_rope=True, uses_rms_norm=True, uses_qk_norm=True, is_gated=True, has_biases=False, norm_eps=1e-6, activation="silu"
    ),
    "llama": FamilyTraits(
        uses_rope=True, uses_rms_norm=True, uses_qk_norm=False, is_gated=True, has_biases=False, norm_eps=1e-5, activation="silu"
    ),
    "gpt2": FamilyTraits(
        uses_rope=False, uses_rms_norm=False, uses_qk_norm=False, is_gated=False, has_biases=True, norm_eps=1e-5, activation="gelu_tanh"
    ),
}


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Stretching of the rotary frequencies for contexts longer than those trained on.

    ``linear`` divides every frequency by ``factor``; ``llama3`` divides only the slow ones and blends between the two wavelength
    bounds (``original_max_seq_len`` over ``low_freq_factor`` and over ``high_freq_factor``).
    """

    rope_type: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_seq_len: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The architecture of one decoder-only transformer.

    A zero in ``num_key_value_heads``, ``head_dim``, ``intermediate_size`` or ``norm_eps``, and an empty ``activation``, mean "what
    the family does"; after construction they hold the derived value.

    Raises:
        ConfigError: every value that is out of bounds or does not fit the others, all of them at once.
    """

    family: str = "qwen3"
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 0
    head_dim: int = 0
    intermediate_size: int = 0
    max_seq_len: int = 1024
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 0.0
    tie_embeddings: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = ""
    attention_bias: bool = False
    mlp_bias: bool = False
    attention: str = "auto"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(_unknown("family", self.family, FAMILIES), where="model.family", remedy="choose one of these")
        for name, value in self._derived().items():
            object.__setattr__(self, name, value)
        problems = [text for check in _CHECKS for text in check(self)]
        if problems:
            raise ConfigError("the model's shape is impossible", where="model", problems=problems)

    def _derived(self) -> dict[str, object]:
        """Values for the fields left open, from the family and from the fields given."""
        traits = self.traits
        heads = max(1, self.num_attention_heads)
        return {
            "num_key_value_heads": self.num_key_value_heads or self.num_attention_heads,
            "head_dim": self.head_dim or max(0, self.hidden_size) // heads,
            "intermediate_size": self.intermediate_size or _default_intermediate(self.hidden_size, traits),
            "norm_eps": self.norm_eps or traits.norm_eps,
            "activation": self.activation or traits.activation,
            "attention_bias": self.attention_bias or traits.has_biases,
            "mlp_bias": self.mlp_bias or traits.has_biases,
        }

    @property
    def traits(self) -> FamilyTraits:
        """What the family fixes."""
        return FAMILIES[self.family]

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key heads together; the values have the same."""
        return self.num_key_value_heads * self.head_dim

    def differences(self, other: ModelSpec) -> list[str]:
        """Each architectural field that differs, as ``name: mine -> theirs``; the attention kernel is no part of the architecture."""
        names = [item.name for item in fields(self) if item.name != "attention"]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [f"{name}: {mine} -> {theirs}" for name, mine, theirs in pairs if mine != theirs]


def _default_intermediate(hidden_size: int, traits: FamilyTraits) -> int:
    """Four times the width; a gated MLP has three matrices, so 8/3 of the width (rounded up to 64) costs the same."""
    if not traits.is_gated:
        return 4 * hidden_size
    return -(-8 * hidden_size // (3 * 64)) * 64


def _unknown(what: str, value: str, known: Any) -> str:
    return f"unknown {what} {value!r}; known: {', '.join(known)}"


def _check_positive(spec: ModelSpec) -> list[str]:
    names = (
        "vocab_size",
        "hidden_size",
        "num_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_seq_len",
        "rope_theta",
        "norm_eps",
    )
    return [f"model.{name} is {getattr(spec, name)}; it must be greater than 0" for name in names if not getattr(spec, name) > 0]


def _check_fractions(spec: ModelSpec) -> list[str]:
    values = {name: getattr(spec, name) for name in ("dropout", "attention_dropout")}
    return [f"model.{name} is {value}; it must be at least 0 and below 1" for name, value in values.items() if not 0 <= value < 1]


def _check_heads(spec: ModelSpec) -> list[str]:
    problems: list[str] = []
    if min(spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim, spec.hidden_size) <= 0:
        return problems  # already reported
    if spec.num_attention_heads % spec.num_key_value_heads:
        problems.append(
            f"model.num_attention_heads is {spec.num_attention_heads}; it must be a multiple of "
            f"num_key_value_heads ({spec.num_key_value_heads})"
        )
    if spec.traits.uses_rope and spec.head_dim % 2:
        problems.append(f"model.head_dim is {spec.head_dim}; rotary embeddings need an even number")
    if spec.family == "gpt2" and spec.query_size != spec.hidden_size:
        problems.append(f"gpt2 needs heads x head_dim ({spec.query_size}) equal to hidden_size ({spec.hidden_size})")
    if spec.family == "gpt2" and spec.num_key_value_heads != spec.num_attention_heads:
        problems.append(
            f"gpt2 has no grouped heads: num_key_value_heads is {spec.num_key_value_heads}, heads are {spec.num_attention_heads}"
        )
    return problems


def _check_names(spec: ModelSpec) -> list[str]:
    problems: list[str] = []
    if spec.attention not in ATTENTION_BACKENDS:
        problems.append(_unknown("model.attention", spec.attention, ATTENTION_BACKENDS))
    if spec.activation not in ACTIVATIONS:
        problems.append(_unknown("model.activation", spec.activation, ACTIVATIONS))
    scaling = spec.rope_scaling
    if scaling is not None and scaling.rope_type not in ROPE_TYPES:
        problems.append(_unknown("rope_scaling type", scaling.rope_type, ROPE_TYPES))
    if scaling is not None and not scaling.factor >= 1:
        problems.append(f"rope_scaling factor is {scaling.factor}; it must be at least 1")
    if spec.family == "qwen3" and spec.mlp_bias:
        problems.append("qwen3 has no bias in its MLP: model.mlp_bias must be false")
    return problems


_CHECKS: tuple[Callable[[ModelSpec], list[str]], ...] = (_check_positive, _check_fractions, _check_heads, _check_names)
