"""Reading: rows of a view as arrays, from decoded chunks of which as many are kept as a byte limit allows.

A chunk is decoded whole, hashed each time it is read from disk, laid out as rows once, and then rows are picked out of it by
index. The order of a run is local (see `order`), so the chunks of a shuffle window stay in memory while they are used.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_training.cache.arrow_file import REPAIR
from llm_training.cache.batch import IGNORED_LABEL, Batch, PackedRows, empty_batch, segments_of
from llm_training.cache.chunk import ChunkTokens
from llm_training.cache.packing import STREAM_STRATEGIES, RowPlan
from llm_training.cache.pins import Pin, check_pin
from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.cache.view import PackedView
from llm_training.errors import IntegrityError

DEFAULT_MEMORY_BYTES = 1 << 29

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """A document's part in a row: tokens ``start .. start + num_tokens - 1`` of the document, separator included."""

    id: str
    source: str
    position: int
    start: int
    num_tokens: int


@dataclass(frozen=True)
class RowDescription:
    """What a row is made of."""

    row: int
    chunk: int
    pieces: tuple[Piece, ...]


class PackedDataset:
    """The training rows of a run. Safe to use from several threads.

    Args:
        store, view: of the same dataset.
        pin: the chunks to read; rows are numbered along it.
        memory_bytes: decoded chunks kept at most (one is kept however large).
        with_segments: fill in `Batch.segment_ids`.

    Raises:
        IntegrityError: store, view and pin do not belong together, or a file of the pin is missing or of another size.
    """

    def __init__(
        self, store: ChunkStore, view: PackedView, pin: Pin, *, memory_bytes: int = DEFAULT_MEMORY_BYTES, with_segments: bool = False
    ) -> None:
        _check_open(store, view, pin)
        self.store = store
        self.view = view
        self.pin = pin
        self._memory_bytes = memory_bytes
        self._with_segments = with_segments
        self._numbers = pin.numbers
        self._row_ends = np.cumsum([view.records[number].num_rows for number in self._numbers])
        self._chunks: OrderedDict[int, PackedRows] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._row_ends[-1])

    @property
    def sequence_length(self) -> int:
        """``T``."""
        return self.view.settings.sequence_length

    def rows(self, indices: Int64Array) -> Batch:
        """Rows by number, in the order given.

        Raises:
            IndexError: a number outside ``0 .. len(self) - 1``.
            IntegrityError: a chunk is damaged; the message names its file.
            StorageError: a chunk cannot be read.
        """
        batch = empty_batch(len(indices), self.sequence_length)
        slots, local = self._locate(indices)
        for slot in np.unique(slots):
            places = np.flatnonzero(slots == slot)
            self._packed(self._numbers[slot]).copy_rows(local[places], places, batch)
        if not self._with_segments:
            return batch
        return Batch(batch.input_ids, batch.labels, segments_of(batch.input_ids, self.store.settings.separator_id))

    def describe(self, indices: Int64Array) -> list[RowDescription]:
        """The documents that make each row. Reads the chunks' provenance anew: for people, not for loops."""
        slots, local = self._locate(indices)
        described: dict[int, RowDescription] = {}
        for slot in np.unique(slots):
            number = self._numbers[slot]
            plan, offsets = self.view.read_plan(number), self.store.read(TRAIN, number).document_offsets
            names = self.store.provenance(TRAIN, number)
            for place in np.flatnonzero(slots == slot):
                part = slice(plan.row_offsets[local[place]], plan.row_offsets[local[place] + 1])
                pieces = tuple(
                    Piece(names[document].id, names[document].source, names[document].position, int(start - offsets[document]), int(length))
                    for document, start, length in zip(plan.documents[part], plan.starts[part], plan.lengths[part], strict=True)
                )
                described[int(place)] = RowDescription(int(indices[place]), number, pieces)
        return [described[place] for place in range(len(indices))]

    def _locate(self, indices: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Place in the pin, and row in the chunk, of each row number."""
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"row numbers go from 0 to {len(self) - 1}, {indices.min()} .. {indices.max()} were asked for")
        slots = np.searchsorted(self._row_ends, indices, side="right")
        starts = np.concatenate([np.zeros(1, dtype=np.int64), self._row_ends[:-1]])
        return slots, indices - starts[slots]

    def _packed(self, number: int) -> PackedRows:
        with self._lock:
            if number in self._chunks:
                self._chunks.move_to_end(number)
                return self._chunks[number]
        plan = self.view.read_plan(number)
        chunk = self.store.read(TRAIN, number)
        packed = lay_out(plan, chunk, self.store.settings.separator_id, self.view.settings.strategy, str(self.view.path(number)))
        with self._lock:
            self._chunks[number] = packed
            while len(self._chunks) > 1 and sum(held.num_bytes for held in self._chunks.values()) > self._memory_bytes:
                self._chunks.popitem(last=False)
        return packed


def lay_out(plan: RowPlan, chunk: ChunkTokens, separator_id: int, strategy: str, where: str = "") -> PackedRows:
    """All rows of a chunk from its tokens and row plan. Raises IntegrityError when the plan does not fit the chunk."""
    num_rows, length = plan.num_rows, plan.sequence_length
    ends = plan.starts + plan.lengths
    piece_ends = np.cumsum(plan.lengths)
    num_tokens = np.diff(np.concatenate([np.zeros(1, dtype=np.int64), piece_ends])[plan.row_offsets])
    fits = num_rows == 0 or (plan.starts.min() >= 0 and ends.max() <= len(chunk.tokens) and plan.lengths.min() > 0)
    if not fits or np.any(num_tokens > length) or np.any(num_tokens < 1):
        raise IntegrityError("the row plan does not fit its chunk", where=where, remedy=REPAIR)
    source = np.repeat(plan.starts - (piece_ends - plan.lengths), plan.lengths) + np.arange(int(plan.lengths.sum()))
    tokens = np.full((num_rows, length), separator_id, dtype=chunk.tokens.dtype)
    tokens[np.arange(length) < num_tokens[:, None]] = chunk.tokens[source]
    return PackedRows(tokens, num_tokens.astype(np.int32), _last_labels(ends[plan.row_offsets[1:] - 1], chunk, separator_id, strategy))


def _last_labels(ends: Int64Array, chunk: ChunkTokens, separator_id: int, strategy: str) -> Int64Array:
    """Label of the last token of each row; ``ends`` is where the row's last piece ends in the chunk."""
    labels = np.full(len(ends), IGNORED_LABEL, dtype=np.int64)
    has_next = ends < len(chunk.tokens)
    if strategy not in STREAM_STRATEGIES:
        has_next &= chunk.tokens[ends - 1] != separator_id
    labels[has_next] = chunk.tokens[ends[has_next]]
    return labels


def _check_open(store: ChunkStore, view: PackedView, pin: Pin) -> None:
    """Identity, recorded contents, and presence and size of every file: what can be checked without reading content."""
    where = str(view.directory)
    settings = view.settings
    if (settings.fingerprint, settings.tokenizer) != (store.settings.fingerprint, store.settings.tokenizer):
        raise IntegrityError("the view is of another dataset or tokenizer", where=where, remedy="build it with llm-build-cache")
    check_pin(view, pin)
    for number in pin.numbers:
        chunk, record = store.records[TRAIN].get(number), view.records[number]
        if chunk is None or chunk.content != record.content:
            raise IntegrityError(f"the rows of chunk {number} are not of its tokens", where=where, remedy=REPAIR)
        _check_size(store.path(TRAIN, number), chunk.num_bytes)
        _check_size(view.path(number), record.num_bytes)


def _check_size(path: Path, num_bytes: int) -> None:
    try:
        found = path.lstat().st_size
    except OSError as error:
        raise IntegrityError(f"cannot be opened ({error.strerror})", where=str(path), remedy=REPAIR) from error
    if found != num_bytes:
        raise IntegrityError(f"file has {found} bytes, its metadata says {num_bytes}", where=str(path), remedy=REPAIR)
