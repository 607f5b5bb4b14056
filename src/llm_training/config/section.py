"""What every section shares: strict, settable after creation, and re-checked when set."""

from __future__ import annotations

from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from llm_training.config.aliases import RefusedError, own_spellings


class Section(BaseModel):
    """Base of the typed sections. Unknown names are refused; assignment is validated like construction."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _accept_other_names(cls, data: Any) -> Any:
        """``ModelConfig(d_model=64)``: the spellings of :mod:`aliases` that stay within the section."""
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        if given.keys() <= cls.model_fields.keys():
            return given
        return _canonical(cls.__name__.removesuffix("Config").lower(), given)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_switch_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``batch_size: true`` is a slip, not 1 (Python counts booleans as integers)."""
        if isinstance(value, bool) and info.field_name and _is_number(cls.model_fields[info.field_name].annotation):
            raise ValueError("a number is needed, not a switch")
        return value


def _canonical(section: str, given: dict[str, Any]) -> dict[str, Any]:
    spellings = own_spellings(section)
    named = {name: value for name, value in given.items() if name not in spellings}
    for name, value in given.items():
        if name not in spellings:
            continue
        try:
            means = spellings[name](value)
        except RefusedError as error:
            raise ValueError(f"{name} {error}") from None
        target_section, _, key = (means.target or "").partition(".")
        if target_section not in ("", section):
            raise ValueError(f"{name} sets {means.target}; set it there")
        if key in named:
            raise ValueError(f"{name} and {key} are both given; give one")
        if key:
            named[key] = means.value
    return named


def _is_number(annotation: object) -> bool:
    return any(member in (int, float) for member in (get_args(annotation) or (annotation,)))
