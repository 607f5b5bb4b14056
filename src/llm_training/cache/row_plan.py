"""One row plan as an Arrow IPC file, and what the metadata of a view states about it.

Per packed row there are three lists with one entry a piece: document, start in the chunk's stream, length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from llm_training.cache.arrow_file import REPAIR, check_bytes, read_arrow, write_arrow
from llm_training.cache.packing import RowPlan
from llm_training.errors import IntegrityError

DEFAULT_STRATEGY = "best_fit"
FORMAT_VERSION = 1
_COLUMNS = ("documents", "starts", "lengths")
_BATCH_ROWS = 1 << 14


@dataclass(frozen=True)
class ViewSettings:
    """What a view is made from, beside the store's chunks."""

    dataset: str
    fingerprint: str
    tokenizer: str
    sequence_length: int
    strategy: str = DEFAULT_STRATEGY

    @property
    def directory_name(self) -> str:
        """Name of the view's directory under its sequence length."""
        return self.dataset if self.strategy == DEFAULT_STRATEGY else f"{self.dataset}.{self.strategy}"


@dataclass(frozen=True)
class PlanRecord:
    """What the metadata states about the row plan of one chunk. ``content`` is that of the store's chunk it was made from."""

    number: int
    num_bytes: int
    sha256: str
    decoded_bytes: int
    content: str
    num_rows: int
    num_tokens: int
    num_padding_tokens: int
    num_dropped_tokens: int
    num_documents: int
    num_cut_documents: int


def encode_plan(plan: RowPlan, number: int, settings: ViewSettings) -> pa.Buffer:
    """The file of a row plan."""
    return write_arrow(_schema(number, settings), _batches(plan, _schema(number, settings)), "lz4")


def decode_plan(data: bytes, record: PlanRecord, settings: ViewSettings, where: str) -> RowPlan:
    """Check and decode a row plan. Raises IntegrityError when it is not what the record and the settings say."""
    check_bytes(data, record.num_bytes, record.sha256, where)
    batches = list(read_arrow(data, _schema(record.number, settings), record.decoded_bytes, where))
    counts = [np.diff(batch.column(0).offsets.to_numpy()) for batch in batches]
    row_offsets = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *counts]))
    columns = [_flat(batches, name) for name in _COLUMNS]
    if any(len(column) != row_offsets[-1] for column in columns) or len(row_offsets) != record.num_rows + 1:
        raise IntegrityError("row counts and piece lists disagree", where=where, remedy=REPAIR)
    return RowPlan(row_offsets, *columns, sequence_length=settings.sequence_length)


def _schema(number: int, settings: ViewSettings) -> pa.Schema:
    pieces = pa.list_(pa.field("item", pa.uint32(), nullable=False))
    header = {
        "format": "llm-training row plan",
        "version": FORMAT_VERSION,
        "number": number,
        "sequence_length": settings.sequence_length,
        "strategy": settings.strategy,
        "tokenizer": settings.tokenizer,
    }
    fields = [pa.field(name, pieces, nullable=False) for name in _COLUMNS]
    return pa.schema(fields, metadata={key: str(value) for key, value in header.items()})


def _batches(plan: RowPlan, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for first in range(0, plan.num_rows, _BATCH_ROWS):
        offsets = plan.row_offsets[first : first + _BATCH_ROWS + 1]
        pieces = slice(offsets[0], offsets[-1])
        local = pa.array((offsets - offsets[0]).astype(np.int32))
        columns = [
            pa.ListArray.from_arrays(local, pa.array(column[pieces].astype(np.uint32)), type=schema.field(0).type)
            for column in (plan.documents, plan.starts, plan.lengths)
        ]
        yield pa.record_batch(columns, schema=schema)


def _flat(batches: list[pa.RecordBatch], name: str) -> Any:
    return np.concatenate([np.zeros(0, dtype=np.int64), *(batch.column(name).values.to_numpy() for batch in batches)])
