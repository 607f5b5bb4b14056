"""The loss in slices equals the formula, value and gradients, in every dtype and for every bound on memory."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.model.loss import count_labels, head_loss_sum, rows_per_slice, token_loss_sum, token_losses
from tests.model.tiny import our_model, tokens


def _case(num_rows: int = 37, vocab: int = 50, width: int = 8, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_rows, width, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab, width, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, vocab, (num_rows,), generator=generator)
    labels[::5] = -100
    return hidden, weight, labels


@pytest.mark.parametrize("logits_bytes", [1, 5000, 2**30])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradients_are_those_of_the_formula(logits_bytes: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, labels = _case(dtype=dtype)
    loss = head_loss_sum(hidden, weight, labels, logits_bytes=logits_bytes)
    wanted = F.cross_entropy(F.linear(hidden, weight), labels, ignore_index=-100, reduction="sum")
    assert loss.dtype == dtype
    torch.testing.assert_close(loss, wanted, rtol=tolerance, atol=tolerance)
    ours = torch.autograd.grad(loss / 7, (hidden, weight))
    theirs = torch.autograd.grad(wanted / 7, (hidden, weight))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    assert not ours[0][::5].any(), "an uncounted token has no gradient"


def test_under_bf16_autocast_it_is_as_exact_as_fp32_logits() -> None:
    hidden, weight, labels = _case(num_rows=2000, vocab=500, width=64, dtype=torch.float32)
    wanted = F.cross_entropy(F.linear(hidden.bfloat16(), weight.bfloat16()).float(), labels, reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head_loss_sum(hidden, weight, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    ours, theirs = (torch.autograd.grad(value, (hidden, weight)) for value in (loss, wanted))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.01 * other.norm()


def test_without_gradients_it_scores_exactly() -> None:
    hidden, weight, labels = _case()
    with torch.no_grad():
        loss = head_loss_sum(hidden, weight, labels, logits_bytes=1)
    torch.testing.assert_close(loss, head_loss_sum(hidden, weight, labels))
    nats, is_right = token_losses(hidden, weight, labels, logits_bytes=3000)
    assert not nats.requires_grad and not nats[::5].any() and not is_right[::5].any()
    assert is_right.tolist() == (F.linear(hidden, weight).argmax(1) == labels).tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_any_split_of_a_batch_gives_the_same_gradient(parts: list[int]) -> None:
    model = our_model("qwen3").double()
    ids = tokens(sum(parts), 10)
    labels = ids.roll(-1, 1)
    labels[::2, 4:] = -100
    total = count_labels(labels)
    (token_loss_sum(model, ids, labels) / total).backward()
    whole = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for piece_ids, piece_labels in zip(ids.split(parts), labels.split(parts), strict=True):
        (token_loss_sum(model, piece_ids, piece_labels) / total).backward()
    for parameter, wanted in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-12, atol=1e-14)


@given(st.integers(1, 5000), st.integers(1, 200_000), st.sampled_from([2, 4, 8]), st.integers(1, 2**30))
def test_slices_keep_the_bound_and_are_equal(num_rows: int, vocab: int, element_bytes: int, bound: int) -> None:
    rows = rows_per_slice(num_rows, vocab, element_bytes, bound)
    assert 1 <= rows <= num_rows
    assert rows == 1 or 2 * rows * vocab * element_bytes <= bound
    assert math.ceil(num_rows / rows) * rows - num_rows < math.ceil(num_rows / rows) or rows == 1


def test_a_hopeless_token_counts_finitely_and_nan_stays_nan() -> None:
    hidden, weight = torch.tensor([[1000.0]], requires_grad=True), torch.tensor([[1.0], [-1.0]], requires_grad=True)
    assert 80 < head_loss_sum(hidden, weight, torch.tensor([1])).item() < 100
    assert head_loss_sum(hidden * math.nan, weight, torch.tensor([1])).isnan()


def test_nothing_counted_is_zero() -> None:
    hidden, weight, _ = _case()
    loss = head_loss_sum(hidden, weight, torch.full((37,), -100))
    loss.backward()
    assert loss.item() == 0 and not hidden.grad.any() and not weight.grad.any()
