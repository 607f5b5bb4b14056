"""Text that comes from data or from a model, made safe to show in a terminal.

A control character in a document must never move the reader's cursor, set a title or reverse the line. Such
characters are shown by their escapes; nothing is dropped, so what is seen is what was there. Files keep the raw text:
only what is shown passes through here.
"""

from __future__ import annotations

import unicodedata

_UNPRINTABLE_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Format characters (Cf) that ordinary writing needs and that move nothing: joiners of emoji and Indic scripts.
_HARMLESS_FORMAT = frozenset("\u200c\u200d\u00ad")
TAB_WIDTH = 4


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _UNPRINTABLE_CATEGORIES or character in _HARMLESS_FORMAT:
        return character
    return character.encode("unicode_escape").decode("ascii")


def printable(text: str) -> str:
    """One line: every control, bidirectional and line-breaking character as its escape (``\\n``, ``\\x1b``)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def printable_lines(text: str) -> list[str]:
    """The lines of a text, each printable; tabs become spaces, ``\\r\\n`` a line break."""
    lines = text.replace("\r\n", "\n").expandtabs(TAB_WIDTH).split("\n")
    return [printable(line) for line in lines]
