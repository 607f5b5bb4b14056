"""A quality score between 0 and 1 for running English text, out of the same facts that the rules count.

The score is the product of a few ramps, each 1 where prose lies and falling to a floor where lists, menus, tables and noise lie. It
ranks; it does not replace the rules. No model is asked, so nobody's idea of good style is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_training.cleaning.fineweb import short_fraction
from llm_training.cleaning.gopher import STOP_WORDS, alphabetic_fraction, duplicate_pieces, mean_word_length
from llm_training.cleaning.outcome import TextView, Verdict
from llm_training.cleaning.words import WordTable

STEP: Final = "score"
_SHORT_LINE_CHARACTERS: Final = 30
_SENTENCE_MARKS: Final = ".!?…。"


@dataclass(frozen=True)
class Ramp:
    """Straight from ``floor`` at ``bad`` to 1 at ``good``."""

    bad: float
    good: float
    floor: float

    def at(self, value: float) -> float:
        """Between the floor and 1."""
        share = (value - self.bad) / (self.good - self.bad)
        return self.floor + (1 - self.floor) * min(1.0, max(0.0, share))


# Ends measured on books, textbooks and web text: 99 % of passages of the first two lie at 1 in each.
_NUM_WORDS: Final = Ramp(5, 50, 0.1)
_STOP_WORDS: Final = Ramp(0.01, 0.08, 0.2)
_LETTERS: Final = Ramp(0.4, 0.8, 0.2)
_SHORT_WORDS: Final = Ramp(2.0, 3.3, 0.2)
_LONG_WORDS: Final = Ramp(12.0, 8.0, 0.2)
_SHORT_LINES: Final = Ramp(0.9, 0.5, 0.3)
_REPEATED_LINES: Final = Ramp(0.3, 0.02, 0.2)
_SENTENCE_WORDS: Final = Ramp(120, 60, 0.4)
_DIFFERENT_WORDS: Final = Ramp(0.1, 0.3, 0.2)
_DIFFERENT_WITHIN: Final = 400


def quality_score(view: TextView, stop_words: frozenset[str] = STOP_WORDS) -> float:
    """0 for no words, near 0 for noise, near 1 for prose; rounded to four digits. Without ``stop_words`` they do not count."""
    words, lines = view.words, view.lines
    if not len(words) or not lines:
        return 0.0
    mean = mean_word_length(words)
    if mean != mean:  # punctuation only
        return 0.0
    marks = sum(map(view.text.count, _SENTENCE_MARKS))
    head = words.ids[:_DIFFERENT_WITHIN]
    product = (
        _NUM_WORDS.at(len(words))
        * (_STOP_WORDS.at(_share_of(words, stop_words)) if stop_words else 1.0)
        * _LETTERS.at(alphabetic_fraction(words))
        * _SHORT_WORDS.at(mean)
        * _LONG_WORDS.at(mean)
        * _SHORT_LINES.at(short_fraction(lines, _SHORT_LINE_CHARACTERS))
        * _REPEATED_LINES.at(duplicate_pieces(lines)[1] / len(view.text))
        * _SENTENCE_WORDS.at(len(words) / max(1, marks))
        * _DIFFERENT_WORDS.at(len(set(head.tolist())) / len(head))
    )
    return round(product, 4)


def _share_of(words: WordTable, wanted: frozenset[str]) -> float:
    return sum(int(words.counts[number]) for number, word in enumerate(words.unique) if word in wanted) / len(words)


def judge_score(score: float, least: float) -> Verdict | None:
    """A verdict when the score is below the bound."""
    return Verdict(STEP, "low_quality", f"score {score:.3f}, at least {least}") if score < least else None
