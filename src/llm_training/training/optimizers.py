"""Optimizers and the table that says which parameters each one moves.

``muon``: momentum, then the nearest semi-orthogonal matrix by five Newton-Schulz iterations (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/), for the matrices of the blocks; AdamW for embeddings, head, norms and biases.
torch.optim.Muon takes one matrix at a time and iterates in bf16 only; here matrices of one shape are stacked into one
batched product, and the iteration runs in fp32 where exact gradients are asked for. A test compares the two.

Legend: N matrices of one shape, R rows (outputs), C columns (inputs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llm_training.errors import IntegrityError

# Quintic coefficients of the published method: steep at zero, so that small singular values reach one in five iterations.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MUON_WARMUP_STEPS = 300
MUON_FIRST_MOMENTUM = 0.85


def orthogonalize(matrices: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Replace the singular values of each matrix by about one.

    Args:
        matrices: [N, R, C].
        dtype: arithmetic of the iteration; bf16 is enough for training, fp32 for exactness tests.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = (matrices.mT if is_tall else matrices).to(dtype)
    # Contiguous, and each line one fused product: on a CPU the difference is 1.8 times.
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).contiguous()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


@dataclass(frozen=True)
class OptimizerSettings:
    """Plain values of one run's optimizer. Rates are peaks; betas, eps and ``learning_rate`` are AdamW's, which both have."""

    name: str
    learning_rate: float
    embedding_learning_rate: float
    muon_learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    muon_momentum: float
    newton_schulz_dtype: torch.dtype


class Muon:
    """Nesterov momentum and orthogonalized updates for matrices. State: one momentum buffer a matrix."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, momentum: float, weight_decay: float, dtype: torch.dtype) -> None:
        self.parameters = dict(parameters)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.buffers = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self._by_shape: dict[torch.Size, list[str]] = {}
        for name, parameter in self.parameters.items():
            self._by_shape.setdefault(parameter.shape, []).append(name)

    def momentum_at(self, step: int) -> float:
        """Momentum rises from 0.85 over the first 300 steps, while gradients still turn quickly."""
        share = min(1.0, step / MUON_WARMUP_STEPS)
        return self.momentum * share + min(MUON_FIRST_MOMENTUM, self.momentum) * (1.0 - share)

    @torch.no_grad()
    def step(self, step: int, learning_rate: float) -> None:
        """Apply one update with the gradients at hand."""
        momentum = self.momentum_at(step)
        for shape, names in self._by_shape.items():
            updates = []
            for name in names:
                gradient = self.parameters[name].grad
                assert gradient is not None
                buffer = self.buffers[name].lerp_(gradient, 1.0 - momentum)
                updates.append(torch.lerp(gradient, buffer, momentum))
            orthogonal = orthogonalize(torch.stack(updates), dtype=self.dtype)
            # An update of spectral norm one changes outputs by sqrt(R/C) of their size in tall matrices: scale it so.
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, orthogonal, strict=True):
                parameter = self.parameters[name]
                if self.weight_decay:
                    parameter.mul_(1.0 - learning_rate * self.weight_decay)
                parameter.add_(update, alpha=-learning_rate * scale)

    def tensors(self) -> dict[str, Tensor]:
        """The momentum buffers by the names they have in a checkpoint; the live tensors, not copies."""
        return {f"muon.momentum.{name}": buffer for name, buffer in self.buffers.items()}


class OptimizerSet:
    """The optimizers of one model behind one ``step``; state in and out as named tensors."""

    def __init__(self, roles: Iterable[tuple[str, nn.Parameter, str]], settings: OptimizerSettings, *, fused: bool = True) -> None:
        """Args:
        roles: (name, parameter, role) with role one of embedding, head, matrix, norm, bias.
        settings: see :class:`OptimizerSettings`.
        fused: use AdamW's fused kernel.
        """
        self.settings = settings
        matrices: dict[str, nn.Parameter] = {}
        embeddings: dict[str, nn.Parameter] = {}
        decayed: dict[str, nn.Parameter] = {}
        plain: dict[str, nn.Parameter] = {}
        for name, parameter, role in roles:
            if role == "embedding":
                embeddings[name] = parameter
            elif settings.name == "muon" and role == "matrix":
                matrices[name] = parameter
            elif settings.name == "adamw" and role in ("matrix", "head"):
                decayed[name] = parameter
            else:
                plain[name] = parameter
        self.muon = (
            Muon(matrices, momentum=settings.muon_momentum, weight_decay=settings.weight_decay, dtype=settings.newton_schulz_dtype)
            if matrices
            else None
        )
        self._adamw_names = [*embeddings, *decayed, *plain]
        groups = [
            {
                "params": list(embeddings.values()),
                "weight_decay": settings.weight_decay if settings.name == "adamw" else 0.0,
                "rate": "embedding",
            },
            {"params": list(decayed.values()), "weight_decay": settings.weight_decay, "rate": "adamw"},
            {"params": list(plain.values()), "weight_decay": 0.0, "rate": "adamw"},
        ]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=fused,
        )
        self._materialize()

    def _materialize(self) -> None:
        """Create AdamW's state now, so that a checkpoint at step 0 and one at step 1000 hold the same tensors."""
        for group in self.adamw.param_groups:
            for parameter in group["params"]:
                self.adamw.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device if group["fused"] else None),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }

    def step(self, step: int, rates: Mapping[str, float]) -> None:
        """One update with the rates of this step: ``embedding`` (AdamW's for embeddings), ``adamw`` (for its others) and ``muon``."""
        if self.muon is not None:
            self.muon.step(step, rates["muon"])
        for group in self.adamw.param_groups:
            group["lr"] = rates[group["rate"]]
        self.adamw.step()

    def zero_grad(self) -> None:
        """Drop the gradients of every parameter."""
        self.adamw.zero_grad(set_to_none=True)
        if self.muon is not None:
            for parameter in self.muon.parameters.values():
                parameter.grad = None

    def _adamw_parameters(self) -> list[tuple[str, nn.Parameter]]:
        parameters = [parameter for group in self.adamw.param_groups for parameter in group["params"]]
        return list(zip(self._adamw_names, parameters, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, views of the live ones."""
        found = {} if self.muon is None else self.muon.tensors()
        for name, parameter in self._adamw_parameters():
            for key, value in self.adamw.state[parameter].items():
                found[f"adamw.{key}.{name}"] = value
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a saved state into the live one.

        Raises:
            IntegrityError: names or shapes differ (another optimizer, another model).
        """
        live = self.tensors()
        problems = [f"missing {name}" for name in live.keys() - tensors.keys()] + [
            f"unknown {name}" for name in tensors.keys() - live.keys()
        ]
        problems += [
            f"{name} has shape {list(tensors[name].shape)}, expected {list(live[name].shape)}"
            for name in live.keys() & tensors.keys()
            if live[name].shape != tensors[name].shape
        ]
        if problems:
            raise IntegrityError(
                f"optimizer state does not fit: {', '.join(sorted(problems)[:6])}",
                where="training_state/optimizer.safetensors",
                remedy="resume with the optimizer and model the checkpoint was made with",
            )
        for name, tensor in live.items():
            tensor.copy_(tensors[name])
