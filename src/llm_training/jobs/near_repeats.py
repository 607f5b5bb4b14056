"""Texts that nearly repeat another, among documents that fit in memory: what preparation would drop, counted.

The keys and sets are those of the cleaning room, so a report and `llm-prepare-data` speak of the same documents.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_training.cleaning.duplicates import exact_duplicates, near_duplicates
from llm_training.cleaning.shingles import band_keys, content_key, shingles

SIMILARITY = 0.8
_BATCH = 512
UInt64Array = NDArray[np.uint64]


@dataclass(frozen=True)
class NearCounts:
    """Documents looked at, those that nearly repeat another one (copies aside), and held-out ones that nearly repeat training."""

    num_documents: int
    num_near: int
    num_leaked: int
    num_held_out: int


class NearRepeats:
    """Collects documents and then counts. Memory: about the size of the text."""

    def __init__(self) -> None:
        self._sets: list[UInt64Array] = []
        self._content: list[tuple[int, int]] = []
        self._bands: list[UInt64Array] = []
        self._held_out: list[bool] = []
        self._num_keyed = 0

    def add(self, text: str, *, is_held_out: bool) -> None:
        """One document. Raises ConfigError when rensa is not installed."""
        self._sets.append(shingles(text))
        self._content.append(content_key(text))
        self._held_out.append(is_held_out)
        if len(self._sets) - self._num_keyed >= _BATCH:
            self._key()

    def _key(self) -> None:
        self._bands.append(band_keys(self._sets[self._num_keyed :]))
        self._num_keyed = len(self._sets)

    def counts(self) -> NearCounts:
        """The result; a held-out document gives way to a training document, so leaks are seen as such."""
        self._key()
        held_out = np.array(self._held_out, dtype=bool)
        order = held_out.astype(np.int64)
        rows = _Rows(np.concatenate([np.array(self._content, dtype=np.uint64).reshape(-1, 2).T, np.concatenate(self._bands, axis=1)]))
        original = exact_duplicates(rows, order)
        gone = near_duplicates(rows, order, original, self._sets.__getitem__, SIMILARITY)
        leaked = sum(bool(held_out[one]) and not held_out[other] for one, (other, _) in gone.items())
        return NearCounts(len(held_out), len(gone), leaked, int(held_out.sum()))


class _Rows:
    """Keys in memory, [rows, documents]."""

    def __init__(self, keys: UInt64Array) -> None:
        self._keys = keys

    @property
    def num_documents(self) -> int:
        return self._keys.shape[1]

    def pieces(self, row: int) -> Generator[UInt64Array]:
        yield self._keys[row]
