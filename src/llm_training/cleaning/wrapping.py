"""The form of a text that rules judge: paragraphs on lines of their own, without white space at the ends of lines.

Rules about lines mean paragraphs: how many end a sentence, how long they are, which are repeated. In a hard-wrapped text (books of
Project Gutenberg, mail, plain-text files) a line ends where the next word had no room, and in others each ends in a space. The
document itself keeps its lines.
"""

from __future__ import annotations

import re
from typing import Final

_LINE_ENDS: Final = re.compile(r"[ \t]+$", re.MULTILINE)
# Widths at which text is wrapped, characters.
_WIDTHS: Final = range(40, 121)
_WIDTH_QUANTILE: Final = 0.95
_LEAST_LINES: Final = 8
# Share of lines within paragraphs that end because the next word had no room: 0.8 to 1 in books, up to 0.5 in verse and lists.
_FULL_FRACTION: Final = 0.7


def judged_form(text: str) -> str:
    """The text as rules look at it; the text itself when nothing is to be done."""
    if " \n" in text or "\t\n" in text:
        text = _LINE_ENDS.sub("", text)
    lines = text.split("\n")
    lengths = sorted(len(line) for line in lines if line and not line.isspace())
    if len(lengths) < _LEAST_LINES:
        return text
    width = lengths[int(_WIDTH_QUANTILE * (len(lengths) - 1))]
    if width not in _WIDTHS:
        return text
    joins, num_inner = _full_lines(lines, width)
    if not joins or len(joins) < _FULL_FRACTION * num_inner:
        return text
    return "".join(f"{line} " if number in joins else f"{line}\n" for number, line in enumerate(lines))


def _full_lines(lines: list[str], width: int) -> tuple[set[int], int]:
    """Lines whose next line begins with a word for which they had no room, and the number of lines that have a next one."""
    full: set[int] = set()
    num_inner = 0
    for number in range(len(lines) - 1):
        following = lines[number + 1].split(None, 1)
        if following and lines[number]:
            num_inner += 1
            if len(lines[number]) + len(following[0]) >= width - 1:
                full.add(number)
    return full, num_inner
