"""Packing: which document pieces make each row of ``T`` tokens. Pure arithmetic on document lengths, no tokens, no files.

A chunk is one stream of ``N`` tokens; document ``d`` is ``stream[offsets[d] : offsets[d + 1]]``, its separator included.
A piece is a contiguous part of one document, a row is a list of pieces, and a plan is all rows of a chunk. Every
strategy keeps one invariant that readers rely on: a piece that stops before the end of its document is the last of
its row. So inside a row each document ends with its separator, and only the last position of a row can need a label
that the row itself does not hold.

Legend: ``T`` tokens in a row, ``R`` rows, ``P`` pieces, ``D`` documents, ``N`` tokens of the chunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_training.errors import ConfigError

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class RowPlan:
    """The rows of one chunk.

    Attributes:
        row_offsets: ``[R + 1]``; row ``r`` is made of pieces ``row_offsets[r] : row_offsets[r + 1]``.
        documents: ``[P]`` number of the document in its chunk.
        starts: ``[P]`` position of the piece's first token in the chunk's stream.
        lengths: ``[P]`` tokens in the piece, at least 1.
        sequence_length: ``T``.
    """

    row_offsets: Int64Array
    documents: Int64Array
    starts: Int64Array
    lengths: Int64Array
    sequence_length: int

    @property
    def num_rows(self) -> int:
        """``R``."""
        return len(self.row_offsets) - 1


@dataclass(frozen=True)
class PackingStats:
    """What a plan wastes. ``num_cut_documents`` counts documents that no single row holds whole."""

    num_rows: int
    num_tokens: int
    num_padding_tokens: int
    num_dropped_tokens: int
    num_documents: int
    num_cut_documents: int

    @property
    def padding_fraction(self) -> float:
        """Share of row positions that hold padding."""
        total = self.num_tokens + self.num_padding_tokens
        return self.num_padding_tokens / total if total else 0.0

    @property
    def cut_fraction(self) -> float:
        """Share of documents that are cut."""
        return self.num_cut_documents / self.num_documents if self.num_documents else 0.0


def pack(document_offsets: NDArray[np.integer], sequence_length: int, strategy: str) -> RowPlan:
    """Plan the rows of a chunk.

    Args:
        document_offsets: ``[D + 1]`` non-decreasing; document ``d`` is ``offsets[d] : offsets[d + 1]`` of the stream.
        sequence_length: ``T``, at least 1.
        strategy: a key of `STRATEGIES`.

    Raises:
        ConfigError: unknown strategy, or a sequence length below 1.
    """
    if sequence_length < 1:
        raise ConfigError(f"sequence length {sequence_length} is below 1", remedy="give a sequence length of at least 1")
    return strategy_named(strategy)(np.asarray(document_offsets, dtype=np.int64), sequence_length)


def strategy_named(strategy: str) -> Callable[[Int64Array, int], RowPlan]:
    """The packing function of that name.

    Raises:
        ConfigError: unknown name; the message lists the known ones.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"unknown packing strategy {strategy!r}", remedy=f"choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy]


def measure(plan: RowPlan, document_offsets: NDArray[np.integer]) -> PackingStats:
    """Count padding, cut documents and (strategy ``none`` only) dropped tokens of a plan."""
    num_tokens = int(plan.lengths.sum())
    whole = np.diff(document_offsets)
    cut = np.unique(plan.documents[plan.lengths < whole[plan.documents]])
    return PackingStats(
        num_rows=plan.num_rows,
        num_tokens=num_tokens,
        num_padding_tokens=plan.num_rows * plan.sequence_length - num_tokens,
        num_dropped_tokens=int(whole.sum()) - num_tokens,
        num_documents=int(np.count_nonzero(whole)),
        num_cut_documents=len(cut),
    )


def _greedy(offsets: Int64Array, sequence_length: int) -> RowPlan:
    """Concatenate and cut. The last row of a chunk is padded rather than dropped, so that no token is lost."""
    num_tokens = int(offsets[-1])
    bounds = np.unique(np.concatenate([offsets, np.arange(0, num_tokens, sequence_length)]))
    starts, lengths = bounds[:-1], np.diff(bounds)
    documents = np.searchsorted(offsets, starts, side="right") - 1
    return _assemble(starts // sequence_length, documents, starts, lengths, sequence_length)


def _first_fit(offsets: Int64Array, sequence_length: int) -> RowPlan:
    """Each item, in document order, goes to the first row with room for it."""
    return _pack_items(offsets, sequence_length, _place_first_fit, order_by_length=False)


def _best_fit(offsets: Int64Array, sequence_length: int) -> RowPlan:
    """Longest item first, each to the row it leaves the least room in (Ding et al. 2024, "Fewer Truncations")."""
    return _pack_items(offsets, sequence_length, _place_best_fit, order_by_length=True)


def _none(offsets: Int64Array, sequence_length: int) -> RowPlan:
    """One document a row, padded or truncated."""
    documents = np.flatnonzero(np.diff(offsets))
    starts = offsets[documents]
    lengths = np.minimum(offsets[documents + 1] - starts, sequence_length)
    return _assemble(np.arange(len(documents)), documents, starts, lengths, sequence_length)


STRATEGIES: dict[str, Callable[[Int64Array, int], RowPlan]] = {
    "best_fit": _best_fit,
    "first_fit": _first_fit,
    "greedy": _greedy,
    "none": _none,
}
# Of the strategies above, those whose rows continue as one stream: the label after a row's last token is the token
# that follows in the chunk even where a document ends there.
STREAM_STRATEGIES = frozenset({"greedy"})

Placer = Callable[[list[int], int], list[int]]


def _pack_items(offsets: Int64Array, sequence_length: int, place: Placer, *, order_by_length: bool) -> RowPlan:
    """Cut the documents that fit no row into full rows and a rest, then let ``place`` choose rows for rests and short ones."""
    lengths = np.diff(offsets)
    full = lengths // sequence_length
    full_documents = np.repeat(np.arange(len(lengths)), full)
    within = np.arange(len(full_documents)) - np.repeat(np.cumsum(full) - full, full)
    full_starts = offsets[full_documents] + within * sequence_length

    items = np.flatnonzero(lengths % sequence_length)
    item_lengths = lengths[items] % sequence_length
    if order_by_length:
        order = np.argsort(-item_lengths, kind="stable")
        items, item_lengths = items[order], item_lengths[order]
    rows = np.asarray(place(item_lengths.tolist(), sequence_length), dtype=np.int64)
    return _assemble(
        np.concatenate([np.arange(len(full_documents)), rows + len(full_documents)]),
        np.concatenate([full_documents, items]),
        np.concatenate([full_starts, offsets[items + 1] - item_lengths]),
        np.concatenate([np.full(len(full_documents), sequence_length), item_lengths]),
        sequence_length,
    )


def _assemble(rows: Int64Array, documents: Int64Array, starts: Int64Array, lengths: Int64Array, sequence_length: int) -> RowPlan:
    """Number the rows by their first token and put the pieces of each row in stream order.

    Stream order inside a row spreads long and short documents over all positions, and puts the one document of a chunk
    that may lack its separator (it goes on in the next chunk) last in its row.
    """
    num_rows = int(rows.max()) + 1 if len(rows) else 0
    first = np.full(num_rows, np.iinfo(np.int64).max)
    np.minimum.at(first, rows, starts)
    rank = np.empty(num_rows, dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(num_rows)
    order = np.lexsort((starts, rank[rows]))
    row_offsets = np.zeros(num_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=num_rows)[np.argsort(first, kind="stable")], out=row_offsets[1:])
    return RowPlan(row_offsets, documents[order], starts[order], lengths[order], sequence_length)


def _place_best_fit(lengths: list[int], sequence_length: int) -> list[int]:
    """Row of each item. Bit ``s`` of ``rooms`` says that some row has ``s`` tokens of room.

    An integer of ``T`` bits answers "the smallest room of at least this length" in one shift and one isolated low bit,
    about 0.5 microseconds at T = 2048, where a heap or a tree costs a dozen Python steps.
    """
    rooms = 0
    rows_with_room: defaultdict[int, list[int]] = defaultdict(list)
    placed: list[int] = []
    num_rows = 0
    for length in lengths:
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            rows = rows_with_room[room]
            row = rows.pop()
            if not rows:
                rooms ^= 1 << room
        else:
            room, row = sequence_length, num_rows
            num_rows += 1
        placed.append(row)
        left = room - length
        if left:
            rows_with_room[left].append(row)
            rooms |= 1 << left
    return placed


def _place_first_fit(lengths: list[int], sequence_length: int) -> list[int]:
    """Row of each item, by a tournament tree: ``room[1]`` is the largest room, leaves are rows in order."""
    leaves = 1 << max(len(lengths) - 1, 1).bit_length()
    room = [sequence_length] * (2 * leaves)
    placed: list[int] = []
    for length in lengths:
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < length:
                node += 1
        placed.append(node - leaves)
        left = room[node] - length
        room[node] = left
        # Stop climbing as soon as the sibling already holds the maximum: most updates end after a step or two.
        while node > 1:
            node //= 2
            largest = max(room[2 * node], room[2 * node + 1])
            if room[node] == largest:
                break
            room[node] = largest
    return placed
