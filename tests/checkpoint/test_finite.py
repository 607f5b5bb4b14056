from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_training.checkpoint.finite import has_non_finite, non_finite_names

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_value_anywhere_is_found(dtype: torch.dtype, value: float) -> None:
    for position in (0, 131_071, 131_072, 299_999):
        tensor = torch.zeros(300_000).to(dtype)
        tensor[position] = torch.tensor(value).to(dtype)
        assert has_non_finite(tensor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn])
def test_it_agrees_with_torch_on_every_value_of_the_narrow_types(dtype: torch.dtype) -> None:
    bits = torch.arange(2 ** (8 * dtype.itemsize), dtype=torch.int32).to(torch.uint8 if dtype.itemsize == 1 else torch.uint16)
    values = bits.view(dtype)
    expected = ~torch.isfinite(values.float())
    assert [has_non_finite(values[k : k + 1]) for k in range(len(values))] == expected.tolist()


@given(st.lists(st.floats(width=32)))
def test_it_agrees_with_torch_on_single_floats(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert has_non_finite(tensor) == (not bool(torch.isfinite(tensor).all()))


def test_extremes_integers_and_nothing_are_finite() -> None:
    for dtype in FLOATS[:4]:
        assert not has_non_finite(torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).tiny], dtype=dtype))
    assert not has_non_finite(torch.tensor([-1, 2**62]))
    assert not has_non_finite(torch.empty(0))
    assert not has_non_finite(torch.tensor(1.0))
    assert non_finite_names([("a", torch.ones(2)), ("b", torch.tensor(float("nan")))]) == ["b"]
