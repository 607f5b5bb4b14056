"""Gopher's rules of quality and repetition (Rae et al. 2021, arXiv:2112.11446, section A1.1 and table A1).

Verdicts and reasons are those of datatrove's GopherQualityFilter and GopherRepetitionFilter, given the same words. Where an upper
bound from sorted hashes already clears a text, the exact count is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from llm_training.cleaning.outcome import TextView, Verdict
from llm_training.cleaning.words import UInt64Array, WordTable

QUALITY, REPETITION = "gopher quality", "gopher repetition"
STOP_WORDS: Final = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_PARAGRAPH_BREAK: Final = re.compile(r"\n{2,}")
_LINE_BREAK: Final = re.compile(r"\n+")


@dataclass(frozen=True)
class GopherQuality:
    """Bounds of the quality rules; 0 switches a bound off. Fractions are of words or lines."""

    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3
    max_mean_word_length: float = 10
    max_symbol_fraction: float = 0.1
    max_bullet_line_fraction: float = 0.9
    max_ellipsis_line_fraction: float = 0.3
    min_alphabetic_word_fraction: float = 0.8
    min_stop_words: int = 2
    stop_words: frozenset[str] = STOP_WORDS

    def judge(self, view: TextView) -> Verdict | None:
        """The first rule that the text breaks."""
        words = view.words
        return self._judge_lengths(words) or self._judge_symbols(view) or self._judge_lines(view.text) or self._judge_words(words)

    def _judge_lengths(self, words: WordTable) -> Verdict | None:
        count = len(words) - words.num_symbols
        if self.min_words and count < self.min_words:
            return Verdict(QUALITY, "gopher_short_doc", f"{count} words, at least {self.min_words}")
        if self.max_words and count > self.max_words:
            return Verdict(QUALITY, "gopher_long_doc", f"{count} words, at most {self.max_words}")
        mean = mean_word_length(words)
        if self.min_mean_word_length and mean < self.min_mean_word_length:
            return Verdict(QUALITY, "gopher_below_avg_threshold", f"{mean:.2f} characters a word, at least {self.min_mean_word_length}")
        if self.max_mean_word_length and mean > self.max_mean_word_length:
            return Verdict(QUALITY, "gopher_above_avg_threshold", f"{mean:.2f} characters a word, at most {self.max_mean_word_length}")
        return None

    def _judge_symbols(self, view: TextView) -> Verdict | None:
        text, count, bound = view.text, len(view.words), self.max_symbol_fraction
        if not bound:
            return None
        if (share := text.count("#") / count) > bound:
            return Verdict(QUALITY, "gopher_too_many_hashes", f"{share:.3f} a word, at most {bound}")
        if (share := (text.count("...") + text.count("…")) / count) > bound:
            return Verdict(QUALITY, "gopher_too_many_ellipsis", f"{share:.3f} a word, at most {bound}")
        return None

    def _judge_lines(self, text: str) -> Verdict | None:
        lines = text.splitlines()
        bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines)
        if self.max_bullet_line_fraction and bullets > self.max_bullet_line_fraction:
            return Verdict(QUALITY, "gopher_too_many_bullets", f"{bullets:.3f} of lines, at most {self.max_bullet_line_fraction}")
        ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
        if self.max_ellipsis_line_fraction and ellipses > self.max_ellipsis_line_fraction:
            return Verdict(QUALITY, "gopher_too_many_end_ellipsis", f"{ellipses:.3f} of lines, at most {self.max_ellipsis_line_fraction}")
        return None

    def _judge_words(self, words: WordTable) -> Verdict | None:
        share = alphabetic_fraction(words)
        if self.min_alphabetic_word_fraction and share < self.min_alphabetic_word_fraction:
            return Verdict(
                QUALITY, "gopher_below_alpha_threshold", f"{share:.3f} of words have a letter, at least {self.min_alphabetic_word_fraction}"
            )
        found = len(self.stop_words.intersection(words.unique))
        if self.stop_words and found < self.min_stop_words:
            return Verdict(QUALITY, "gopher_enough_stop_words", f"{found} different stop words, at least {self.min_stop_words}")
        return None


def mean_word_length(words: WordTable) -> float:
    """Mean characters of the words that are not punctuation; NaN when there are none."""
    count = len(words) - words.num_symbols
    plain = ~words.is_symbol
    return float((words.counts[plain] * words.unique_lengths[plain]).sum() / count) if count else float("nan")


def alphabetic_fraction(words: WordTable) -> float:
    """Share of words with a letter; 0 without words."""
    return int(words.counts[words.has_letter].sum()) / len(words) if len(words) else 0.0


@dataclass(frozen=True)
class GopherRepetition:
    """Bounds of the repetition rules: shares of lines, paragraphs and characters. n-grams as (n, share of characters)."""

    max_duplicate_line_fraction: float = 0.3
    max_duplicate_paragraph_fraction: float = 0.3
    max_duplicate_line_character_fraction: float = 0.2
    max_duplicate_paragraph_character_fraction: float = 0.2
    top_ngrams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    duplicate_ngrams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    def judge(self, view: TextView) -> Verdict | None:
        """The first rule that the text breaks."""
        if not view.text:
            return Verdict(REPETITION, "empty")
        return self._judge_lines(view.text) or self._judge_ngrams(view)

    def _judge_lines(self, text: str) -> Verdict | None:
        parts = (
            (_PARAGRAPH_BREAK.split(text.strip()), "dup_para", self.max_duplicate_paragraph_fraction,
             self.max_duplicate_paragraph_character_fraction),
            (_LINE_BREAK.split(text), "dup_line", self.max_duplicate_line_fraction, self.max_duplicate_line_character_fraction),
        )  # fmt: skip
        for pieces, name, max_fraction, max_characters in parts:
            count, characters = duplicate_pieces(pieces)
            if max_fraction and count / len(pieces) > max_fraction:
                return Verdict(REPETITION, f"{name}_frac", f"{count} of {len(pieces)}, at most {max_fraction}")
            if max_characters and (share := characters / len(text)) > max_characters:
                return Verdict(REPETITION, f"{name}_char_frac", f"{share:.3f} of characters, at most {max_characters}")
        return None

    def _judge_ngrams(self, view: TextView) -> Verdict | None:
        words, size = view.words, len(view.text)
        for n, bound in self.top_ngrams:
            if (share := top_ngram_characters(words, n) / size) > bound:
                return Verdict(REPETITION, f"top_{n}_gram", f"{share:.3f} of characters, at most {bound}")
        for n, bound in self.duplicate_ngrams:
            if (share := duplicate_ngram_characters(words, n, int(bound * size)) / size) > bound:
                return Verdict(REPETITION, f"duplicated_{n}_n_grams", f"{share:.3f} of characters, at most {bound}")
        return None


def duplicate_pieces(pieces: Sequence[str]) -> tuple[int, int]:
    """How many pieces repeat an earlier one, and their characters."""
    unique = set(pieces)
    if len(unique) == len(pieces):
        return 0, 0
    return len(pieces) - len(unique), sum(map(len, pieces)) - sum(map(len, unique))


def top_ngram_characters(words: WordTable, n: int) -> int:
    """Characters that the most frequent n-gram takes, its spaces counted; of equally frequent ones the first in the text decides."""
    keys = words.word_keys(n)
    if not len(keys):
        return 0
    ordered = np.sort(keys)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, len(ordered)))
    most = counts.max()
    first = _first_place(keys, ordered[starts[counts == most]])
    return int(words.ngram_lengths(n)[first] + n - 1) * int(most)


def _first_place(keys: UInt64Array, wanted: UInt64Array) -> int:
    """The first place in ``keys`` of any of the ascending ``wanted``."""
    if len(wanted) == len(keys):
        return 0
    found = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return int((wanted[found] == keys).argmax())


def duplicate_ngram_characters(words: WordTable, n: int, enough: int = 0) -> int:
    """Characters, spaces left out, of n-grams seen before, none counted twice: from left to right, past each one found.

    Args:
        words: the text's words.
        n: words of an n-gram.
        enough: a number that the caller compares with; an upper bound that does not exceed it is returned in place of the count.
    """
    keys = words.joined_keys(n)
    if not len(keys):
        return 0
    ordered = np.sort(keys)
    num_repeated = int((ordered[1:] == ordered[:-1]).sum())
    lengths = words.ngram_lengths(n)
    if (bound := num_repeated * int(lengths.max())) <= enough:
        return bound
    return _counted_from_left(keys.tolist(), lengths.tolist(), n)


def _counted_from_left(keys: list[int], lengths: list[int], n: int) -> int:
    seen: set[int] = set()
    characters = index = 0
    while index < len(keys):
        key = keys[index]
        if key in seen:
            characters += lengths[index]
            index += n
        else:
            seen.add(key)
            index += 1
    return characters
