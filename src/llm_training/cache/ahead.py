"""Decoding ahead: threads that prepare the chunks of the present shuffle window and, from its middle on, of the next.

All blocks of a window are needed within its first steps. Without this, training would wait at each window for dozens
of chunks to be read (from a remote cache: downloaded), hashed and decoded. What is prepared is what the order says will
be used, so nothing is guessed. When memory has no room for two windows, only the present one is prepared.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

import numpy as np

from llm_training.cache.order import RowOrder
from llm_training.cache.reader import PackedDataset, Part
from llm_training.errors import LlmTrainingError


class ReadAhead:
    """Keeps a dataset ahead of the sample that is being read.

    Args:
        dataset, order: what is read and in which order.
        threads: that decode, at least 1.
    """

    def __init__(self, dataset: PackedDataset, order: RowOrder, threads: int) -> None:
        self._dataset = dataset
        self._order = order
        self._window = (0, 0)
        self._present: list[Part] = []
        self._has_next = False
        self._waiting: deque[Part] = deque()
        self._is_stopping = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name="data-ahead", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def at(self, sample: int) -> None:
        """Say that samples from here on are read next."""
        first, last = self._window
        if not first <= sample < last:
            first, last = self._window = self._order.window(sample)
            self._present, self._has_next = self._parts(first, last), False
            self._expect(self._present)
        if not self._has_next and 2 * (sample - first) >= last - first:
            self._has_next = True
            following = self._parts(*self._order.window(last))
            both = [*self._present, *following]
            if len(set(both)) * self._dataset.part_bytes() <= self._dataset.memory_bytes:
                self._expect(both)

    def stop(self) -> None:
        """End the threads, after the chunks in their hands."""
        with self._changed:
            self._is_stopping = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._dataset.expect(None)

    def _parts(self, first: int, last: int) -> list[Part]:
        return self._dataset.parts_of(np.asarray(self._order.rows(first, last)))

    def _expect(self, parts: list[Part]) -> None:
        self._dataset.expect(parts)
        room = self._dataset.memory_bytes // self._dataset.part_bytes()
        with self._changed:
            # No more than fits: what is prepared beyond that would push out what is about to be used.
            self._waiting = deque(parts[:room])
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_stopping)
                if self._is_stopping:
                    return
                part = self._waiting.popleft()
            # Whoever needs the part meets the same error, with somebody to tell.
            with suppress(LlmTrainingError):
                self._dataset.prepare(part)
