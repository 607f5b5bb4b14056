"""Which tokens are scored in which context: pure arithmetic over document lengths.

A document of n tokens is the stream ``separator, t0 .. t(n-1)``: its first token is predicted from the separator, and
the separator after it is not scored. A window reads up to L inputs; the first window of a document scores all of
them, each later one starts S further on and scores only its last S, so every token is scored exactly once, and with
S < L in a context of at least L - S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORED = -100


class TokenSlices(Protocol):
    """Tokens that are read by slice: an array, or something that reads them from elsewhere."""

    def __getitem__(self, part: slice, /) -> np.ndarray:
        """The tokens of a slice without a step."""
        ...


@dataclass(frozen=True)
class Documents:
    """Held-out documents as one sequence: document d is ``tokens[offsets[d]:offsets[d + 1]]``, without separators.

    Where they are of several sources, ``sources[d]`` is the index of document d's in ``source_names``.
    """

    tokens: TokenSlices
    offsets: np.ndarray
    sources: np.ndarray | None = None
    source_names: tuple[str, ...] = ()

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64 [documents]."""
        return np.diff(self.offsets)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents together."""
        return int(self.offsets[-1] - self.offsets[0])


@dataclass(frozen=True)
class Windows:
    """Parallel arrays, one entry a window: its document, the first input position in the document's stream, inputs, scored."""

    document: np.ndarray
    start: np.ndarray
    num_inputs: np.ndarray
    num_scored: np.ndarray

    def __len__(self) -> int:
        return len(self.document)

    def take(self, chosen: np.ndarray) -> Windows:
        """The windows at these indices, in this order."""
        return Windows(self.document[chosen], self.start[chosen], self.num_inputs[chosen], self.num_scored[chosen])


def plan_windows(lengths: np.ndarray, *, window: int, stride: int) -> Windows:
    """All windows over documents of the given lengths (tokens), in order.

    Args:
        window: inputs at most, L.
        stride: step between windows, S, with 1 <= S <= L.
    """
    assert 1 <= stride <= window
    lengths = np.asarray(lengths, dtype=np.int64)
    extra = np.maximum(0, -(-(lengths - window) // stride))  # windows after the first
    counts = np.where(lengths > 0, 1 + extra, 0)
    document = np.repeat(np.arange(len(lengths)), counts)
    rank = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = rank * stride
    num_inputs = np.minimum(window, lengths[document] - start)
    num_scored = np.where(rank == 0, num_inputs, num_inputs - (window - stride))
    return Windows(document, start, num_inputs, num_scored)


def spread(windows: Windows, max_tokens: int | None) -> Windows:
    """Evenly spaced windows that score at least ``max_tokens`` together; all of them when there are no more than that."""
    total = int(windows.num_scored.sum())
    if max_tokens is None or total <= max_tokens or not len(windows):
        return windows
    wanted = max(1, -(-len(windows) * max_tokens // total))
    while True:
        chosen = windows.take(np.unique(np.linspace(0, len(windows) - 1, wanted).astype(np.int64)))
        if int(chosen.num_scored.sum()) >= max_tokens or wanted >= len(windows):
            return chosen
        wanted = min(len(windows), wanted + max(1, wanted // 50))


def spread_by_source(windows: Windows, sources: np.ndarray, max_tokens: int | None) -> Windows:
    """As `spread` within each source, so that each is scored in proportion to its text, by one window at least.

    Args:
        sources: number of the source of each document.
    """
    total = int(windows.num_scored.sum())
    chosen: list[Windows] = []
    for source in np.unique(sources[windows.document]):
        own = windows.take(np.flatnonzero(sources[windows.document] == source))
        share = None if max_tokens is None else -(-max_tokens * int(own.num_scored.sum()) // max(1, total))
        chosen.append(spread(own, share))
    names = ("document", "start", "num_inputs", "num_scored")
    return Windows(*(np.concatenate([getattr(part, name) for part in chosen]) for name in names)) if chosen else windows


def window_order(windows: Windows) -> np.ndarray:
    """The order in which `batches` takes windows: longest first, so that those of like length share a batch."""
    return np.argsort(-windows.num_inputs, kind="stable")


def batches(documents: Documents, windows: Windows, *, separator_id: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and labels, each [B, T] int64; windows of like length share a batch; unscored and padded labels are -100."""
    order = window_order(windows)
    for first in range(0, len(order), batch_size):
        chosen = windows.take(order[first : first + batch_size])
        longest = int(chosen.num_inputs.max())
        inputs = np.full((len(chosen), longest), separator_id, dtype=np.int64)
        labels = np.full((len(chosen), longest), IGNORED, dtype=np.int64)
        for row in range(len(chosen)):
            begin = int(documents.offsets[chosen.document[row]])
            start, count, scored = int(chosen.start[row]), int(chosen.num_inputs[row]), int(chosen.num_scored[row])
            before = 1 if start else 0
            stream = documents.tokens[begin + start - before : begin + start + count]
            labels[row, count - scored : count] = stream[before + count - scored :]
            inputs[row, 1 - before : count] = stream[:-1]
        yield inputs, labels
