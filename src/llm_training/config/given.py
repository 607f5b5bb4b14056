"""What a layer of the configuration gives: a name, a value as written, and where it was written.

The layers (files, environment, command line, overrides) differ only in how they find names and values; from here on
they are one list of :class:`Given`. Interpretation waits until the field is known, so that ``no`` is False for a
switch and the word "no" for a text, and ``1e-4`` is a number whatever YAML 1.1 thinks of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_SHOWN_CHARACTERS: Final = 60
MAX_FLAT_ENTRIES: Final = 8


class Text(str):
    """An unquoted word of YAML, the environment or the command line: its type is decided by the field it is for."""

    __slots__ = ()


@dataclass(frozen=True)
class Nested:
    """A mapping (or a list within a list) where most fields take none. Kept as a fact: its content is never walked.

    ``flat`` holds the entries of a short mapping of single values within a list, for the field that takes such.
    """

    kind: str = "a mapping"
    flat: tuple[tuple[str, Scalar], ...] = ()


Scalar = str | int | float | bool | None
Value = Scalar | Nested | Sequence["Scalar | Nested"]


@dataclass(frozen=True)
class Origin:
    """Where a value comes from. ``source`` is a file, a variable or a flag; ``line`` counts from 1."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        place = shown(self.source, quote=False, limit=200)
        return place if self.line is None else f"{place}:{self.line}"


DEFAULT: Final = Origin("default")


@dataclass(frozen=True)
class Given:
    """One setting as written. ``name`` is flat (``batch_size``) or dotted (``training.batch_size``)."""

    name: str
    value: Value
    origin: Origin


def shown(value: object, *, quote: bool = True, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """A value as an error line shows it: one line, at most ``limit`` characters, control characters escaped."""
    if isinstance(value, Nested):
        return value.kind
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 4 * limit:
        return f"a number of {value.bit_length()} bits"
    text = str(value)
    cut = text if len(text) <= limit else text[:limit] + "..."
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    is_quoted = quote and isinstance(value, str) and (not isinstance(value, Text) or not safe or " " in safe)
    return f"'{safe}'" if is_quoted else safe
