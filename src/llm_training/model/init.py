"""Initial weights: a table with its reasons, reproducible by seed on any number of devices.

Each parameter draws from its own generator, seeded by (seed, its name) and always on the processor: so a weight depends neither on
the order of construction, nor on the device, nor on how many ranks hold the model, and adding a layer changes no other.
Foreign checkpoints do not pass here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_training.errors import ConfigError
from llm_training.model.roles import role_of
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer

_RESIDUAL_OUTPUTS = ("o_proj", "down_proj")


@dataclass(frozen=True)
class Rule:
    """Standard deviation of a parameter from its spec and shape, and the reason for it."""

    std: Callable[[ModelSpec, torch.Size], float]
    reason: str


def _constant(std: float) -> Callable[[ModelSpec, torch.Size], float]:
    return lambda spec, shape: std


def _fan_in(spec: ModelSpec, shape: torch.Size) -> float:
    return shape[1] ** -0.5


def _gpt2_residual(spec: ModelSpec, shape: torch.Size) -> float:
    return 0.02 / (2 * spec.num_layers) ** 0.5


def _embedding(spec: ModelSpec, shape: torch.Size) -> float:
    return 0.02 if spec.tie_embeddings else 1.0


# scheme -> kind of parameter -> rule. Norm gains are 1 and biases 0 everywhere.
SCHEMES: dict[str, dict[str, Rule]] = {
    "zero_output": {
        "embedding": Rule(
            _embedding, "1 untied: the first norm rescales it anyway; tied it is the output matrix too, whose logits must start small"
        ),
        "head": Rule(_constant(0.001), "almost uniform predictions at the start: the first loss is ln(V) and its gradient is not noise"),
        "matrix": Rule(_fan_in, "keeps the variance of a normalised input whatever the width"),
        "residual": Rule(_constant(0.0), "every block starts as the identity, so depth costs no stability and no warm-up"),
    },
    "gpt2": {
        "embedding": Rule(_constant(0.02), "GPT-2's, for tables of tokens and positions"),
        "head": Rule(_constant(0.02), "GPT-2's output matrix is its embedding"),
        "matrix": Rule(_constant(0.02), "GPT-2's"),
        "residual": Rule(_gpt2_residual, "2L additions to the residual stream keep its variance bounded (GPT-2)"),
    },
    "normal": {
        kind: Rule(_constant(0.02), "what transformers' from_config does: for comparisons with it")
        for kind in ("embedding", "head", "matrix", "residual")
    },
}
DEFAULT_SCHEMES = {"qwen3": "zero_output", "llama": "zero_output", "gpt2": "gpt2"}


def has_unit_embedding(spec: ModelSpec) -> bool:
    """Whether a new model's embedding has entries of size one: untied, and a norm follows. Tied, it is the output matrix as well."""
    return not spec.tie_embeddings and DEFAULT_SCHEMES[spec.family] == "zero_output"


def initialise(model: Transformer, *, seed: int, scheme: str = "auto") -> Transformer:
    """Fill every parameter of the model in place and return it.

    Args:
        model: built on any device, meta excepted.
        seed: any integer; same seed and spec, same weights, bit for bit.
        scheme: a name of ``SCHEMES``, or ``auto`` for the family's own.

    Raises:
        ConfigError: an unknown scheme.
    """
    name = DEFAULT_SCHEMES[model.spec.family] if scheme == "auto" else scheme
    if name not in SCHEMES:
        raise ConfigError(
            f"unknown init scheme {name!r}; known: auto, {', '.join(SCHEMES)}", where="model.init", remedy="choose one of these"
        )
    rules = SCHEMES[name]
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(initial_value(parameter_name, parameter.shape, model.spec, rules, seed))
    return model


def initial_value(name: str, shape: torch.Size, spec: ModelSpec, rules: dict[str, Rule], seed: int) -> Tensor:
    """The whole initial tensor of one parameter, fp32 on the processor; a rank that holds a slice takes it from this."""
    role = role_of(name)
    if role == "norm":
        return torch.ones(shape)
    if role == "bias":
        return torch.zeros(shape)
    is_residual = role == "matrix" and name.split(".")[-2] in _RESIDUAL_OUTPUTS
    std = rules["residual" if is_residual else role].std(spec, shape)
    if std == 0:
        return torch.zeros(shape)
    generator = torch.Generator(device="cpu").manual_seed(seed_of(seed, name))
    return torch.empty(shape).normal_(0.0, std, generator=generator)


def seed_of(seed: int, name: str) -> int:
    """63-bit seed of one parameter."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
