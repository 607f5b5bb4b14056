"""Data order: which row sample ``i`` of a run is, as a pure function of (seed, rows and joins, ``i``).

There is no iterator and nothing to save: a resumed run asks for sample ``i`` again and gets the same row, whatever
the number of ranks, loader threads or micro-batches. An epoch visits each row at most once.

The shuffle is by blocks, so that a cache larger than memory is still read in neighbourhoods: the epoch's rows are cut
into blocks of neighbours, the blocks are permuted, and rows are permuted inside windows of several blocks. An epoch
that fits in one window gets a full shuffle.

Random numbers are the raw output of Philox (whose stream numpy guarantees; `Generator.permutation` is not guaranteed)
under a key that hashes (seed, epoch, join, what). A permutation is the stable argsort of raw 64-bit numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm_training.cache.pools import Pool
from llm_training.errors import ConfigError

Int64Array = NDArray[np.int64]

_BLOCK_TOKENS = 1 << 20
_WINDOW_BLOCKS = 64
_ENTRIES_KEPT = 4

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ShuffleShape:
    """How local the shuffle is: ``block_rows`` neighbours stay in one window of ``window_blocks`` blocks."""

    block_rows: int
    window_blocks: int


@dataclass(frozen=True)
class Join:
    """From sample ``sample`` on the cache counts ``num_rows`` rows; the new ones are numbered after the old ones."""

    sample: int
    num_rows: int


def shuffle_shape(sequence_length: int) -> ShuffleShape:
    """The shape used by runs: windows of 64 blocks of about 2^20 tokens, 128 MB of 16-bit tokens in reach at a time."""
    return ShuffleShape(max(1, _BLOCK_TOKENS // sequence_length), _WINDOW_BLOCKS)


def epoch_samples(num_rows: int, fraction: float) -> int:
    """Samples in an epoch: ``floor(fraction x num_rows)``, at least 1, with the fraction taken as the decimal it is written as.

    (In binary 0.29 x 100 is 28.999999999999996, and its floor is not what anyone means.)
    """
    return max(1, int(Fraction(str(fraction)) * num_rows))


@dataclass(frozen=True, eq=False)
class _Span:
    """Epochs ``epoch, epoch + 1, ...`` of ``num_samples`` samples each over one pool, from ``first_sample`` on.

    ``num_taken`` samples of the first epoch lie before the span: not 0 only for the rest of an epoch open at a join,
    which is one epoch long; the span after it goes on with whole epochs.
    """

    first_sample: int
    epoch: int
    join: int
    pool: Pool
    num_samples: int
    num_taken: int


@dataclass(frozen=True, eq=False)
class _Layout:
    """The permuted blocks of one epoch. Window ``w`` takes samples ``window_starts[w] .. window_starts[w + 1] - 1``.

    One block (the one at the end of the pool) may be short, so windows are found by search, not by division.
    """

    blocks: Int64Array
    window_starts: Int64Array

    def window_of(self, offset: int) -> int:
        return int(np.searchsorted(self.window_starts, offset, side="right")) - 1


@dataclass(frozen=True)
class EpochPosition:
    """Where a sample lies: ``offset`` samples into epoch ``epoch``, which has ``num_samples``."""

    epoch: int
    offset: int
    num_samples: int


class RowOrder(Protocol):
    """Which rows a run takes: `Order`, or an order over a mixture of sources."""

    def rows(self, start: int, stop: int) -> Int64Array:
        """Rows of samples ``start .. stop - 1``: ``[stop - start]`` int64."""
        ...

    def window(self, sample: int) -> tuple[int, int]:
        """First and last-plus-one sample of the stretch around ``sample`` whose chunks are worth having at one time."""
        ...


class Order:
    """The order of one run.

    Args:
        seed: any integer.
        num_rows: rows of the cache at the start of the run, at least 1.
        joins: growth, in order of ``sample``; row counts never fall.
        fraction: share of the rows that an epoch takes, above 0 and at most 1.
        shape: locality of the shuffle; part of the order, so a run keeps its own.

    Raises:
        ConfigError: one of the bounds above is broken.
    """

    def __init__(self, *, seed: int, num_rows: int, shape: ShuffleShape, joins: Sequence[Join] = (), fraction: float = 1.0) -> None:
        _check(num_rows, joins, fraction, shape)
        self._seed = seed
        self._shape = shape
        self._fraction = fraction
        self._layouts: dict[tuple[int, int], _Layout] = {}
        self._windows: dict[tuple[int, int, int], Int64Array] = {}
        self._spans = [_Span(0, 0, 0, Pool.first(num_rows), epoch_samples(num_rows, fraction), 0)]
        for number, join in enumerate(joins, 1):
            self._add_join(number, join, num_rows)
            num_rows = join.num_rows

    def rows(self, start: int, stop: int) -> Int64Array:
        """Rows of samples ``start .. stop - 1``: ``[stop - start]`` int64."""
        parts: list[Int64Array] = []
        while start < stop:
            span, epoch, offset = self._find(start)
            count = min(stop - start, span.num_samples - offset, self._span_end(span) - start)
            parts.append(self._epoch_rows(span, epoch, offset, count))
            start += count
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def position(self, sample: int) -> EpochPosition:
        """The epoch of a sample and how far into it the sample lies."""
        span, epoch, offset = self._find(sample)
        if epoch == span.epoch:
            return EpochPosition(epoch, span.num_taken + offset, span.num_taken + span.num_samples)
        return EpochPosition(epoch, offset, span.num_samples)

    def window(self, sample: int) -> tuple[int, int]:
        """First and last-plus-one sample of the shuffle window that ``sample`` lies in: their rows are neighbours in few blocks."""
        span, epoch, offset = self._find(sample)
        starts = self._layout(span, epoch).window_starts
        number = self._layout(span, epoch).window_of(offset)
        stop = min(int(starts[number + 1]), span.num_samples)
        return sample - (offset - int(starts[number])), min(sample + stop - offset, self._span_end(span))

    def _find(self, sample: int) -> tuple[_Span, int, int]:
        span = next(span for span in reversed(self._spans) if span.first_sample <= sample)
        epochs, offset = divmod(sample - span.first_sample, span.num_samples)
        return span, span.epoch + epochs, offset

    def _span_end(self, span: _Span) -> int:
        following = self._spans.index(span) + 1
        return self._spans[following].first_sample if following < len(self._spans) else 1 << 62

    def _add_join(self, number: int, join: Join, old_num_rows: int) -> None:
        span, epoch, offset = self._find(join.sample)
        taken = offset + (span.num_taken if epoch == span.epoch else 0)
        num_samples = epoch_samples(join.num_rows, self._fraction)
        # Spans that would begin at or after the join never begin: the join replaces them.
        self._spans = [kept for kept in self._spans if kept.first_sample < join.sample]
        next_epoch, next_sample = epoch, join.sample
        if taken:
            unseen = self._unseen(span, epoch, offset).extended(old_num_rows, join.num_rows)
            self._spans.append(_Span(join.sample, epoch, number, unseen, num_samples - taken, taken))
            next_epoch, next_sample = epoch + 1, join.sample + num_samples - taken
        self._spans.append(_Span(next_sample, next_epoch, number, Pool.first(join.num_rows), num_samples, 0))

    def _unseen(self, span: _Span, epoch: int, offset: int) -> Pool:
        """Rows of the span's pool that the first ``offset`` samples of the epoch did not take."""
        layout = self._layout(span, epoch)
        window = layout.window_of(offset)
        rest = self._window_ranks(span, epoch, window)[offset - int(layout.window_starts[window]) :]
        later = layout.blocks[(window + 1) * self._shape.window_blocks :]
        starts, stops = self._block_bounds(span, later)
        return span.pool.keep(np.concatenate([starts, rest]), np.concatenate([stops, rest + 1]))

    def _epoch_rows(self, span: _Span, epoch: int, offset: int, count: int) -> Int64Array:
        layout = self._layout(span, epoch)
        parts: list[Int64Array] = []
        stop = offset + count
        for window in range(layout.window_of(offset), layout.window_of(stop - 1) + 1):
            start = int(layout.window_starts[window])
            parts.append(self._window_rows(span, epoch, window)[max(offset - start, 0) : stop - start])
        return np.concatenate(parts)

    def _layout(self, span: _Span, epoch: int) -> _Layout:
        key = (epoch, span.join)
        found = self._layouts.get(key)
        if found is None:
            num_blocks = -(-len(span.pool) // self._shape.block_rows)
            blocks = _permutation(num_blocks, self._seed, epoch, span.join, "blocks")
            starts, stops = self._block_bounds(span, blocks)
            edges = np.append(np.arange(0, num_blocks, self._shape.window_blocks), num_blocks)
            ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(stops - starts)])
            found = _remember(self._layouts, key, _Layout(blocks, ends[edges]))
        return found

    def _window_rows(self, span: _Span, epoch: int, window: int) -> Int64Array:
        key = (epoch, span.join, window)
        found = self._windows.get(key)
        if found is None:
            found = _remember(self._windows, key, span.pool.rows(self._window_ranks(span, epoch, window)))
        return found

    def _window_ranks(self, span: _Span, epoch: int, window: int) -> Int64Array:
        """Ranks in the span's pool of a window's samples, in the order they are taken."""
        first = window * self._shape.window_blocks
        blocks = self._layout(span, epoch).blocks[first : first + self._shape.window_blocks]
        starts, stops = self._block_bounds(span, blocks)
        lengths = stops - starts
        ranks = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        return ranks[_permutation(len(ranks), self._seed, epoch, span.join, f"window {window}")]

    def _block_bounds(self, span: _Span, blocks: Int64Array) -> tuple[Int64Array, Int64Array]:
        starts = blocks * self._shape.block_rows
        return starts, np.minimum(starts + self._shape.block_rows, len(span.pool))


def _permutation(length: int, seed: int, epoch: int, join: int, what: str) -> Int64Array:
    digest = hashlib.sha256(f"llm-training order 1/{seed}/{epoch}/{join}/{what}".encode()).digest()
    generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    return np.argsort(generator.random_raw(length), kind="stable").astype(np.int64)


def _remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    """Keep the newest few. Order is read from the loader thread and the main thread; each call here is one atomic dict operation."""
    cache[key] = value
    for old in list(cache)[:-_ENTRIES_KEPT]:
        cache.pop(old, None)
    return value


def _check(num_rows: int, joins: Sequence[Join], fraction: float, shape: ShuffleShape) -> None:
    if num_rows < 1:
        raise ConfigError(f"the cache holds {num_rows} rows, an order needs one", remedy="add data or shorten the sequence length")
    if not 0 < fraction <= 1:
        raise ConfigError(f"epoch fraction {fraction} is outside (0, 1]", remedy="set epoch_dataset_fraction above 0 and at most 1")
    if shape.block_rows < 1 or shape.window_blocks < 1:
        raise ConfigError(f"shuffle shape {shape} has a size below 1", remedy="use at least one row a block and one block a window")
    sample, rows = 0, num_rows
    for join in joins:
        if join.sample < sample or join.num_rows < rows:
            what = f"{join} goes back behind sample {sample} or {rows} rows"
            raise ConfigError(what, remedy="record joins in order; a cache only grows")
        sample, rows = join.sample, join.num_rows
