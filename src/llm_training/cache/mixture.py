"""Weighted mixtures: which source sample ``i`` of a run comes from, and which row of it; a pure function, like `order`.

Sample i looks at a point of a circle, ``x(i) = i / golden ratio + phase(seed)`` modulo 1, and comes from the source whose arc
it falls on; the arcs are the shares. The golden rotation is the sequence whose points lie most evenly in every stretch
of it: among any samples in a row of the first million, a source's count differs from its share by 5 at most (a random draw
drifts like the square root of their number). How many of the first n points fall on an arc is a sum of floors, which
Euclid's algorithm finds in a few dozen steps of exact integer arithmetic; nothing is stored or replayed.

Sample number n of a source takes row n of that source's own `Order`. A source that has run through its epochs leaves, and the
others share its arc; at a join shares and caps are worked out again. Both begin a new segment at a sample that is itself
a pure function of the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from llm_training.cache.order import EpochPosition, Join, Order, ShuffleShape, epoch_samples
from llm_training.cache.pools import Pool
from llm_training.errors import DataError

Int64Array = NDArray[np.int64]

_CIRCLE = 1 << 64
_ROTATION = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, made odd: the rotation visits every point
_FAR = 1 << 62


@dataclass(frozen=True)
class Part:
    """A source of a mixture: its share is ``weight`` over the sum of the weights; None of ``max_epochs`` is no cap."""

    weight: float
    max_epochs: float | None = None


@dataclass(frozen=True)
class Piece:
    """Rows that lie together in the run's numbering and are of one source: a chunk."""

    part: int
    num_rows: int


@dataclass(frozen=True)
class _Segment:
    """From ``first_sample`` on: the parts that take turns, the ends of their arcs, and the samples each had before."""

    first_sample: int
    active: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]


class MixedOrder:
    """The order of a run over a mixture.

    Args:
        seed: any integer.
        parts: the sources by number.
        pieces: all rows of the run in the order of their numbers.
        num_rows: rows at the start of the run; the pieces up to there are whole.
        joins: growth, as for `Order`.
        fraction: share of its rows that an epoch of a source takes.
        shape: locality of the shuffle within a source.

    Attributes:
        num_samples: after so many samples every source has run through its epochs; None when one has no cap.

    Raises:
        ConfigError: as `Order`.
    """

    def __init__(
        self,
        *,
        seed: int,
        parts: Sequence[Part],
        pieces: Sequence[Piece],
        num_rows: int,
        shape: ShuffleShape,
        joins: Sequence[Join] = (),
        fraction: float = 1.0,
    ) -> None:
        self._parts = tuple(parts)
        self._phase = int.from_bytes(hashlib.sha256(f"llm-training mixture 1/{seed}".encode()).digest()[:8], "little")
        # Epochs of the run count samples: as many as all sources together have rows.
        self._clock = Order(seed=seed, num_rows=num_rows, shape=shape, joins=joins, fraction=fraction)
        # As many windows are open as there are sources: smaller ones, so that together they need the memory of one.
        shape = ShuffleShape(shape.block_rows, max(1, shape.window_blocks // max(1, len(parts))))
        self._stretch = shape.block_rows * shape.window_blocks
        self._growth = [_PartOrder(seed, number, shape, fraction) for number in range(len(parts))]
        self._pools = [_pool(pieces, number) for number in range(len(parts))]
        self._segments: list[_Segment] = []
        self.num_samples: int | None = None
        counts = (0,) * len(parts)
        stages = [Join(0, num_rows), *joins]
        for number, stage in enumerate(stages):
            ends_at = stages[number + 1].sample if number + 1 < len(stages) else _FAR
            counts = self._add_stage(stage, _rows_of_parts(pieces, stage.num_rows, len(parts)), counts, ends_at)

    def rows(self, start: int, stop: int) -> Int64Array:
        """Rows of samples ``start .. stop - 1``: ``[stop - start]`` int64. Raises DataError beyond ``num_samples``."""
        found: list[Int64Array] = []
        while start < stop:
            number = self._segment_at(start)
            segment = self._segments[number]
            end = self._segments[number + 1].first_sample if number + 1 < len(self._segments) else _FAR
            found.append(self._segment_rows(segment, start, min(stop, end)))
            start = min(stop, end)
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def window(self, sample: int) -> tuple[int, int]:
        """First and last-plus-one sample of the stretch around ``sample`` in which each source stays within two windows of its own."""
        first = sample - sample % self._stretch
        last = first + self._stretch
        if self.num_samples is None:
            return first, last
        return (sample, sample) if sample >= self.num_samples else (first, min(last, self.num_samples))

    def position(self, sample: int) -> EpochPosition:
        """The epoch of the run that a sample lies in, counted in samples."""
        return self._clock.position(sample)

    def counts(self, sample: int) -> tuple[int, ...]:
        """Samples of each source before ``sample``. Raises DataError beyond ``num_samples``."""
        return self._counts(self._segments[self._segment_at(max(0, sample - 1))], sample)

    def epochs(self, sample: int) -> tuple[float, ...]:
        """Epochs of each source taken before ``sample``."""
        return tuple(growth.epochs(count) for growth, count in zip(self._growth, self.counts(sample), strict=True))

    def _segment_at(self, sample: int) -> int:
        number = next(index for index in reversed(range(len(self._segments))) if self._segments[index].first_sample <= sample)
        if not self._segments[number].active:
            what = f"every source has run through its epochs after {self._segments[number].first_sample:,} samples"
            raise DataError(what, where="data.sources", remedy="raise max_epochs, or add text")
        return number

    def _segment_rows(self, segment: _Segment, start: int, stop: int) -> Int64Array:
        points = (np.arange(start, stop, dtype=np.uint64) * np.uint64(_ROTATION)) + np.uint64(self._phase)
        arcs = np.searchsorted(np.array(segment.ends[:-1], dtype=np.uint64), points, side="right")
        counts = self._counts(segment, start)
        found = np.zeros(stop - start, dtype=np.int64)
        for arc, part in enumerate(segment.active):
            places = np.flatnonzero(arcs == arc)
            if len(places):
                own = self._growth[part].order.rows(counts[part], counts[part] + len(places))
                found[places] = self._pools[part].rows(own)
        return found

    def _counts(self, segment: _Segment, sample: int) -> tuple[int, ...]:
        counts, begin = list(segment.counts), 0
        for part, end in zip(segment.active, segment.ends, strict=True):
            counts[part] += self._hits(begin, end, segment.first_sample, sample)
            begin = end
        return tuple(counts)

    def _hits(self, begin: int, end: int, start: int, stop: int) -> int:
        """Points number ``start .. stop - 1`` on the arc from ``begin`` to before ``end``."""
        return sum(sign * (self._below(end, n) - self._below(begin, n)) for sign, n in ((1, stop), (-1, start)))

    def _below(self, bound: int, n: int) -> int:
        """Of the first n points those below ``bound``: each adds floor(y / circle) - floor((y - bound) / circle), with y not reduced."""
        lowered = floor_sum(n, _CIRCLE, _ROTATION, self._phase - bound + _CIRCLE) - n
        return floor_sum(n, _CIRCLE, _ROTATION, self._phase) - lowered

    def _add_stage(self, stage: Join, rows: Sequence[int], counts: tuple[int, ...], ends_at: int) -> tuple[int, ...]:
        """The segments from a join to the next one; returns the counts at its end."""
        caps = [
            growth.grow(count, num_rows, part.max_epochs)
            for growth, count, num_rows, part in zip(self._growth, counts, rows, self._parts, strict=True)
        ]
        sample = stage.sample
        while True:
            active = [part for part, cap in enumerate(caps) if rows[part] and (cap is None or counts[part] < cap)]
            segment = _Segment(sample, tuple(active), _arc_ends([self._parts[part].weight for part in active]), counts)
            self._segments.append(segment)
            self.num_samples = None if active else sample
            leaves_at = min((self._leaves_at(segment, part, cap) for part in active if (cap := caps[part]) is not None), default=_FAR)
            if not active or min(leaves_at, ends_at) == _FAR:
                return counts
            counts = self._counts(segment, min(leaves_at, ends_at))
            if ends_at <= leaves_at:
                return counts
            sample = leaves_at

    def _leaves_at(self, segment: _Segment, part: int, cap: int) -> int:
        """The first sample before which the part has had ``cap`` samples."""
        place = segment.active.index(part)
        begin, end = (0, *segment.ends)[place : place + 2]
        wanted = cap - segment.counts[part]

        def has_enough(n: int) -> bool:
            return self._hits(begin, end, segment.first_sample, segment.first_sample + n) >= wanted

        low, high = 0, wanted
        while not has_enough(high):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if has_enough(middle) else (middle, high)
        return segment.first_sample + high


class _PartOrder:
    """The rows of one source by the number of its sample, through all joins."""

    def __init__(self, seed: int, number: int, shape: ShuffleShape, fraction: float) -> None:
        self._seed = int.from_bytes(hashlib.sha256(f"llm-training mixture 1/{seed}/{number}".encode()).digest()[:8], "little")
        self._shape = shape
        self._fraction = fraction
        self._num_rows: list[Join] = []
        self._order: Order | None = None

    @property
    def order(self) -> Order:
        """Raises AssertionError for a source that has no rows: none of its samples is ever asked for."""
        assert self._order is not None
        return self._order

    def grow(self, count: int, num_rows: int, max_epochs: float | None) -> int | None:
        """From its sample ``count`` on the source has so many rows; returns at which of its samples it leaves."""
        before = self._order
        if num_rows and (not self._num_rows or num_rows > self._num_rows[-1].num_rows):
            self._num_rows.append(Join(count, num_rows))
            first, *joins = self._num_rows
            self._order = Order(seed=self._seed, num_rows=first.num_rows, shape=self._shape, joins=joins, fraction=self._fraction)
        if max_epochs is None:
            return None
        if not num_rows:
            return 0
        position = EpochPosition(0, 0, 1) if before is None else before.position(count)
        left = max(Fraction(0), Fraction(str(max_epochs)) - position.epoch)
        return count - position.offset + int(left * epoch_samples(num_rows, self._fraction))

    def epochs(self, count: int) -> float:
        """Epochs within the first ``count`` samples."""
        if self._order is None:
            return 0.0
        position = self._order.position(count)
        return position.epoch + position.offset / position.num_samples


def floor_sum(n: int, modulus: int, step: int, offset: int) -> int:
    """Sum of ``floor((step x j + offset) / modulus)`` for j from 0 to n - 1; n, step and offset not negative."""
    total = 0
    while True:
        total += (n - 1) * n // 2 * (step // modulus) + n * (offset // modulus)
        step, offset = step % modulus, offset % modulus
        reach = step * n + offset
        if reach < modulus:
            return total
        n, offset = divmod(reach, modulus)
        modulus, step = step, modulus


def _arc_ends(weights: Sequence[float]) -> tuple[int, ...]:
    """Ends of arcs in proportion to the weights, the last one the whole circle."""
    exact = [Fraction(str(weight)) for weight in weights]
    total, ends, so_far = sum(exact, Fraction(0)), list[int](), Fraction(0)
    for weight in exact:
        so_far += weight
        ends.append(int(so_far / total * _CIRCLE))
    return tuple(ends)


def _rows_of_parts(pieces: Sequence[Piece], num_rows: int, num_parts: int) -> list[int]:
    found, so_far = [0] * num_parts, 0
    for piece in pieces:
        if so_far >= num_rows:
            break
        found[piece.part] += piece.num_rows
        so_far += piece.num_rows
    return found


def _pool(pieces: Sequence[Piece], part: int) -> Pool:
    """Where the rows of a source lie: its own row numbers to the run's."""
    lengths = np.array([piece.num_rows for piece in pieces], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    is_own = np.array([piece.part == part and piece.num_rows > 0 for piece in pieces], dtype=bool)
    return Pool.of_runs(starts[is_own], lengths[is_own])
