"""A value as written into the value of its field: what YAML 1.1, JSON, the shell and a person each call yes, 1e-4 or nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, cast

from llm_training.config.aliases import RefusedError, switch
from llm_training.config.fields import FieldFact
from llm_training.config.given import Nested, Scalar, Text, Value, shown
from llm_training.config.mixture import spell_source

_NOTHING: Final = frozenset({"", "~", "null", "Null", "NULL", "none", "None"})
_ZERO_PADDED: Final = re.compile(r"[+-]?0\d+")
_BASED: Final = re.compile(r"[+-]?0[xob][0-9a-fA-F_]+")
_NUMBER: Final = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d{1,4})?")
MAX_DIGITS: Final = 400
MIXED_FIELDS: Final = frozenset({"data.sources"})


def interpret(fact: FieldFact, value: Value) -> object:
    """The value for pydantic to check. Raises :class:`RefusedError`, whose text follows the field's name, for one of another kind."""
    if isinstance(value, Nested):
        raise RefusedError(f"is {value.kind} but must be {_wanted(fact)}")
    if fact.kind == "list":
        return _list(fact, value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        raise RefusedError(f"is a list but must be {_wanted(fact)}")
    if value is None or (isinstance(value, Text) and str(value) in _NOTHING and fact.is_optional):
        return _none(fact, value)
    return _SCALARS[fact.kind](fact, value)


def _none(fact: FieldFact, value: Scalar) -> object:
    if fact.is_optional:
        return None
    if "none" in fact.choices:
        return "none"
    raise RefusedError(f"is {shown(value)} but must be {_wanted(fact)}")


def _list(fact: FieldFact, value: Value) -> object:
    if value is None:
        return []
    if isinstance(value, Text) and value.startswith("["):
        return _json_list(fact, value)
    items = cast("Sequence[Scalar | Nested]", [value] if isinstance(value, str) or not isinstance(value, Sequence) else value)
    if fact.name in MIXED_FIELDS:
        items = [_spelled(item) for item in items]
    wrong = [item for item in items if not isinstance(item, str)]
    if wrong:
        raise RefusedError(f"holds {shown(wrong[0])} but must be a list of texts")
    return [str(item) for item in items if isinstance(item, str)]


def _spelled(item: Scalar | Nested) -> Scalar | Nested:
    """A mapping with a source, its weight and its cap as one text."""
    if not isinstance(item, Nested) or not item.flat:
        return item
    try:
        return spell_source(dict(item.flat))
    except ValueError as error:
        raise RefusedError(str(error)) from None


def _json_list(fact: FieldFact, value: Text) -> object:
    """A list in one word, as the environment needs it: ``["a.txt", "b.txt"]``."""
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        raise RefusedError(f"is {shown(value)}, which is not a JSON list of texts") from None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in cast("list[object]", items)):
        raise RefusedError(f"is {shown(value)}, which is not a JSON list of texts")
    return cast("list[str]", items)


def _bool(fact: FieldFact, value: Scalar) -> object:
    return switch(value)


def _int(fact: FieldFact, value: Scalar) -> object:
    number = _number(fact, value)
    if isinstance(number, float) and number.is_integer() and abs(number) < 2**63:
        return int(number)
    if isinstance(number, float):
        raise RefusedError(f"is {shown(value)} but must be a whole number{_bound(fact)}")
    return number


def _float(fact: FieldFact, value: Scalar) -> object:
    number = _number(fact, value)
    return number if number is None or abs(number) < 2**1023 else float("inf" if number > 0 else "-inf")


def _number(fact: FieldFact, value: Scalar) -> int | float | None:
    if isinstance(value, bool):
        raise RefusedError(f"is {shown(value)} but must be {_wanted(fact)}")
    if isinstance(value, (int, float)):
        return value
    text = str(value).strip()
    if text.lower() == "auto" and fact.is_optional:
        return None
    if len(text) > MAX_DIGITS or not text.isascii():
        raise RefusedError(f"is {shown(value)} but must be {_wanted(fact)}")
    if _ZERO_PADDED.fullmatch(text):
        raise RefusedError(f"is {shown(value)}, which could be octal; write {int(text)} or 0o{text.lstrip('+-0') or '0'}")
    if _BASED.fullmatch(text):
        return _based(fact, value, text)
    if not _NUMBER.fullmatch(text):
        raise RefusedError(f"is {shown(value)} but must be {_wanted(fact)}")
    digits = text.replace("_", "")
    return float(digits) if set(digits) & set(".eE") else int(digits)


def _based(fact: FieldFact, value: Scalar, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise RefusedError(f"is {shown(value)} but must be {_wanted(fact)}") from None


def _str(fact: FieldFact, value: Scalar) -> object:
    if isinstance(value, str):
        return str(value)
    raise RefusedError(f"is {shown(value)} but must be a text; put it in quotes")


def _choice(fact: FieldFact, value: Scalar) -> object:
    """Any case; a switch where the choices have one (``compile: true``, ``console: off``)."""
    by_word = {choice.lower(): choice for choice in fact.choices}
    word = shown(value, quote=False).lower()
    spellings = {"true": ("true",), "yes": ("true",), "on": ("true",), "false": ("false", "off", "none"), "no": ("false", "off", "none")}
    for candidate in (word, *spellings.get(word, ())):
        if candidate in by_word:
            return by_word[candidate]
    raise RefusedError(f"is {shown(value)} but must be one of {', '.join(fact.choices)}")


_SCALARS: Final = {"bool": _bool, "int": _int, "float": _float, "str": _str, "choice": _choice}
_KIND_WORDS: Final = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text", "list": "a list of texts"}


def _wanted(fact: FieldFact) -> str:
    return f"one of {', '.join(fact.choices)}" if fact.choices else _KIND_WORDS[fact.kind] + _bound(fact)


def _bound(fact: FieldFact) -> str:
    return f" {fact.bound}" if fact.bound and not fact.choices else ""
