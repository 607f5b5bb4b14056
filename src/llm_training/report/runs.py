"""The most frequent words and runs of words of a text: counted exactly in bounded memory, by a sketch where that is too little.

Each different word gets a number, and the text is kept as these numbers, 4 bytes a word. A run of words is then one 64-bit key, and
equal runs are equal keys: of ten million different runs two share a key with probability 3e-6. Only the first runs become words again.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llm_training.report.sketches import Frequent

Run = tuple[str, ...]
UInt64Array = NDArray[np.uint64]

# Bounds of exact counting. 4 bytes a word are held, besides the vocabulary; while ranking 50 bytes a word at most, where all runs
# are the same, and half of it for ordinary text. So the most is 600 MB.
EXACT_WORDS: Final = 10_000_000
EXACT_VOCABULARY_BYTES: Final = 100_000_000
_SKETCH_CAPACITY: Final = 20_000
_BATCH_WORDS: Final = 50_000
_ENTRY_BYTES: Final = 100  # of a dictionary, besides the word itself
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_PART_BITS: Final = 4
# The number between two documents, over which no run goes.
_BREAK: Final = 0


class WordRuns:
    """Counts runs of ``sizes`` words in documents.

    Attributes:
        max_words: words that are counted exactly; with more, and with a vocabulary over ``max_vocabulary_bytes``, counting goes on
            in sketches.
    """

    def __init__(self, sizes: Sequence[int], *, max_words: int = EXACT_WORDS, max_vocabulary_bytes: int = EXACT_VOCABULARY_BYTES) -> None:
        self.sizes = tuple(sizes)
        self.max_words = max_words
        self._max_vocabulary_bytes = max_vocabulary_bytes
        self._vocabulary = _Vocabulary()
        self._numbers = array("I")
        self._sketches: dict[int, Frequent[Run]] = {}
        self._ranked: dict[tuple[int, int], list[tuple[Run, int]]] = {}

    @property
    def is_exact(self) -> bool:
        """False once the bounds are passed."""
        return not self._sketches

    def error(self, size: int) -> int:
        """By how much the counts of this size may be too low."""
        return 0 if self.is_exact else self._sketches[size].error

    def add(self, words: Iterable[str]) -> None:
        """Count the words of one document, which may be an iterator over any number."""
        self._ranked.clear()
        source = iter(words)
        while batch := list(islice(source, _BATCH_WORDS)):
            if self.is_exact:
                self._numbers.extend(map(self._vocabulary.__getitem__, batch))
                if len(self._numbers) > self.max_words or self._vocabulary.num_bytes > self._max_vocabulary_bytes:
                    self._give_up()
            else:
                self._sketch(batch)
        if self.is_exact:
            self._numbers.append(_BREAK)

    def top(self, size: int, number: int) -> list[tuple[Run, int]]:
        """The most frequent runs with their counts; of equal counts those that come first in the text."""
        if (size, number) not in self._ranked:
            self._ranked[size, number] = self._top(size, number) if self.is_exact else self._sketches[size].top(number)
        return self._ranked[size, number]

    def _top(self, size: int, number: int) -> list[tuple[Run, int]]:
        numbers = np.frombuffer(self._numbers, dtype=np.uint32)
        keys, is_run = _keys(numbers, size)
        best: list[tuple[int, int]] = []
        for part in range(1 << _PART_BITS):
            places = np.flatnonzero(is_run & (keys >> np.uint64(64 - _PART_BITS) == part))
            best += _best(keys[places], places, number)
        ranked = sorted(best)[:number]
        words = list(self._vocabulary)
        return [(tuple(words[one - 1] for one in numbers[place : place + size]), -negative) for negative, place in ranked]

    def _give_up(self) -> None:
        """Go on in sketches, with what was counted so far in them."""
        words, numbers = list(self._vocabulary), self._numbers
        self._sketches = {size: Frequent(_SKETCH_CAPACITY) for size in self.sizes}
        self._vocabulary, self._numbers = _Vocabulary(), array("I")
        ends = np.flatnonzero(np.frombuffer(numbers, dtype=np.uint32) == _BREAK).tolist()
        for start, stop in pairwise([-1, *ends, len(numbers)]):
            for first in range(start + 1, stop, _BATCH_WORDS):
                self._sketch([words[one - 1] for one in numbers[first : min(stop, first + _BATCH_WORDS)]])

    def _sketch(self, words: Sequence[str]) -> None:
        for size, sketch in self._sketches.items():
            sketch.update(ngrams(words, size))


class _Vocabulary(dict[str, int]):
    """Words by number, from 1, which a word gets when it is first asked for."""

    num_bytes = 0

    def __missing__(self, word: str) -> int:
        self.num_bytes += sys.getsizeof(word) + _ENTRY_BYTES
        self[word] = number = len(self) + 1
        return number


def ngrams(words: Sequence[str], size: int) -> Iterator[Run]:
    """Runs of ``size`` words."""
    return zip(*(words[start:] for start in range(size)), strict=False)


def _keys(numbers: NDArray[np.uint32], size: int) -> tuple[UInt64Array, NDArray[np.bool_]]:
    """A key for each place of the text, uint64 [W - size + 1], and whether a run begins there, bool [W - size + 1]."""
    count = max(0, len(numbers) - size + 1)
    keys = np.zeros(count, dtype=np.uint64)
    is_run = np.ones(count, dtype=bool)
    for offset in range(size):
        keys += numbers[offset : offset + count]
        keys *= _FACTOR
        is_run &= numbers[offset : offset + count] != _BREAK
    return keys, is_run


def _best(keys: UInt64Array, places: NDArray[np.int64], number: int) -> list[tuple[int, int]]:
    """Minus the count and the first place of the most frequent keys."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts, firsts = np.diff(np.append(starts, len(keys))), places[order[starts]]
    chosen = np.lexsort((firsts, -counts))[:number]
    return list(zip((-counts[chosen]).tolist(), firsts[chosen].tolist(), strict=True))
