"""What every section shares: strict, settable after creation, and re-checked when set."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the typed sections. Unknown names are refused; assignment is validated like construction."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True, allow_inf_nan=False)
