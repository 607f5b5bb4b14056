"""Summaries of endless streams in bounded memory: distributions, frequent items, samples, repeated contents."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

BINS_PER_DOUBLING = 8


@dataclass
class Distribution:
    """Positive numbers in bins whose width is a twelfth of their value; zeros apart. Quantiles are off by 5 % at most.

    A few hundred bins hold any stream: the values between 1 and 10^12 need 320.
    """

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = 0.0
    zeros: int = 0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, value: float) -> None:
        """Count one value, zero or more."""
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.greatest = max(self.greatest, value)
        if value > 0:
            self.bins[math.floor(math.log2(value) * BINS_PER_DOUBLING)] += 1
        else:
            self.zeros += 1

    @property
    def mean(self) -> float:
        """The mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, fraction: float) -> float:
        """The value that ``fraction`` of the values do not exceed, from the middle of its bin; 0 without values."""
        wanted = max(1, math.ceil(fraction * self.count))
        seen = self.zeros
        if not self.count or seen >= wanted:
            return 0.0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= wanted:
                middle = 2 ** ((number + 0.5) / BINS_PER_DOUBLING)
                return min(self.greatest, max(self.least, middle))
        return self.greatest

    def distance(self, other: Distribution) -> float:
        """Greatest difference of the two cumulative shares (Kolmogorov-Smirnov); 0 when one is empty."""
        if not self.count or not other.count:
            return 0.0
        greatest, mine, theirs = 0.0, self.zeros, other.zeros
        for number in [None, *sorted(self.bins.keys() | other.bins.keys())]:
            if number is not None:
                mine, theirs = mine + self.bins[number], theirs + other.bins[number]
            greatest = max(greatest, abs(mine / self.count - theirs / other.count))
        return greatest


class Frequent(Generic[Key]):
    """The most frequent items of a stream (Misra and Gries 1982, in batches).

    Never more than twice ``capacity`` counters. A count is at most ``error`` too low, and an item that came more often
    than that is never lost.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: Counter[Key] = Counter()
        self.error = 0
        self.total = 0

    def update(self, items: Iterable[Key]) -> None:
        """Count a batch; hand over large batches in parts."""
        self._counts.update(items)
        if len(self._counts) > 2 * self._capacity:
            self._prune()

    def _prune(self) -> None:
        counts = np.fromiter(self._counts.values(), dtype=np.int64, count=len(self._counts))
        threshold = int(np.partition(counts, len(counts) - self._capacity - 1)[len(counts) - self._capacity - 1])
        self.error += threshold
        self._counts = Counter({key: count - threshold for key, count in self._counts.items() if count > threshold})

    def top(self, number: int) -> list[tuple[Key, int]]:
        """The most frequent items with their counts, which are at most ``error`` too low; ties in the order of the items' text."""
        return sorted(self._counts.items(), key=lambda entry: (-entry[1], str(entry[0])))[:number]


class Reservoir(Generic[Item]):
    """An even sample of a stream (algorithm R), the same for the same stream and seed."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.num_seen = 0
        self.items: list[Item] = []
        self._random = random.Random(seed)  # noqa: S311 - a sample, not a secret

    def add(self, item: Item) -> None:
        """Offer one item."""
        self.num_seen += 1
        if len(self.items) < self.size:
            self.items.append(item)
        elif (place := self._random.randrange(self.num_seen)) < self.size:
            self.items[place] = item

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


@dataclass(frozen=True)
class RepeatCounts:
    """Documents by how often their text occurs.

    Attributes:
        num_documents: all of them.
        num_unique: different texts, white space aside.
        num_copies: documents whose text, byte for byte, came before.
        num_spaced_copies: documents that repeat an earlier one except for white space.
        by_size: number of documents in groups of equal texts, by size of the group (1, 2, 3 to 5, 6 to 20, more).
        num_leaked: held-out documents whose text, white space aside, is also a training text.
        num_held_out: held-out documents.
    """

    num_documents: int
    num_unique: int
    num_copies: int
    num_spaced_copies: int
    by_size: dict[str, int]
    num_leaked: int
    num_held_out: int


_SIZES = (("once", 1, 1), ("twice", 2, 2), ("3 to 5 times", 3, 5), ("6 to 20 times", 6, 20), ("more than 20 times", 21, 1 << 62))


class Repeats:
    """Equal texts, found by 64-bit hashes: 17 bytes of memory a document."""

    def __init__(self) -> None:
        self._exact = array("Q")
        self._spaced = array("Q")
        self._held_out = array("B")

    def add(self, exact: int, spaced: int, *, is_held_out: bool) -> None:
        """One document: the hash of its text, and of its text with white space made equal."""
        self._exact.append(exact)
        self._spaced.append(spaced)
        self._held_out.append(is_held_out)

    def counts(self) -> RepeatCounts:
        """The result so far."""
        exact, spaced = np.frombuffer(self._exact, dtype=np.uint64), np.frombuffer(self._spaced, dtype=np.uint64)
        held_out = np.frombuffer(self._held_out, dtype=np.uint8).astype(bool)
        _, sizes = np.unique(spaced, return_counts=True)
        by_size = {name: int(sizes[(sizes >= least) & (sizes <= most)].sum()) for name, least, most in _SIZES}
        num_copies = len(exact) - len(np.unique(exact))
        leaked = np.isin(spaced[held_out], spaced[~held_out])
        return RepeatCounts(
            len(exact), len(sizes), num_copies, len(exact) - len(sizes) - num_copies, by_size, int(leaked.sum()), int(held_out.sum())
        )
