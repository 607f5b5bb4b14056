"""The form of a text in which lines are paragraphs, for rules that mean paragraphs when they say lines.

In a hard-wrapped text (books of Project Gutenberg, mail, plain-text files) a line ends where the next word had no room, and in
others each line ends in a space. The document itself keeps its lines.
"""

from __future__ import annotations

from typing import Final

import numpy as np

# Widths at which text is wrapped, characters.
_WIDTHS: Final = range(40, 121)
_WIDTH_QUANTILE: Final = 0.95
_LEAST_LINES: Final = 8
# Share of lines within paragraphs that have no room for the next word: 0.8 to 1 in books, 0.2 to 0.5 in most verse.
_FULL_FRACTION: Final = 0.7
# Lines with room for each that would have it if the words that begin lines were dealt out at random: 0.1 to 0.7 in books, about 1 where
# lines end for another reason (verse, code), as the next word then makes no difference. Where all lines are equally long there is nothing
# to be seen.
_BY_CHANCE: Final = 0.8


def paragraph_form(text: str) -> str:
    """The text without white space at line ends, hard-wrapped lines joined; the text itself when nothing is to be done."""
    if "\n" not in text:
        return text
    lines = text.split("\n")
    if " \n" in text or "\t\n" in text:
        lines = [line.rstrip(" \t") for line in lines]
        text = "\n".join(lines)
    lengths = sorted(len(line) for line in lines if line)
    if len(lengths) < _LEAST_LINES or (width := lengths[int(_WIDTH_QUANTILE * (len(lengths) - 1))]) not in _WIDTHS:
        return text
    full = _wrapped_lines(lines, width)
    return "".join(f"{line} " if number in full else f"{line}\n" for number, line in enumerate(lines)) if full else text


def _wrapped_lines(lines: list[str], width: int) -> frozenset[int]:
    """Numbers of the lines that end because the first word of the next had no room; none unless that is why lines end here."""
    firsts = [line.split(None, 1)[:1] for line in lines]
    inner = [number for number in range(len(lines) - 1) if lines[number] and firsts[number + 1]]
    if not inner:
        return frozenset()
    room = width - 1 - np.array([len(lines[number]) for number in inner])
    words = np.array([len(firsts[number + 1][0]) for number in inner])
    has_room = words < room
    by_chance = np.searchsorted(np.sort(words), room).sum() / len(inner)
    most = min((1 - _FULL_FRACTION) * len(inner), _BY_CHANCE * by_chance)
    if by_chance == 0 or has_room.sum() > most:
        return frozenset()
    return frozenset(np.array(inner)[~has_room].tolist())
