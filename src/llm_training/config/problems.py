"""Pydantic's findings as lines a person can act on: field, value, bound, origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import ValidationError

from llm_training.config.fields import all_fields
from llm_training.config.given import DEFAULT, Origin, Value, shown
from llm_training.config.model import SIZE_PATTERN
from llm_training.config.root import CrossCheckError

_FIELD_NAME: Final = re.compile(r"[a-z]+\.[a-z0-9_]+")
# Pydantic's own words name types of Python; these name what is asked for.
_WORDS: Final[Mapping[str, str]] = {
    "finite_number": "must be a finite number",
    "string_unicode": "must be text that is valid Unicode",
    "string_pattern_mismatch": "must be {words}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} item",
    "int_parsing_size": "must be a number of at most 18 digits",
}

_PATTERNS: Final[Mapping[str, str]] = {SIZE_PATTERN: "auto or a number of parameters such as 500K, 10M or 1.5B"}


def from_validation(
    error: ValidationError, written: Mapping[str, Value], origins: Mapping[str, Origin]
) -> tuple[list[str], frozenset[str]]:
    """Lines for every finding, and the names of the fields at fault (empty for findings that span fields)."""
    lines: list[str] = []
    names: set[str] = set()
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"][:2])
        if name not in all_fields():
            lines += [_cross_line(problem, origins) for problem in _cross_problems(detail.get("ctx", {}))]
            continue
        if name in names:
            continue
        names.add(name)
        bound = _requirement(name, detail["type"], cast("Mapping[str, Any]", detail.get("ctx", {})))
        value = shown(written.get(name, detail["input"]))
        lines.append(f"{name} is {value} but {bound}; at {origins.get(name, DEFAULT)}")
    return lines, frozenset(names)


def _requirement(name: str, kind: str, context: Mapping[str, Any]) -> str:
    bound = all_fields()[name].bound
    if kind in _WORDS:
        words = _PATTERNS.get(str(context.get("pattern")), f"text like {context.get('pattern')}")
        return _WORDS[kind].format(**context, words=words) + (f" {bound}" if bound and kind == "finite_number" else "")
    return f"must be {bound}" if bound else f"must be {all_fields()[name].type_text}"


def _cross_problems(context: Mapping[str, Any]) -> tuple[str, ...]:
    error = context.get("error")
    return error.problems if isinstance(error, CrossCheckError) else (str(error),)


def _cross_line(problem: str, origins: Mapping[str, Origin]) -> str:
    """A cross check names its fields first; the place is that of each one that was set."""
    places = [str(origins[name]) for name in dict.fromkeys(_FIELD_NAME.findall(problem)) if name in origins]
    return f"{problem}; at {' and '.join(dict.fromkeys(places)) or DEFAULT}"
