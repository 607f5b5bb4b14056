"""FineWeb's own rules (Penedo et al. 2024, arXiv:2406.17557, section 3.6): shapes of lines that lists and menus have.

Verdicts and reasons are those of datatrove's FineWebQualityFilter, given the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_training.cleaning.characters import TERMINAL_PUNCTUATION
from llm_training.cleaning.gopher import duplicate_pieces
from llm_training.cleaning.outcome import TextView, Verdict
from llm_training.cleaning.words import line_list

STEP: Final = "fineweb"


@dataclass(frozen=True)
class FineWebQuality:
    """Bounds, as shares of the lines, characters or words.

    ``excludes_zero``: no line with punctuation at all is no fault. ``judges_paragraphs``: a paragraph of hard-wrapped text counts as a
    line, as it does not in the published rules.
    """

    min_punctuated_line_fraction: float = 0.12
    max_short_line_fraction: float = 0.67
    short_line_characters: int = 30
    max_duplicate_character_fraction: float = 0.01
    max_line_feeds_per_word: float = 0.3
    excludes_zero: bool = False
    judges_paragraphs: bool = False

    def judge(self, view: TextView) -> Verdict | None:
        """The first rule that the text breaks."""
        text = view.paragraphs if self.judges_paragraphs else view.text
        lines = view.lines if text is view.text else line_list(text)
        if not lines:
            return Verdict(STEP, "empty")
        share = punctuated_fraction(lines)
        if share < self.min_punctuated_line_fraction and not (share == 0 and self.excludes_zero):
            return Verdict(STEP, "line_punct_ratio", f"{share:.3f} of lines, at least {self.min_punctuated_line_fraction}")
        share = short_fraction(lines, self.short_line_characters)
        if share > self.max_short_line_fraction:
            return Verdict(STEP, "short_line_ratio", f"{share:.3f} of lines, at most {self.max_short_line_fraction}")
        line_feeds = text.count("\n")
        share = duplicate_pieces(lines)[1] / (len(text) - line_feeds)
        if share > self.max_duplicate_character_fraction:
            return Verdict(STEP, "char_dup_ratio", f"{share:.3f} of characters, at most {self.max_duplicate_character_fraction}")
        if (share := line_feeds / len(view.words)) > self.max_line_feeds_per_word:
            return Verdict(STEP, "list_ratio", f"{share:.3f} line feeds a word, at most {self.max_line_feeds_per_word}")
        return None


def punctuated_fraction(lines: list[str]) -> float:
    """Share of lines that end with a sentence."""
    return sum(line[-1] in TERMINAL_PUNCTUATION for line in lines) / len(lines)


def short_fraction(lines: list[str], most: int) -> float:
    """Share of lines of at most so many characters."""
    return sum(len(line) <= most for line in lines) / len(lines)
