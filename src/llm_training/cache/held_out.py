"""The frozen validation set of a store, chunk by chunk: what evaluation scores, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_training.cache.encoding import token_type
from llm_training.cache.spool import DEFAULT_MEMORY_BYTES, ArraySpool
from llm_training.cache.store import VALIDATION, ChunkStore

Int64Array = NDArray[np.int64]


def held_out_documents(
    store: ChunkStore, slices: Sequence[int] | None = None, *, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> tuple[ArraySpool, Int64Array]:
    """All held-out tokens, to be read by slice, and ``[D + 1]`` document offsets into them, without separators.

    One chunk is decoded at a time; tokens beyond ``memory_bytes`` wait in a scratch file.

    Args:
        slices: those whose held-out documents are wanted; None: of all slices of the first plan.
        memory_bytes: of tokens held in memory.

    Raises:
        IntegrityError: a chunk is missing or damaged.
        StorageError: it cannot be read, or there is no room for the scratch file.
    """
    tokens = ArraySpool(token_type(store.settings.vocab_size), memory_bytes=memory_bytes)
    lengths = [np.zeros(1, dtype=np.int64)]
    for number in range(store.validation_slices) if slices is None else slices:
        chunk = store.read(VALIDATION, number)
        is_text = chunk.tokens != store.settings.separator_id
        tokens.append(chunk.tokens[is_text])
        ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(is_text)])[chunk.document_offsets]
        lengths.append(np.diff(ends))
    return tokens, np.cumsum(np.concatenate(lengths))
