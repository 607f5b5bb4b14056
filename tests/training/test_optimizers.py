"""Muon against torch's own, AdamW's groups, state in and out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from llm_training.errors import IntegrityError
from llm_training.training.optimizers import Muon, OptimizerSet, OptimizerSettings, orthogonalize

SETTINGS = OptimizerSettings(
    name="muon",
    learning_rate=0.01,
    embedding_learning_rate=0.15,
    muon_learning_rate=0.02,
    weight_decay=0.0,
    beta1=0.8,
    beta2=0.95,
    eps=1e-10,
    muon_momentum=0.95,
    newton_schulz_dtype=torch.float32,
)


def parameters(*shapes: tuple[int, ...], seed: int = 0) -> list[nn.Parameter]:
    gen = torch.Generator().manual_seed(seed)
    made = [nn.Parameter(torch.randn(shape, generator=gen)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=gen)
    return made


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 40), (2, 40, 16)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(1)), dtype=torch.float32))
    # Five iterations of the published coefficients leave the band 0.7 to 1.2, but for the smallest values of square matrices.
    assert values.max() < 1.25
    assert values.median() > 0.65


@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_muon_agrees_with_torch(shape: tuple[int, int]) -> None:
    torch_muon = pytest.importorskip("torch.optim", reason="torch without Muon")
    if not hasattr(torch_muon, "Muon"):
        pytest.skip("this torch has no Muon")
    ours, theirs = parameters(shape)[0], parameters(shape)[0]
    reference = torch_muon.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.0, nesterov=True)
    muon = Muon({"w": ours}, momentum=0.95, weight_decay=0.0, dtype=torch.bfloat16)
    for step in range(3):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step(10_000, 0.02)  # after Muon's momentum warm-up, which torch's lacks
        reference.step()
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)
    assert (ours - parameters(shape)[0]).abs().max() > 0.01


def test_roles_decide_who_moves_what() -> None:
    matrix, embedding, norm = parameters((4, 4), (6, 4), (4,))
    roles = [("m", matrix, "matrix"), ("e", embedding, "embedding"), ("n", norm, "norm")]
    optimizer = OptimizerSet(roles, SETTINGS)
    assert set(optimizer.tensors()) == {"muon.momentum.m"} | {
        f"adamw.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in "en"
    }
    before = [tensor.detach().clone() for tensor in (matrix, embedding, norm)]
    optimizer.step(0, {"muon": 0.02, "embedding": 0.0, "adamw": 0.0})
    assert not torch.equal(matrix, before[0])
    assert torch.equal(embedding, before[1])
    assert torch.equal(norm, before[2])
    optimizer.step(1, {"muon": 0.0, "embedding": 0.1, "adamw": 0.0})
    assert not torch.equal(embedding, before[1])
    assert torch.equal(norm, before[2])


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_the_embedding_has_its_own_rate_and_decays_with_adamw_alone(name: str) -> None:
    """AdamW's first step moves every entry by its rate, and decay takes a share of rate times decay."""
    embedding, head = parameters((6, 4), (6, 4))
    before = [parameter.detach().clone() for parameter in (embedding, head)]
    settings = replace(SETTINGS, name=name, weight_decay=0.5)
    OptimizerSet([("e", embedding, "embedding"), ("h", head, "head")], settings).step(0, {"muon": 0.0, "embedding": 0.1, "adamw": 0.01})
    decay = 0.5 if name == "adamw" else 0.0
    for parameter, start, rate in zip((embedding, head), before, (0.1, 0.01), strict=True):
        gradient = parameter.grad
        assert gradient is not None
        torch.testing.assert_close(parameter.detach(), start * (1 - rate * decay) - rate * gradient.sign(), atol=1e-5, rtol=0)


def test_state_round_trip_continues_bit_for_bit() -> None:
    def run(steps: int, restart_at: int | None) -> list[torch.Tensor]:
        params = parameters((4, 4), (6, 4), (4,))
        roles = list(zip("men", params, ("matrix", "embedding", "norm"), strict=True))
        optimizer = OptimizerSet(roles, SETTINGS)
        for step in range(steps):
            if step == restart_at:
                saved = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
                optimizer = OptimizerSet(roles, SETTINGS)
                optimizer.load(saved)
            gen = torch.Generator().manual_seed(step)
            for parameter in params:
                parameter.grad = torch.randn(parameter.shape, generator=gen)
            optimizer.step(step, {"muon": 0.02, "embedding": 0.1, "adamw": 0.01})
        return [parameter.detach() for parameter in params]

    for straight, resumed in zip(run(6, None), run(6, 3), strict=True):
        assert torch.equal(straight, resumed)


def test_a_state_of_another_model_is_refused_with_the_names() -> None:
    (matrix,) = parameters((4, 4))
    optimizer = OptimizerSet([("m", matrix, "matrix"), ("n", *parameters((4,)), "norm")], SETTINGS)
    wrong = {"muon.momentum.m": torch.zeros(2, 2), "adamw.step.x": torch.zeros(())}
    with pytest.raises(IntegrityError, match=r"unknown adamw\.step\.x"):
        optimizer.load(wrong)
