"""What each parameter is for, so that optimizers, init and counts need no knowledge of names.

Roles: ``embedding`` (tables looked up by id), ``head`` (an untied output matrix), ``matrix`` (two-dimensional weights between hidden
states: what Muon is for), ``norm`` (gains of norms), ``bias``. A tied matrix is an embedding: it is looked up, and Muon's
orthogonal updates suit neither lookups nor a softmax over the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from llm_training.model.transformer import Transformer

ROLES = ("embedding", "head", "matrix", "norm", "bias")


def role_of(name: str) -> str:
    """The role of the parameter of that name (``layers.0.mlp.up_proj.weight`` -> ``matrix``)."""
    parts = name.split(".")
    owner, kind = parts[-2], parts[-1]
    if kind == "bias":
        return "bias"
    if owner.startswith("embed_"):
        return "embedding"
    if owner == "lm_head":
        return "head"
    return "norm" if owner.endswith("norm") else "matrix"


def parameter_roles(model: Transformer) -> dict[str, str]:
    """Role of every parameter by its name; every parameter appears once, whatever is tied."""
    return {name: role_of(name) for name, _ in model.named_parameters()}


def parameters_by_role(model: Transformer) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """For each role that the model has, its (name, parameter) pairs in the model's order."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for role, name, parameter in _walk(model):
        groups.setdefault(role, []).append((name, parameter))
    return groups


def _walk(model: Transformer) -> Iterator[tuple[str, str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        yield role_of(name), name, parameter
