"""Rows as arrays: inputs, labels and documents of a batch.

Legend: ``B`` rows, ``T`` tokens in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED_LABEL = -100

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows ready for a model.

    Attributes:
        input_ids: ``[B, T]`` int64; padding is the separator.
        labels: ``[B, T]`` int64, the next token; -100 is not counted.
        segment_ids: ``[B, T]`` int64, the documents of a row numbered from 0 (see `segments_of`); None when not asked for.
    """

    input_ids: Int64Array
    labels: Int64Array
    segment_ids: Int64Array | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_counted(self) -> int:
        """Labels that count towards the loss."""
        return int(np.count_nonzero(self.labels != IGNORED_LABEL))

    def part(self, first: int, last: int) -> Batch:
        """A view of rows ``first .. last - 1``; nothing is copied."""
        rows = slice(first, last)
        return Batch(self.input_ids[rows], self.labels[rows], None if self.segment_ids is None else self.segment_ids[rows])

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """Views of at most ``size`` rows each, in order."""
        for first in range(0, len(self), size):
            yield self.part(first, first + size)


@dataclass(frozen=True, eq=False)
class PackedRows:
    """All rows of one chunk, laid out. Small types, since this is what stays in memory.

    Attributes:
        tokens: ``[R, T]`` of the token type, padded with the separator.
        num_tokens: ``[R]`` tokens of a row, padding not counted.
        last_labels: ``[R]`` label of a row's last token: the document's true next token where the row stops inside a
            document (or, for strategies that stream, wherever the chunk goes on), otherwise -100.
    """

    tokens: NDArray[np.unsignedinteger]
    num_tokens: NDArray[np.int32]
    last_labels: Int64Array

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return self.tokens.nbytes + self.num_tokens.nbytes + self.last_labels.nbytes

    def part(self, first: int, last: int) -> PackedRows:
        """A copy of rows ``first .. last - 1``, so that the others can go."""
        return PackedRows(self.tokens[first:last].copy(), self.num_tokens[first:last].copy(), self.last_labels[first:last].copy())

    def copy_rows(self, rows: Int64Array, places: Int64Array, target: PackedRows) -> None:
        """Write rows ``rows`` to the places ``places`` of ``target``."""
        target.tokens[places] = self.tokens[rows]
        target.num_tokens[places] = self.num_tokens[rows]
        target.last_labels[places] = self.last_labels[rows]

    def to_batch(self) -> Batch:
        """Inputs and labels of all rows, in the wide type of a model."""
        inputs = self.tokens.astype(np.int64)
        labels = np.empty_like(inputs)
        labels[:, :-1] = inputs[:, 1:]
        # Most rows are full; only the others have padding to blank out.
        short = np.flatnonzero(self.num_tokens < inputs.shape[1])
        if len(short):
            is_text = np.arange(inputs.shape[1]) < self.num_tokens[short, None] - 1
            labels[short] = np.where(is_text, labels[short], IGNORED_LABEL)
        labels[np.arange(len(inputs)), self.num_tokens - 1] = self.last_labels
        return Batch(inputs, labels)


def empty_rows(num_rows: int, sequence_length: int, kind: np.dtype[np.unsignedinteger]) -> PackedRows:
    """Rows to be filled."""
    tokens = np.empty((num_rows, sequence_length), dtype=kind)
    return PackedRows(tokens, np.empty(num_rows, dtype=np.int32), np.empty(num_rows, dtype=np.int64))


def segments_of(input_ids: Int64Array, separator_id: int) -> Int64Array:
    """``[B, T]`` number of the document of each position in its row, for attention that stays inside a document.

    A separator counts as the first token of the document that follows it: that document's first token is then predicted from a
    separator alone, at position 1, as it is in evaluation and generation. The separator after a document is still its last label.
    Padding, a run of separators, belongs to the separator before it; nothing there counts.
    """
    is_separator = input_ids == separator_id
    opens = np.zeros(input_ids.shape, dtype=np.int64)
    opens[:, 1:] = is_separator[:, 1:] & ~is_separator[:, :-1]
    return np.cumsum(opens, axis=1)
