"""Words of a text as numbers: every rule that counts words or n-grams works on these arrays.

A word is what stands between white space, as Gopher counts words: with punctuation as words of its own, dialogue has too few
words with letters and is dropped as noise (14 % of books and textbooks, measured). n-grams are compared by 64-bit hashes. Two of them:

- of the words one by one, for n-grams that are equal word for word;
- of the characters in a row, for n-grams that are equal when written without spaces. datatrove compares repeated n-grams that
  way, and ``12 3`` is then ``1 23``.

W is the number of words, U of different ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llm_training.cleaning.characters import PUNCTUATION

UInt64Array = NDArray[np.uint64]
Int64Array = NDArray[np.int64]

# End of a sentence: its marks, closing quotes and brackets, then white space. Possessive and from the first mark on, or a row of dots
# takes time in the square of its length.
SENTENCE_END: Final = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+\s++")
# Odd, so that multiplication modulo 2^64 loses nothing; the digits of the golden ratio and those of splitmix64.
_BASE: Final = 0x9E3779B97F4A7C15
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


# Characters whose words are in memory at once: they take many times the memory of the text.
PART_CHARACTERS: Final = 1 << 20
_SPACE: Final = re.compile(r"\s")


def word_parts(text: str) -> Iterator[str]:
    """A text in parts of about `PART_CHARACTERS` that divide no word."""
    start = 0
    while start < len(text):
        found = _SPACE.search(text, start + PART_CHARACTERS)
        stop = len(text) if found is None else found.start()
        yield text[start:stop]
        start = stop


def split_words(text: str) -> list[str]:
    """The words of a text in order."""
    return text.split()


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence; white space belongs to neither."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in SENTENCE_END.finditer(text):
        spans.append((start, start + len(text[start : end.end()].rstrip())))
        start = end.end()
    if text[start:].strip():
        spans.append((start, len(text)))
    return spans


def count_sentences(text: str, most: int) -> int:
    """The number of sentences, at least one; counting stops at ``most``."""
    count, start = 0, 0
    for end in SENTENCE_END.finditer(text):
        count, start = count + 1, end.end()
        if count >= most:
            return count
    return max(1, count + bool(text[start:].strip()))


def line_list(text: str) -> list[str]:
    """Lines between line feeds that hold more than white space."""
    return [line for line in text.split("\n") if line and not line.isspace()]


def mixed(values: UInt64Array) -> UInt64Array:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


class WordTable:
    """The words of one text.

    Attributes:
        tokens: words in order, [W].
        unique: different words in order of first occurrence, [U].
        ids: index into ``unique`` of each word, int64 [W].
    """

    def __init__(self, text: str) -> None:
        self.tokens = split_words(text)
        index = dict.fromkeys(self.tokens)
        self.unique = list(index)
        numbers = dict(zip(self.unique, range(len(self.unique)), strict=True))
        self.ids: Int64Array = np.fromiter(map(numbers.__getitem__, self.tokens), dtype=np.int64, count=len(self.tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def unique_lengths(self) -> Int64Array:
        """Characters of each different word, [U]."""
        return np.fromiter(map(len, self.unique), dtype=np.int64, count=len(self.unique))

    @cached_property
    def lengths(self) -> Int64Array:
        """Characters of each word, [W]."""
        return self.unique_lengths[self.ids]

    @cached_property
    def ends(self) -> Int64Array:
        """Characters up to the end of each word, spaces left out, with a leading 0: [W + 1]."""
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])

    @cached_property
    def counts(self) -> Int64Array:
        """Occurrences of each different word, [U]."""
        return np.bincount(self.ids, minlength=len(self.unique))

    @cached_property
    def is_symbol(self) -> NDArray[np.bool_]:
        """Whether a different word is punctuation all through, [U]."""
        return np.fromiter((not word.strip(PUNCTUATION) for word in self.unique), dtype=np.bool_, count=len(self.unique))

    @cached_property
    def has_letter(self) -> NDArray[np.bool_]:
        """Whether a different word has a letter, [U]."""
        found = (word.isalpha() or any(map(str.isalpha, word)) for word in self.unique)
        return np.fromiter(found, dtype=np.bool_, count=len(self.unique))

    @cached_property
    def num_symbols(self) -> int:
        """Words that are punctuation all through."""
        return int(self.counts[self.is_symbol].sum())

    def ngram_lengths(self, n: int) -> Int64Array:
        """Characters of each n-gram without spaces, [W - n + 1]."""
        return self.ends[n:] - self.ends[:-n]

    def word_keys(self, n: int) -> UInt64Array:
        """Hash of each n-gram, word for word, [W - n + 1]; empty when there are fewer words."""
        scattered = self._scattered
        size = len(self) - n + 1
        if size <= 0:
            return np.empty(0, dtype=np.uint64)
        keys = scattered[:size].copy()
        for offset in range(1, n):
            keys = keys * np.uint64(_BASE) + scattered[offset : offset + size]
        return keys

    def joined_keys(self, n: int) -> UInt64Array:
        """Hash of the characters of each n-gram without spaces, [W - n + 1]; empty when there are fewer words."""
        hashes, factors = self._character_hashes
        size = len(self) - n + 1
        if size <= 0:
            return np.empty(0, dtype=np.uint64)
        keys = hashes[:size].copy()
        for offset in range(1, n):
            keys = keys * factors[offset : offset + size] + hashes[offset : offset + size]
        return keys

    @cached_property
    def _scattered(self) -> UInt64Array:
        return mixed(self.ids.astype(np.uint64) + np.uint64(_BASE))

    @cached_property
    def _character_hashes(self) -> tuple[UInt64Array, UInt64Array]:
        """Polynomial of each word's characters and the base to the power of its length, uint64 [W] each."""
        lengths = self.unique_lengths
        powers = _powers(int(lengths.max(initial=0)) + 1)
        characters = np.frombuffer("".join(self.unique).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        ends = np.cumsum(lengths)
        exponents = np.repeat(ends, lengths) - 1 - np.arange(len(characters))
        sums = np.add.reduceat((characters + np.uint64(1)) * powers[exponents], ends - lengths) if len(characters) else characters
        return sums[self.ids], powers[lengths][self.ids]


def _powers(count: int) -> UInt64Array:
    powers = np.full(count, _BASE, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)
