"""The gradient of an effective batch does not depend on how it is split into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.model.init import initialise
from llm_training.model.loss import TokenLoss
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.world import World
from llm_training.training.guard import LossScale
from llm_training.training.optimizers import OptimizerSet
from llm_training.training.step import MicroBatch, Stepper

ROWS, LENGTH, VOCABULARY = 7, 12, 53
SPECS = {
    "qwen3": ModelSpec(vocab_size=VOCABULARY, hidden_size=16, num_layers=2, num_attention_heads=2, num_key_value_heads=1, max_seq_len=16),
    "gpt2": ModelSpec(
        family="gpt2", vocab_size=VOCABULARY, hidden_size=16, num_layers=2, num_attention_heads=2, max_seq_len=16, tie_embeddings=True
    ),
}


class Capture(OptimizerSet):
    """An optimizer that keeps the gradients it is given and moves nothing."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.gradients: list[torch.Tensor] = []

    def step(self, step: int, rates: object) -> None:
        self.gradients = [parameter.grad.clone() for parameter in self.model.parameters() if parameter.grad is not None]

    def zero_grad(self) -> None:
        self.model.zero_grad(set_to_none=True)


def gradients_of(
    model: Transformer,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    sizes: Sequence[int],
    *,
    scale: float = 1.0,
    max_grad_norm: float | None = None,
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one step whose rows are split into micro-batches of these sizes."""
    capture = Capture(model)
    stepper = Stepper(
        TokenLoss(model),
        capture,
        device=Device("cpu", 0, "CPU", 1),
        precision=Precision("fp32", "test"),
        world=World(),
        seed=0,
        max_grad_norm=max_grad_norm,
        has_dropout=False,
        loss_scale=LossScale(value=scale),
    )
    batches = [MicroBatch(*pair) for pair in zip(input_ids.split(list(sizes)), labels.split(list(sizes)), strict=True)]
    outcome = stepper.run(0, batches, {})
    assert not outcome.is_skipped
    assert outcome.num_tokens == int((labels != -100).sum())
    return outcome.loss_nats, capture.gradients


def relative_difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Norm of the difference of all gradients over the norm of the expected ones."""
    difference = sum(float((a - b).double().square().sum()) for a, b in zip(found, expected, strict=True))
    return math.sqrt(difference / sum(float(b.double().square().sum()) for b in expected))


@st.composite
def splits(draw: st.DrawFn) -> list[int]:
    """Sizes of micro-batches that add up to the rows."""
    sizes: list[int] = []
    while sum(sizes) < ROWS:
        sizes.append(draw(st.integers(1, ROWS - sum(sizes))))
    return sizes


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, and labels with holes: single tokens, tails of padding, whole rows."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    input_ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    for row, kept in enumerate(draw(st.lists(st.integers(0, LENGTH), min_size=ROWS, max_size=ROWS))):
        labels[row, kept:] = -100
    for row, column in draw(st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, LENGTH - 1)), max_size=20)):
        labels[row, column] = -100
    if not bool((labels != -100).any()):
        labels[draw(st.integers(0, ROWS - 1)), 0] = 1
    return input_ids, labels


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("family", SPECS)
def test_every_split_gives_the_same_gradient(family: str, dtype: torch.dtype, bound: float) -> None:
    model = Transformer(SPECS[family])
    initialise(model, seed=3)
    model.to(dtype)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(batch=batches(), sizes=splits())
    def holds(batch: tuple[torch.Tensor, torch.Tensor], sizes: list[int]) -> None:
        whole_loss, whole = gradients_of(model, *batch, [ROWS])
        loss, split = gradients_of(model, *batch, sizes)
        assert loss == pytest.approx(whole_loss, rel=bound)
        assert relative_difference(split, whole) <= bound

    holds()


def test_the_loss_scale_cancels_out() -> None:
    model = Transformer(SPECS["qwen3"])
    initialise(model, seed=3)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    _, plain = gradients_of(model, ids, ids, [3, 4])
    _, scaled = gradients_of(model, ids, ids, [3, 4], scale=1024.0)
    assert relative_difference(scaled, plain) <= 1e-6


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_clipping_bounds_the_norm_over_all_parameters_and_keeps_the_direction(scale: float) -> None:
    model = Transformer(SPECS["qwen3"])
    initialise(model, seed=3)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    _, whole = gradients_of(model, ids, ids, [3, 4])
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in whole))
    _, clipped = gradients_of(model, ids, ids, [3, 4], scale=scale, max_grad_norm=norm / 4)
    assert relative_difference([4 * gradient for gradient in clipped], whole) <= 1e-5
    _, untouched = gradients_of(model, ids, ids, [3, 4], scale=scale, max_grad_norm=norm * 1.01)
    assert relative_difference(untouched, whole) <= 1e-6


def test_a_step_without_counted_tokens_moves_nothing() -> None:
    model = Transformer(SPECS["qwen3"])
    initialise(model, seed=3)
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    loss, gradients = gradients_of(model, ids, torch.full_like(ids, -100), [4, 3])
    assert loss == 0.0
    assert all(not gradient.any() for gradient in gradients)
