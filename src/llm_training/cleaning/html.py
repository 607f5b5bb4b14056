"""HTML found in place of text: recognised by its tags."""

from __future__ import annotations

import re
from typing import Final

_DECLARATION: Final = re.compile(r"\s*+(?:<\?xml[^>]*+>\s*+)?", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s*+")
_FIRST_TAG: Final = re.compile(r"<(?:!doctype\s++html|html|head|body)\b", re.IGNORECASE)
_CLOSING: Final = re.compile(r"</(?:p|div|span|a|li|ul|ol|td|tr|table|h[1-6]|body|html|section|article|b|i|em|strong)\s*+>", re.IGNORECASE)
# Closing tags for each thousand characters that make a text HTML; a text about HTML quotes fewer.
_MIN_TAGS: Final = 3
_MIN_TAGS_PER_THOUSAND: Final = 2


def is_html(text: str) -> bool:
    """True for a page, or a piece of one, rather than a text that mentions a tag."""
    if "</" not in text:
        return False
    if _starts_as_page(text):
        return True
    count = sum(1 for _ in _CLOSING.finditer(text))
    return text.lstrip().startswith("<") and count >= _MIN_TAGS and count * 1000 >= _MIN_TAGS_PER_THOUSAND * len(text)


def _starts_as_page(text: str) -> bool:
    """Comments are passed over one by one: a pattern for any number of them takes time exponential in that."""
    place = _place_after(_DECLARATION, text, 0)
    while text.startswith("<!--", place):
        end = text.find("-->", place + 4)
        if end < 0:
            return False
        place = _place_after(_SPACE, text, end + 3)
    return _FIRST_TAG.match(text, place) is not None


def _place_after(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return place if found is None else found.end()
