"""What every section shares: strict, settable after creation, and re-checked when set."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """Base of the typed sections. Unknown names are refused; assignment is validated like construction."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_switch_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``batch_size: true`` is a slip, not 1 (Python counts booleans as integers)."""
        if isinstance(value, bool) and info.field_name and _is_number(cls.model_fields[info.field_name].annotation):
            raise ValueError("a number is needed, not a switch")
        return value


def _is_number(annotation: object) -> bool:
    return any(member in (int, float) for member in (get_args(annotation) or (annotation,)))
