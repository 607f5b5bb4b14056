"""What two texts are compared by: a key of their words in order, the set of their word 5-grams, and MinHash keys of that set.

Words are compared as they stand between white space. So texts that differ in white space alone have one key, and the similarity of
two texts is the share of 5-grams that they have in common (Jaccard). Keys do not depend on the process that makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xxhash

from llm_training.cleaning.words import UInt64Array, mixed, word_parts
from llm_training.errors import ConfigError

SHINGLE_WORDS: Final = 5
_TEXTS_AT_ONCE: Final = 2_000
# At similarity 0.8 a pair shares at least one of 24 bands of 6 values with probability 0.9993.
NUM_BANDS: Final = 24
BAND_VALUES: Final = 6
_SEED: Final = 20
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


def content_key(text: str) -> tuple[int, int]:
    """128 bits of the text with each stretch of white space as one space, in two halves."""
    hasher = xxhash.xxh3_128()
    gap = ""
    for part in word_parts(text):
        if words := part.split():
            hasher.update(gap + " ".join(words))
            gap = " "
    whole = hasher.intdigest()
    return whole >> 64, whole & (1 << 64) - 1


def shingles(text: str, n: int = SHINGLE_WORDS) -> UInt64Array:
    """Hashes of the different word n-grams, ascending; a shorter text is one n-gram, an empty one none."""
    parts = [_word_hashes(part) for part in word_parts(text)]
    hashes = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
    return np.unique(fold(hashes, min(n, len(hashes)))) if len(hashes) else hashes


def _word_hashes(text: str) -> UInt64Array:
    words = text.split()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, words), dtype=np.uint64, count=len(words))


def fold(hashes: UInt64Array, n: int) -> UInt64Array:
    """One hash for every n neighbours, [W - n + 1]."""
    size = len(hashes) - n + 1
    keys = hashes[:size].copy()
    for offset in range(1, n):
        keys *= _FACTOR
        keys += hashes[offset : offset + size]
    return mixed(keys)


def jaccard(one: UInt64Array, other: UInt64Array) -> float:
    """Share of the union that is in both; both ascending and without repetition."""
    if not len(one) or not len(other):
        return 0.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def band_keys(sets: Sequence[UInt64Array]) -> UInt64Array:
    """MinHash keys, uint64 [bands, texts]: texts that are alike share a key in some row.

    Raises:
        ConfigError: rensa is not installed.
    """
    try:
        from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module without stubs
    except ImportError:
        raise ConfigError("finding near-duplicates needs rensa", remedy="pip install 'llm-training[data]'") from None
    if not sets:
        return np.empty((NUM_BANDS, 0), dtype=np.uint64)
    starts = range(0, len(sets), _TEXTS_AT_ONCE)  # the matrix comes as numbers of Python: 7 kB a text
    return np.concatenate([_band_keys(RMinHash, sets[start : start + _TEXTS_AT_ONCE]) for start in starts], axis=1)


def _band_keys(minhash: Any, sets: Sequence[UInt64Array]) -> UInt64Array:
    offsets = np.concatenate([[0], np.cumsum([len(found) for found in sets])]).astype(np.uint64)
    matrix = minhash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, NUM_BANDS * BAND_VALUES, _SEED)
    values = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(sets), NUM_BANDS, BAND_VALUES)
    keys = values[:, :, 0]
    for index in range(1, BAND_VALUES):
        keys = keys * _FACTOR + values[:, :, index]
    return np.ascontiguousarray(mixed(keys).T)
