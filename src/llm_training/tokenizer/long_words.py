"""A bound on the length of a word, the one thing whose cost grows faster than the text.

A byte-pair encoder merges inside a word; a word of 50 MB (a file without white space) takes half a minute and 3 GB.
Stretches without a space or line break are therefore cut. The ids of such a stretch differ from an uncapped encoder's
around the cuts, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

MAX_WORD_CHARACTERS = 1 << 17
# Training counts pairs inside words many times, so its bound is lower: longer words hold nothing worth a token.
MAX_TRAINING_WORD_CHARACTERS = 256
_LONG_WORD = re.compile(rf"\S{{{MAX_TRAINING_WORD_CHARACTERS}}}")


def cut_long_words(texts: Sequence[str], max_characters: int) -> tuple[Sequence[str], np.ndarray | None]:
    """Cut texts that hold a stretch of ``2 * max_characters`` or more without white space.

    Returns:
        the pieces, and for each text (and the end) the index of its first piece; None when nothing was cut.
    """
    if all(len(text) < 2 * max_characters for text in texts):
        return texts, None
    pieces: list[str] = []
    first_pieces = [0]
    for text in texts:
        pieces.extend(_pieces(text, max_characters))
        first_pieces.append(len(pieces))
    return (texts, None) if len(pieces) == len(texts) else (pieces, np.asarray(first_pieces, dtype=np.int64))


def _pieces(text: str, max_characters: int) -> Iterator[str]:
    """Cut at both ends of every aligned window that has neither a space nor a line break."""
    start = 0
    for low in range(0, len(text) - max_characters + 1, max_characters):
        high = low + max_characters
        if _has_break(text, low, high):
            continue
        if low > start:
            yield text[start:low]
        yield text[low:high]
        start = high
    if start < len(text) or not text:
        yield text[start:]


def _has_break(text: str, low: int, high: int) -> bool:
    return text.find(" ", low, high) >= 0 or text.find("\n", low, high) >= 0


def cut_for_training(text: str) -> Iterator[str]:
    """The text in pieces none of which has a word of more than ``MAX_TRAINING_WORD_CHARACTERS``."""
    start = 0
    for match in _LONG_WORD.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    if start < len(text):
        yield text[start:]
