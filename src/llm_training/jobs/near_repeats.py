"""Texts that nearly repeat another, among documents that fit in memory: what preparation would drop, counted.

The keys and sets are those of the cleaning room, so a report and `llm-prepare-data` speak of the same documents.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_training.cleaning.duplicates import exact_duplicates, near_duplicates
from llm_training.cleaning.shingles import band_keys, content_key, shingles

SIMILARITY = 0.8
_BATCH = 512
_MAX_EXAMPLES = 5
UInt64Array = NDArray[np.uint64]


@dataclass(frozen=True)
class NearCounts:
    """Documents looked at, those that nearly repeat another one (copies aside), and held-out ones that nearly repeat training.

    Attributes:
        examples: the first near-duplicates in words, and ``leaked_examples`` those of held-out documents.
    """

    num_documents: int
    num_near: int
    num_leaked: int
    num_held_out: int
    examples: tuple[str, ...] = ()
    leaked_examples: tuple[str, ...] = ()


class NearRepeats:
    """Collects documents and then counts. Memory: about the size of the text."""

    def __init__(self) -> None:
        self._sets: list[UInt64Array] = []
        self._content: list[tuple[int, int]] = []
        self._bands: list[UInt64Array] = []
        self._held_out: list[bool] = []
        self._names: list[str] = []
        self._num_keyed = 0

    def add(self, text: str, *, name: str, is_held_out: bool) -> None:
        """One document; ``name`` is for examples. Raises ConfigError when rensa is not installed."""
        self._sets.append(shingles(text))
        self._content.append(content_key(text))
        self._held_out.append(is_held_out)
        self._names.append(name)
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
        leaked = {one: found for one, found in gone.items() if held_out[one] and not held_out[found[0]]}
        return NearCounts(len(held_out), len(gone), len(leaked), int(held_out.sum()), self._examples(gone), self._examples(leaked))

    def _examples(self, gone: Mapping[int, tuple[int, float]]) -> tuple[str, ...]:
        first = sorted(gone.items())[:_MAX_EXAMPLES]
        return tuple(f"{self._names[one]} nearly repeats {self._names[other]} ({similarity:.2f})" for one, (other, similarity) in first)


class _Rows:
    """Keys in memory, [rows, documents]."""

    def __init__(self, keys: UInt64Array) -> None:
        self._keys = keys

    @property
    def num_documents(self) -> int:
        return self._keys.shape[1]

    def pieces(self, row: int) -> Generator[UInt64Array]:
        yield self._keys[row]
