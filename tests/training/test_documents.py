"""When attention stays inside a document, and what the plan says about it."""

from __future__ import annotations

import pytest

from llm_training.runtime.device import Device
from llm_training.training.documents import choose_document_attention


@pytest.mark.parametrize(
    ("wanted", "kind", "strategy", "kernel", "per_row", "is_on", "reason"),
    [
        ("true", "cpu", "best_fit", "eager", 5.0, True, "as asked"),
        ("true", "cpu", "none", "eager", 5.0, True, "as asked"),
        ("false", "cuda", "best_fit", "flex", 5.0, False, "switched off"),
        ("auto", "cuda", "best_fit", "flex", 5.0, True, "FlexAttention"),
        ("auto", "cuda", "none", "flex", 5.0, False, "one document"),
        ("auto", "cuda", "best_fit", "sdpa", 5.0, False, "no kernel"),
        ("auto", "cpu", "best_fit", "split", None, False, "unless documents turn out shorter"),
        ("auto", "cpu", "best_fit", "split", 0.9, False, "longer than rows"),
        ("auto", "cpu", "best_fit", "split", 1.5, True, "1.5 documents for each row"),
        ("auto", "cpu", "best_fit", "sdpa", 5.0, False, "no kernel skips documents on this cpu device"),
        ("auto", "cpu", "none", "split", 1.0, False, "one document"),
        ("auto", "mps", "greedy", "sdpa", 5.0, False, "no kernel"),
    ],
)
def test_the_choice_and_its_reason(
    wanted: str, kind: str, strategy: str, kernel: str, per_row: float | None, is_on: bool, reason: str
) -> None:
    choice = choose_document_attention(wanted, Device(kind, 0, kind, 1), strategy=strategy, kernel=kernel, documents_per_row=per_row)
    assert choice.is_on is is_on
    assert reason in choice.reason
    assert choice.line.startswith("within each document" if is_on else "across the documents")
