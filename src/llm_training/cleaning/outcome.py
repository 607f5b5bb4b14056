"""What a rule says of a document, and the views of its text that rules share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from llm_training.cleaning.words import WordTable, line_list
from llm_training.cleaning.wrapping import paragraph_form


class Verdict(NamedTuple):
    """Why a document goes: the step that said so, a short stable reason, and the value against its bound."""

    step: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What cleaning made of one text.

    Attributes:
        text: the text as the last step left it, also of a dropped document.
        verdict: None when the document stays.
        score: quality between 0 and 1; None when it was not reached or not asked for.
        changes: how often each change was made (``mojibake repaired``, ``email masked``).
    """

    text: str
    verdict: Verdict | None = None
    score: float | None = None
    changes: dict[str, int] = field(default_factory=dict)

    @property
    def reason(self) -> str | None:
        """The verdict's reason; None when the document stays."""
        return None if self.verdict is None else self.verdict.reason


# Longer texts are judged on as many pieces, evenly spread: all words of 100 MB take 5 GB.
JUDGED_WHOLE_CHARACTERS: Final = 8_000_000
_NUM_PIECES: Final = 16
_PIECE_CHARACTERS: Final = 250_000


def judged_part(text: str) -> str:
    """What rules look at: the text; of a very long one 16 pieces of 250,000 characters, from line to line where lines are short."""
    if len(text) <= JUDGED_WHOLE_CHARACTERS:
        return text
    step = (len(text) - _PIECE_CHARACTERS) / (_NUM_PIECES - 1)
    return "\n".join(_whole_lines(text, int(number * step)) for number in range(_NUM_PIECES))


def _whole_lines(text: str, start: int) -> str:
    stop = start + _PIECE_CHARACTERS
    near = _PIECE_CHARACTERS // 10
    first = text.find("\n", start, start + near) + 1 if start else 0
    last = text.rfind("\n", stop - near, stop) if stop < len(text) else stop
    return text[first or start : last if last > 0 else stop]


class TextView:
    """A text with its words and lines, each made once, when the first rule asks for it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> WordTable:
        """Words and symbols as numbers."""
        return WordTable(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Lines between line feeds that hold more than white space."""
        return line_list(self.text)

    @cached_property
    def paragraphs(self) -> str:
        """The text with each paragraph on a line, where it is hard-wrapped."""
        return paragraph_form(self.text)
