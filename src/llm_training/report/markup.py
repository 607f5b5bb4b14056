"""HTML built from values: every text is escaped unless it is markup already, so nothing of a document can become a tag.

Control characters and the marks that reverse a line are shown, not obeyed: what is seen is what was there.
"""

from __future__ import annotations

import html
import re
import unicodedata

# Elements that close themselves; those of SVG must say so.
_VOID = frozenset({"meta", "link", "rect", "line"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already. Only this room makes it."""

    __slots__ = ()


def visible(text: str) -> str:
    """The text with control characters as pictures (U+2400 block) and bidirectional marks as their numbers; line breaks stay."""
    return _UNSEEN.sub(lambda found: _picture(found[0]), text.replace("\r\n", "\n"))


def _picture(character: str) -> str:
    point = ord(character)
    if point < 0x20:
        return chr(0x2400 + point)
    return "\u2421" if point == 0x7F else f"[U+{point:04X}]"


def escaped(value: object) -> Markup:
    """A value as text of a page or of an attribute; markup stays what it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value)), quote=True))


def joined(*children: object) -> Markup:
    """Children one after another; None adds nothing."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element.

    Attribute names lose a trailing underscore and take dashes for the others (``class_``, ``aria_label``). None leaves
    an attribute out. Handlers and inline styles are refused: the page's policy would block them.
    """
    words = [name]
    for key, value in attributes.items():
        spelled = key.rstrip("_").replace("_", "-")
        assert _NAME.fullmatch(spelled) and not spelled.startswith("on") and spelled != "style", spelled
        if value is not None:
            words.append(f'{spelled}="{escaped(value)}"')
    opening = " ".join(words)
    return Markup(f"<{opening}/>") if name in _VOID and not children else Markup(f"<{opening}>{joined(*children)}</{name}>")


def clipped(text: str, max_characters: int) -> str:
    """The beginning of a text, with an ellipsis where it was cut; never inside a combined character."""
    if len(text) <= max_characters:
        return text
    stop = max_characters - 1
    while stop > 0 and unicodedata.combining(text[stop]):
        stop -= 1
    return text[:stop] + "…"
