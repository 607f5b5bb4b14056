"""Which documents repeat others, over any number of documents.

Documents are numbered. Their keys lie wherever the caller keeps them and come row by row: a row is one key of every document, of
which only a part is asked for at a time, so memory is bounded: 16 bytes for each document in hand, 10 for each of all, and 16 for
each pair to compare. Of equal documents the first stays, of similar ones that with the most copies. A document goes only when it
repeats one that stays: no cluster vanishes, and none is chained together by pairs that are not alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_training.cleaning.shingles import NUM_BANDS, jaccard
from llm_training.cleaning.words import UInt64Array

Int64Array = NDArray[np.int64]

# Documents whose keys are sorted in memory at once; above it the keys are taken in parts.
DOCUMENTS_IN_MEMORY: Final = 8_000_000
# In a larger group only pairs with this many of its first and of the preceding members are compared.
_GROUP_NEIGHBOURS: Final = 16
_CACHED_SETS: Final = 4_096
NONE: Final = -1


class KeyRows(Protocol):
    """Keys of documents: rows 0 and 1 are the halves of the content key, rows 2 and on the bands."""

    @property
    def num_documents(self) -> int:
        """How many there are."""
        ...

    def pieces(self, row: int) -> Generator[UInt64Array]:
        """The keys of one row in the order of documents, in pieces of any size."""
        ...


def exact_duplicates(rows: KeyRows, order: NDArray[np.integer], *, in_memory: int = DOCUMENTS_IN_MEMORY) -> Int64Array:
    """For each document the one that it repeats but for white space, or -1.

    Args:
        rows: keys.
        order: [documents]; in a group of equal documents the one of the lowest order stays, of equal order the first.
        in_memory: documents whose keys are held at once.
    """
    original = np.full(rows.num_documents, NONE, dtype=np.int64)
    for low, documents in _parts(rows, 0, in_memory):
        high = _taken(rows, 1, documents)
        sequence = np.lexsort((documents, order[documents], high, low))
        documents, low, high = documents[sequence], low[sequence], high[sequence]
        starts = np.flatnonzero(np.concatenate([[True], (low[1:] != low[:-1]) | (high[1:] != high[:-1])]))
        sizes = np.diff(np.append(starts, len(documents)))
        first = np.repeat(documents[starts], sizes)
        repeats = documents != first
        original[documents[repeats]] = first[repeats]
    return original


def near_duplicates(
    rows: KeyRows,
    order: NDArray[np.integer],
    original: Int64Array,
    shingles_of: Callable[[int], UInt64Array],
    threshold: float,
    *,
    num_bands: int = NUM_BANDS,
    in_memory: int = DOCUMENTS_IN_MEMORY,
) -> dict[int, tuple[int, float]]:
    """Documents that go, each with the document that stays and the similarity of the two.

    Args:
        rows: keys.
        order: as in `exact_duplicates`.
        original: what `exact_duplicates` found; those are left out.
        shingles_of: the set of a document.
        threshold: least Jaccard similarity.
        num_bands: bands that ``rows`` has.
        in_memory: documents whose keys are held at once.
    """
    later, earlier = _candidates(rows, order, original, num_bands, in_memory)
    cached = _Cached(shingles_of)
    gone: dict[int, tuple[int, float]] = {}
    for one, other in zip(later.tolist(), earlier.tolist(), strict=True):
        if one in gone or other in gone:
            continue
        similarity = jaccard(cached(one), cached(other))
        if similarity >= threshold:
            gone[one] = (other, similarity)
    return gone


def _candidates(
    rows: KeyRows, order: NDArray[np.integer], original: Int64Array, num_bands: int, in_memory: int
) -> tuple[Int64Array, Int64Array]:
    """Pairs that share a band: the document that would go and the one that would stay, in the order of deciding."""
    is_there = original == NONE
    copies = np.bincount(original[~is_there], minlength=rows.num_documents)
    rank = np.empty(rows.num_documents, dtype=np.int64)
    by_rank = np.lexsort((np.arange(rows.num_documents), -copies, order))
    rank[by_rank] = np.arange(rows.num_documents)
    pairs = np.empty((0, 2), dtype=np.int64)
    for band in range(2, 2 + num_bands):
        found = [pairs]
        for keys, documents in _parts(rows, band, in_memory):
            keep = is_there[documents]
            found.append(_pairs_of_groups(keys[keep], rank[documents[keep]]))
        pairs = np.unique(np.concatenate(found), axis=0) if len(found) > 1 else pairs
    return by_rank[pairs[:, 0]], by_rank[pairs[:, 1]]


def _pairs_of_groups(keys: UInt64Array, ranks: Int64Array) -> Int64Array:
    sequence = np.lexsort((ranks, keys))
    keys, ranks = keys[sequence], ranks[sequence]
    starts = np.concatenate([[True], keys[1:] != keys[:-1]])
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1] if len(keys) else np.empty(0, dtype=np.int64)
    place = np.arange(len(keys)) - first
    found: list[Int64Array] = []
    for distance in range(1, min(_GROUP_NEIGHBOURS, int(place.max(initial=0))) + 1):
        has = np.flatnonzero(place >= distance)
        found.append(np.stack([ranks[has], ranks[has - distance]], axis=1))
    for offset in range(_GROUP_NEIGHBOURS):
        has = np.flatnonzero(place > offset + _GROUP_NEIGHBOURS)
        if not len(has):
            break
        found.append(np.stack([ranks[has], ranks[first[has] + offset]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _parts(rows: KeyRows, row: int, in_memory: int) -> Generator[tuple[UInt64Array, Int64Array]]:
    """Keys of a row with their documents, in parts by the key's value, so that equal keys are in one part."""
    parts = max(1, -(-rows.num_documents // in_memory))
    for part in range(parts):
        keys: list[UInt64Array] = []
        documents: list[Int64Array] = []
        first = 0
        for piece in rows.pieces(row):
            mine = np.flatnonzero(piece % np.uint64(parts) == part) if parts > 1 else np.arange(len(piece))
            keys.append(piece[mine])
            documents.append(mine + first)
            first += len(piece)
        if sum(map(len, documents)):
            yield np.concatenate(keys), np.concatenate(documents)


def _taken(rows: KeyRows, row: int, documents: Int64Array) -> UInt64Array:
    """Keys of a row for ascending document numbers."""
    taken: list[UInt64Array] = []
    first = 0
    for piece in rows.pieces(row):
        start, stop = np.searchsorted(documents, [first, first + len(piece)])
        taken.append(piece[documents[start:stop] - first])
        first += len(piece)
    return np.concatenate(taken) if taken else np.empty(0, dtype=np.uint64)


class _Cached:
    """The sets used last."""

    def __init__(self, make: Callable[[int], UInt64Array]) -> None:
        self._make = make
        self._held: OrderedDict[int, UInt64Array] = OrderedDict()

    def __call__(self, document: int) -> UInt64Array:
        found = self._held.pop(document, None)
        if found is None:
            found = self._make(document)
        self._held[document] = found
        if len(self._held) > _CACHED_SETS:
            self._held.popitem(last=False)
        return found
