"""Training documents that hold text of given tests, found by word n-grams.

As GPT-3's authors did it (Brown et al. 2020, appendix C): 13 words in a row, without case and punctuation. A test item of 8 to 12 words is
looked for as a whole; a shorter one would be found everywhere and is not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import xxhash

from llm_training.cleaning.characters import PUNCTUATION
from llm_training.cleaning.outcome import TextView, Verdict
from llm_training.cleaning.shingles import fold
from llm_training.cleaning.words import PART_CHARACTERS, UInt64Array, WordTable, word_parts

STEP: Final = "decontaminate"
NGRAM_WORDS: Final = 13
LEAST_WORDS: Final = 8


class ContaminationIndex:
    """The n-grams of all test texts.

    Attributes:
        num_texts: texts taken in.
        num_too_short: texts of fewer than 8 words, left out.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.num_texts = self.num_too_short = 0
        found: dict[int, list[UInt64Array]] = {}
        for text in texts:
            hashes = _word_hashes(TextView(text))
            if len(hashes) < LEAST_WORDS:
                self.num_too_short += 1
                continue
            self.num_texts += 1
            size = min(NGRAM_WORDS, len(hashes))
            found.setdefault(size, []).append(fold(hashes, size))
        self._keys = {size: np.unique(np.concatenate(keys)) for size, keys in sorted(found.items(), reverse=True)}

    def judge(self, view: TextView) -> Verdict | None:
        """A verdict when the text holds an n-gram of a test."""
        hashes = _word_hashes(view)
        for size, known in self._keys.items():
            if len(hashes) < size:
                continue
            keys = fold(hashes, size)
            places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            if hits := int((known[places] == keys).sum()):
                return Verdict(STEP, "contaminated", f"{hits} times {size} words in a row of a test")
        return None


def _word_hashes(view: TextView) -> UInt64Array:
    """Hashes of the words that are more than punctuation, in order."""
    if len(view.text) <= PART_CHARACTERS:
        return _table_hashes(view.words)
    return np.concatenate([_table_hashes(WordTable(part)) for part in word_parts(view.text)])


def _table_hashes(words: WordTable) -> UInt64Array:
    plain = [word.strip(PUNCTUATION).lower() for word in words.unique]
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, plain), dtype=np.uint64, count=len(plain))
    is_word = np.fromiter(map(bool, plain), dtype=np.bool_, count=len(plain))
    return hashes[words.ids[is_word[words.ids]]]
