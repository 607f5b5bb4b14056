"""Reading: rows of a view as arrays, from decoded parts of chunks of which as many are kept as a byte limit allows.

A chunk is decoded whole, hashed each time it is read from disk, laid out as rows once and cut into parts of about 2^18
tokens. The order of a run is local (see `order`), so the parts of a shuffle window stay in memory while they are used; a
reader ahead (see `ahead`) says which parts will be used, and only those are kept. So a cache of any size is read in
bounded memory, and each chunk is decoded about once a window that touches it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_training.cache.arrow_file import REPAIR
from llm_training.cache.batch import IGNORED_LABEL, Batch, PackedRows, empty_rows, segments_of
from llm_training.cache.chunk import ChunkTokens
from llm_training.cache.encoding import token_type
from llm_training.cache.files import CacheFiles
from llm_training.cache.packing import STREAM_STRATEGIES, RowPlan
from llm_training.cache.pins import Pin, check_pin
from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.cache.view import PackedView
from llm_training.errors import IntegrityError

DEFAULT_MEMORY_BYTES = 1 << 29
PART_TOKENS = 1 << 18
# The places of so many tokens are in memory at once, eight bytes each, while a chunk is laid out.
_LAID_OUT_AT_ONCE = 1 << 17

# Number of a chunk, and of a part of its rows.
Part = tuple[int, int]

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
        memory_bytes: decoded rows kept at most (what a call asks for is kept however large).
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
        self._row_starts = np.concatenate([np.zeros(1, dtype=np.int64), self._row_ends[:-1]])
        self._part_rows = max(1, PART_TOKENS // view.settings.sequence_length)
        self._parts: OrderedDict[Part, PackedRows] = OrderedDict()
        self._held_bytes = 0
        self._expected: frozenset[Part] | None = None
        self._decoding: set[int] = set()
        self._changed = threading.Condition()

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
        gathered = empty_rows(len(indices), self.sequence_length, token_type(self.store.settings.vocab_size))
        slots, local = self._locate(indices)
        parts = local // self._part_rows
        keys = slots * (int(parts.max(initial=0)) + 1) + parts
        by_part = np.argsort(keys, kind="stable")
        for places in np.split(by_part, np.flatnonzero(np.diff(keys[by_part])) + 1) if len(keys) else ():
            slot, part = int(slots[places[0]]), int(parts[places[0]])
            self._part(self._numbers[slot], part).copy_rows(local[places] - part * self._part_rows, places, gathered)
        batch = gathered.to_batch()
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
        return slots, indices - self._row_starts[slots]

    @property
    def held_bytes(self) -> int:
        """Decoded rows in memory now."""
        return self._held_bytes

    @property
    def memory_bytes(self) -> int:
        """Decoded rows kept at most."""
        return self._memory_bytes

    def parts_of(self, indices: Int64Array) -> list[Part]:
        """The parts that hold these rows, each once, in order of first use."""
        slots, local = self._locate(indices)
        parts = local // self._part_rows
        count = int(parts.max(initial=0)) + 1
        keys, first = np.unique(slots * count + parts, return_index=True)
        return [(self._numbers[int(key) // count], int(key) % count) for key in keys[np.argsort(first)]]

    def part_bytes(self) -> int:
        """Memory of one whole part."""
        width = token_type(self.store.settings.vocab_size).itemsize * self.sequence_length + 12
        return self._part_rows * width

    def expect(self, parts: Iterable[Part] | None) -> None:
        """Keep these parts of what is decoded from now on, and no others; None keeps all."""
        self._expected = None if parts is None else frozenset(parts)

    def prepare(self, part: Part) -> None:
        """Decode a part (and with it all expected parts of its chunk) unless it is there. Raises as `rows`."""
        self._part(*part)

    def _part(self, number: int, part: int) -> PackedRows:
        with self._changed:
            while True:
                held = self._parts.get((number, part))
                if held is not None:
                    self._parts.move_to_end((number, part))
                    return held
                if number not in self._decoding:
                    break
                # Another thread decodes this chunk. It may not keep the part, so look again afterwards.
                self._changed.wait()
            self._decoding.add(number)
        try:
            packed = self._decode(number)
            with self._changed:
                return self._keep(number, packed, part)
        finally:
            with self._changed:
                self._decoding.discard(number)
                self._changed.notify_all()

    def _decode(self, number: int) -> PackedRows:
        plan = self.view.read_plan(number)
        chunk = self.store.read(TRAIN, number)
        return lay_out(plan, chunk, self.store.settings.separator_id, self.view.settings.strategy, str(self.view.path(number)))

    def _keep(self, number: int, packed: PackedRows, wanted: int) -> PackedRows:
        """Cut the rows of a chunk into parts, keep the expected ones, and drop those longest unused beyond the limit."""
        size, count = self._part_rows, -(-len(packed.num_tokens) // self._part_rows)
        expected = self._expected
        kept = [part for part in range(count) if part != wanted and (expected is None or (number, part) in expected)]
        for part in (*kept, wanted):
            rows = packed.part(part * size, (part + 1) * size)
            self._held_bytes += rows.num_bytes - self._drop((number, part))
            self._parts[number, part] = rows
            while self._held_bytes > self._memory_bytes and len(self._parts) > 1:
                self._held_bytes -= self._drop(next(iter(self._parts)))
        return self._parts[number, wanted]

    def _drop(self, key: Part) -> int:
        rows = self._parts.pop(key, None)
        return 0 if rows is None else rows.num_bytes


def lay_out(plan: RowPlan, chunk: ChunkTokens, separator_id: int, strategy: str, where: str = "") -> PackedRows:
    """All rows of a chunk from its tokens and row plan. Raises IntegrityError when the plan does not fit the chunk."""
    num_rows, length = plan.num_rows, plan.sequence_length
    ends = plan.starts + plan.lengths
    piece_ends = np.cumsum(plan.lengths)
    num_tokens = np.diff(np.concatenate([np.zeros(1, dtype=np.int64), piece_ends])[plan.row_offsets])
    fits = num_rows == 0 or (plan.starts.min() >= 0 and ends.max() <= len(chunk.tokens) and plan.lengths.min() > 0)
    if not fits or np.any(num_tokens > length) or np.any(num_tokens < 1):
        raise IntegrityError("the row plan does not fit its chunk", where=where, remedy=REPAIR)
    tokens = np.full((num_rows, length), separator_id, dtype=chunk.tokens.dtype)
    rows = max(1, _LAID_OUT_AT_ONCE // length)
    for first in range(0, num_rows, rows):
        block, counts = tokens[first : first + rows], num_tokens[first : first + rows]
        block[np.arange(length) < counts[:, None]] = chunk.tokens[_sources(plan, first, first + len(block))]
    return PackedRows(tokens, num_tokens.astype(np.int32), _last_labels(ends[plan.row_offsets[1:] - 1], chunk, separator_id, strategy))


def _sources(plan: RowPlan, first: int, last: int) -> Int64Array:
    """Where in the chunk the tokens of these rows stand, in the order of the rows."""
    pieces = slice(plan.row_offsets[first], plan.row_offsets[last])
    lengths = plan.lengths[pieces]
    found = np.repeat(plan.starts[pieces] - (np.cumsum(lengths) - lengths), lengths)
    found += np.arange(len(found))
    return found


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
        _check_size(store.files, store.path(TRAIN, number), chunk.num_bytes)
        _check_size(view.files, view.path(number), record.num_bytes)


def _check_size(files: CacheFiles, path: Path, num_bytes: int) -> None:
    found = files.size(path)
    if found is None:
        raise IntegrityError("cannot be opened (no such file)", where=str(path), remedy=REPAIR)
    if found != num_bytes:
        raise IntegrityError(f"file has {found} bytes, its metadata says {num_bytes}", where=str(path), remedy=REPAIR)
