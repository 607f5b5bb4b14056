"""One source of ``data.sources`` with its weight and cap: ``books/#weight=2,max_epochs=3``.

The suffix begins with the last ``#`` and holds nothing but these two words, so that no path, glob, URI or ``hf:`` split is
taken for it by accident; a path that really ends so gets a suffix of its own behind it. A mapping with ``uri``, ``weight``
and ``max_epochs`` in a file means the same and is kept in this one spelling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_training.config.given import shown

_SUFFIX: Final = re.compile(r"(?s)(.*)#((?:weight|max_epochs)=[^,#/\\]*(?:,(?:weight|max_epochs)=[^,#/\\]*)*)")
SOURCE_WORDS: Final = ("weight", "max_epochs")
_NOTHING: Final = ("", "~", "null")


@dataclass(frozen=True)
class SourceEntry:
    """A source as configured. None: nothing was said."""

    uri: str
    weight: float | None = None
    max_epochs: float | None = None

    @property
    def is_mixed(self) -> bool:
        """True when the entry has a weight or a cap, which makes the sources a mixture."""
        return self.weight is not None or self.max_epochs is not None


def parse_source(text: str) -> SourceEntry:
    """The parts of an entry. Raises ValueError whose text follows the field's name."""
    found = _SUFFIX.fullmatch(text)
    if found is None:
        return SourceEntry(text)
    words = [word.partition("=")[::2] for word in found[2].split(",")]
    if len({name for name, _ in words}) < len(words):
        raise ValueError(f"holds {shown(text)}, which says one thing twice")
    if not found[1]:
        raise ValueError(f"holds {shown(text)}, which names no source")
    return SourceEntry(found[1], **{name: _positive(name, value, text) for name, value in words})


def spell_source(mapping: Mapping[str, object]) -> str:
    """A mapping of a file as one entry. Raises ValueError whose text follows the field's name."""
    uri = mapping.get("uri")
    unknown = sorted(mapping.keys() - {"uri", *SOURCE_WORDS})
    if not isinstance(uri, str) or not uri or unknown:
        what = f"unknown {shown(unknown[0])}" if unknown else "no uri"
        raise ValueError(f"holds a mapping with {what}; write {{uri: PATH, weight: 2, max_epochs: 3}}")
    said = [(name, mapping[name]) for name in SOURCE_WORDS if mapping.get(name) is not None and str(mapping[name]) not in _NOTHING]
    if not said and _SUFFIX.fullmatch(uri):
        said = [("weight", 1)]  # the path itself ends like a suffix
    entry = f"{uri}#{','.join(f'{name}={value}' for name, value in said)}" if said else str(uri)
    if parse_source(entry).uri != uri:
        raise ValueError(f"holds {shown(entry)}, whose numbers cannot be read")
    return entry


def source_problems(texts: Sequence[str]) -> list[str]:
    """What is wrong with the entries together, each as a line that follows the field's name."""
    found: list[str] = []
    uris: list[str] = []
    for text in texts:
        try:
            uris.append(parse_source(text).uri)
        except ValueError as error:
            found.append(str(error))
    is_mixture = not found and any(parse_source(text).is_mixed for text in texts)
    twice = [uri for uri in dict.fromkeys(uris) if uris.count(uri) > 1] if is_mixture else []
    return found + [f"holds {shown(uri)} twice; give it once with its weight" for uri in twice]


def _positive(name: str, value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"holds {shown(text)}, whose {name} is {shown(value)} but must be a number > 0")
    return number
