"""Fetching ahead: a thread prepares the next steps' rows while the present step computes, others decode the next window.

Addressed by step, not iterated: asking for any step is allowed, and steps asked for in order are found ready. Sample ``i``
of the run is ``step x global_batch + j``; a rank takes a contiguous share of ``j``. Threads suffice, since decoding and
copying release the interpreter; they hold nothing that must be cleaned up.

Small steps are read some at a time: the rows of one shuffled step lie in as many places as it has rows, those of several
steps share them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llm_training.cache.ahead import ReadAhead
from llm_training.cache.batch import Batch
from llm_training.cache.order import RowOrder
from llm_training.cache.reader import PackedDataset
from llm_training.errors import StorageError

PREFETCH_STEPS = 2
READ_THREADS = 1
TIMEOUT_SECONDS = 300.0
# So many tokens of this rank are read at a time, or one step if that has more.
_TOKENS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class RankShare:
    """The part of a global batch that one rank takes: samples ``first .. last - 1`` of it."""

    first: int
    last: int

    @staticmethod
    def of(rank: int, world_size: int, global_batch: int) -> RankShare:
        """Shares of all ranks together are the whole batch, in rank order; they differ by at most one sample."""
        return RankShare(rank * global_batch // world_size, (rank + 1) * global_batch // world_size)


class BatchLoader:
    """Rows of this rank, by step.

    Args:
        dataset, order: what to read and in which order; `replace` changes both at a join.
        global_batch: samples in a step over all ranks.
        rank, world_size: which share of them to fetch.
        prefetch_steps: steps prepared ahead; 0 reads in the calling thread.
        read_threads: threads that decode the chunks of the next shuffle window ahead; 0 decodes each when it is needed.
        timeout_seconds: how long `fetch` waits for one step before it gives up.

    `wait_seconds` is the time that callers of `fetch` have spent waiting, in all.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        order: RowOrder,
        *,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        prefetch_steps: int = PREFETCH_STEPS,
        read_threads: int = READ_THREADS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.wait_seconds = 0.0
        self._dataset = dataset
        self._order = order
        self._global_batch = global_batch
        self._share = RankShare.of(rank, world_size, global_batch)
        self._prefetch_steps = prefetch_steps
        self._read_threads = read_threads
        self._timeout_seconds = timeout_seconds
        self._ahead: ReadAhead | None = None
        self._worker: _Worker | None = None

    def fetch(self, step: int) -> Batch:
        """The rows of this rank for the update after ``step`` completed steps: ``[B, T]``, B possibly 0.

        Raises:
            IntegrityError, StorageError: from reading, naming the chunk; also StorageError after the time-out.
        """
        began = time.perf_counter()
        try:
            return self._read(step, 1)[0] if self._prefetch_steps == 0 else self._take(step)
        finally:
            self.wait_seconds += time.perf_counter() - began

    def replace(self, dataset: PackedDataset, order: RowOrder) -> None:
        """Go on with another dataset and order (at a join); what was prepared is dropped."""
        self.close()
        self._dataset, self._order = dataset, order

    def close(self) -> None:
        """Stop the threads; `fetch` starts them again."""
        worker, self._worker = self._worker, None
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.stop()
        if worker is not None:
            worker.stop()

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, step: int, num_steps: int) -> list[Batch]:
        """The batches of ``num_steps`` steps, fewer where the shuffle window ends or the steps are large; at least one."""
        start, size = step * self._global_batch, self._share.last - self._share.first
        if num_steps > 1:
            in_window = (self._order.window(start)[1] - start) // self._global_batch
            of_size = _TOKENS_AT_ONCE // max(1, size * self._dataset.sequence_length)
            num_steps = max(1, min(num_steps, in_window, of_size))
        ahead = self._ahead
        if ahead is not None:
            ahead.at(start)
        steps = self._order.rows(start, start + num_steps * self._global_batch).reshape(num_steps, self._global_batch)
        batch = self._dataset.rows(steps[:, self._share.first : self._share.last].reshape(-1))
        return [batch.part(number * size, (number + 1) * size) for number in range(num_steps)]

    def _take(self, step: int) -> Batch:
        if self._worker is None or self._worker.next_step != step:
            self.close()
            self._ahead = ReadAhead(self._dataset, self._order, self._read_threads) if self._read_threads else None
            self._worker = _Worker(self._read, step, self._prefetch_steps)
        try:
            return self._worker.take(self._timeout_seconds)
        except BaseException:
            # A failed worker is done for; asking again tries again.
            self.close()
            raise


class _Worker:
    """A thread that reads consecutive steps into a bounded buffer: first one step, then twice as many each time.

    ``read(step, n)`` gives the batches of at least one and at most ``n`` steps. The next are read when ``capacity`` steps are left, or half
    of those that were read together, so that reading has as long as it takes to use them.
    """

    def __init__(self, read: Callable[[int, int], list[Batch]], first_step: int, capacity: int) -> None:
        self.next_step = first_step
        self._read = read
        self._capacity = capacity
        self._ready: deque[Batch] = deque()
        self._error: BaseException | None = None
        self._is_stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(first_step,), name="data-loader", daemon=True)
        self._thread.start()

    def take(self, timeout_seconds: float) -> Batch:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error, timeout_seconds)
            if self._ready:
                self.next_step += 1
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
        what = f"no data for step {self.next_step} within {timeout_seconds:g} seconds"
        raise StorageError(what, remedy="check the disk or network the cache lies on")

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=5.0)

    def _run(self, step: int) -> None:
        num_steps = 1
        try:
            while True:
                batches = self._read_some(step, num_steps)
                with self._changed:
                    self._ready.extend(batches)
                    self._changed.notify_all()
                    enough = max(self._capacity, -(-len(batches) // 2))
                    self._changed.wait_for(lambda: len(self._ready) < enough or self._is_stopping)  # noqa: B023 - called before it changes
                    if self._is_stopping:
                        return
                step += len(batches)
                num_steps = 2 * len(batches)
        except BaseException as error:
            # Whatever it is, it belongs to the caller of `fetch`: a thread has nobody else to tell.
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _read_some(self, step: int, num_steps: int) -> list[Batch]:
        try:
            return self._read(step, num_steps)
        except Exception:
            # The steps before the one whose rows cannot be read are still to be had.
            if num_steps == 1 or self._is_stopping:
                raise
        return self._read(step, 1)
