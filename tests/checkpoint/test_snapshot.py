from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_training.checkpoint.snapshot import StagingBuffers, encode_state, freeze, state_from_bytes
from llm_training.errors import NumericError
from tests.checkpoint.samples import snapshot

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values))
def test_a_state_comes_back_exactly_and_is_legal_json(state: dict[str, Any]) -> None:
    data = encode_state(state)
    assert state_from_bytes(data) == state
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_nan_and_infinities_come_back() -> None:
    state = state_from_bytes(encode_state({"loss": math.nan, "best": [math.inf, -math.inf]}))
    assert math.isnan(state["loss"]) and state["best"] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    "state", [{"a": object()}, {"a": {1: 2}}, {"a": [torch.ones(1)]}, {"a": {1, 2}}, {"a": b"x"}, {"__float__": "nan"}]
)
def test_what_would_come_back_different_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="state"):
        encode_state(state)


def test_the_copy_is_taken_at_once_and_its_memory_is_used_again() -> None:
    buffers = StagingBuffers()
    original = snapshot(1)
    expected = {name: tensor.clone() for name, tensor in original.model_tensors.items()}
    frozen = freeze(original, buffers)
    for tensor in original.model_tensors.values():
        tensor.zero_()
    assert all(torch.equal(frozen.model[name], tensor) for name, tensor in expected.items())
    places = {name: tensor.data_ptr() for name, tensor in frozen.model.items()}
    again = freeze(snapshot(2), buffers)
    assert {name: tensor.data_ptr() for name, tensor in again.model.items()} == places


def test_strided_tensors_are_stored_as_they_read() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    given_tensors = {"t": base.t(), "part": base[:, 1:3], "scalar": torch.tensor(5)}
    for buffers in (None, StagingBuffers()):
        frozen = freeze(replace(snapshot(1), model_tensors=given_tensors), buffers)
        assert all(frozen.model[name].is_contiguous() and torch.equal(frozen.model[name], tensor) for name, tensor in given_tensors.items())


def test_buffers_follow_a_changed_shape_and_forget_what_is_gone() -> None:
    buffers = StagingBuffers()
    buffers.copy("model", {"a": torch.ones(2), "b": torch.ones(2)})
    copies = buffers.copy("model", {"a": torch.ones(3, dtype=torch.float16)})
    assert copies["a"].shape == (3,) and copies["a"].dtype == torch.float16
    assert list(buffers._buffers) == [("model", "a")]


@pytest.mark.parametrize("label", ["latest", "best_model", "step-00000001", "../x", "", "Ä", "a/b", ".x"])
def test_labels_cannot_take_the_names_of_the_store(label: str) -> None:
    with pytest.raises(ValueError, match="is not a label"):
        freeze(snapshot(1, labels=(label,)))


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "../x", ".hidden", "model.safetensors"])
def test_tokenizer_files_cannot_take_the_names_of_others(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a tokenizer file"):
        freeze(replace(snapshot(1), tokenizer_files={name: b""}))


def test_non_finite_tensors_are_named() -> None:
    bad = replace(snapshot(1), optimizer_tensors={f"m{k}": torch.tensor([1.0, math.inf]) for k in range(7)})
    with pytest.raises(NumericError, match=r"NaN or infinity in m0, m1, m2, m3, m4 and 2 more") as caught:
        freeze(bad).require_finite()
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("loss", "expected"), [(1.5, 1.5), (2, 2.0), (math.nan, None), (math.inf, None), (None, None), ("1", None), (True, None)]
)
def test_only_a_finite_validation_loss_counts(loss: Any, expected: float | None) -> None:
    assert freeze(snapshot(1, loss=loss)).validation_loss == expected
