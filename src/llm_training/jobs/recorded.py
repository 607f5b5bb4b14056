"""What an earlier session of a run recorded at its start, for what is decided before the session opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_training.storage.append import read_jsonl
from llm_training.storage.runs import RunLayout
from llm_training.training.decisions import Decisions
from llm_training.training.dial import Choice


def recorded_start(layout: RunLayout | None) -> Mapping[str, Any]:
    """The choices of step 0; empty when there are none. Raises IntegrityError for a damaged record."""
    if layout is None or not layout.decisions.exists():
        return {}
    return Decisions(read_jsonl(layout.decisions), lambda _: None).at(0, "start") or {}


def recorded_choice(layout: RunLayout | None) -> Choice | None:
    """The dial's choice: another speed measured today must not change the model."""
    start = recorded_start(layout)
    return Choice(**start["choice"]) if start else None
