"""Facts about every field, read off the section classes: the one table behind names, values, help and docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from llm_training.config.root import Config

Kind = Literal["bool", "int", "float", "str", "choice", "list"]
_KINDS: Final[Mapping[object, Kind]] = {bool: "bool", int: "int", float: "float", str: "str"}
_BOUND_WORDS: Final = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}"}


@dataclass(frozen=True)
class FieldFact:
    """One configuration field. ``bound`` is for people: ``> 0, <= 65536`` or the choices."""

    section: str
    key: str
    kind: Kind
    is_optional: bool
    choices: tuple[str, ...]
    bound: str
    default: object
    description: str

    @property
    def name(self) -> str:
        """The dotted name, ``training.batch_size``."""
        return f"{self.section}.{self.key}"

    @property
    def type_text(self) -> str:
        """The type as help and docs print it."""
        return " / ".join(self.choices) if self.choices else {"list": "list of texts", "str": "text"}.get(self.kind, self.kind)


def section_names() -> tuple[str, ...]:
    """Names of the sections in the order of the root."""
    return tuple(Config.model_fields)


@cache
def all_fields() -> Mapping[str, FieldFact]:
    """Every field by its dotted name, in the order of declaration."""
    facts: dict[str, FieldFact] = {}
    for section, root_field in Config.model_fields.items():
        section_class = cast(Any, root_field.annotation)
        for key, field in cast("Mapping[str, FieldInfo]", section_class.model_fields).items():
            facts[f"{section}.{key}"] = _fact(section, key, field)
    return facts


def _fact(section: str, key: str, field: FieldInfo) -> FieldFact:
    kind, is_optional, choices = _type_facts(field.annotation)
    return FieldFact(
        section=section,
        key=key,
        kind=kind,
        is_optional=is_optional,
        choices=choices,
        bound=" and ".join(_bounds(field)) or ("one of " + ", ".join(choices) if choices else ""),
        default=field.get_default(call_default_factory=True),
        description=field.description or "",
    )


def _type_facts(annotation: object) -> tuple[Kind, bool, tuple[str, ...]]:
    """Kind, whether None is allowed, and the choices of a Literal."""
    if get_origin(annotation) in (UnionType, Union):
        inner = [member for member in get_args(annotation) if member is not type(None)]
        kind, _, choices = _type_facts(inner[0])
        return kind, True, choices
    if get_origin(annotation) is Literal:
        members = get_args(annotation)
        if all(isinstance(member, bool) for member in members):
            return "bool", False, ()
        return "choice", False, tuple(str(member) for member in members)
    if get_origin(annotation) is list:
        return "list", False, ()
    return _KINDS[annotation], False, ()


def _bounds(field: FieldInfo) -> list[str]:
    words: list[str] = ["true"] if get_args(field.annotation) == (True,) else []
    for constraint in field.metadata:
        for attribute, template in _BOUND_WORDS.items():
            limit = getattr(constraint, attribute, None)
            if limit is not None:
                words.append(template.format(f"{limit:g}" if isinstance(limit, float) else limit))
    return words
