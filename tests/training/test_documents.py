"""When attention stays inside a document, and what the plan says about it."""

from __future__ import annotations

import pytest

from llm_training.runtime.device import Device
from llm_training.training.documents import choose_document_attention


@pytest.mark.parametrize(
    ("wanted", "kind", "strategy", "kernel", "is_on", "reason"),
    [
        ("true", "cpu", "best_fit", "eager", True, "as asked"),
        ("true", "cpu", "none", "eager", True, "as asked"),
        ("false", "cuda", "best_fit", "flex", False, "switched off"),
        ("auto", "cuda", "best_fit", "flex", True, "FlexAttention"),
        ("auto", "cuda", "none", "flex", False, "one document"),
        ("auto", "cuda", "best_fit", "sdpa", False, "no kernel"),
        ("auto", "cpu", "best_fit", "split", False, "on a CPU only when asked"),
        ("auto", "mps", "greedy", "sdpa", False, "no kernel"),
    ],
)
def test_the_choice_and_its_reason(wanted: str, kind: str, strategy: str, kernel: str, is_on: bool, reason: str) -> None:
    choice = choose_document_attention(wanted, Device(kind, 0, kind, 1), strategy=strategy, kernel=kernel)
    assert choice.is_on is is_on
    assert reason in choice.reason
    assert choice.line.startswith("within each document" if is_on else "across the documents")
