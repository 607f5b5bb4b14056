"""Runs a job over numbers: here, in threads, or in worker processes, which are plain processes that die with their parent.

Two threads keep a core busy with reading and writing while the encoder has the other, and start at once: enough for two
cores. Beyond that processes are needed, since reading documents is Python. They are spawned, not forked, so that no lock
of a parent's thread is inherited taken.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_any
from typing import Any, Protocol, TypeVar

from llm_training.errors import PeerError

Result = TypeVar("Result", covariant=True)


class Job(Protocol[Result]):
    """Something that is opened once per process and then called with numbers."""

    def open(self) -> Callable[[int], Result]:
        """The function that does the work."""
        ...


def in_this_process(job: Job[Result], numbers: Sequence[int], workers: int) -> Generator[tuple[int, Result]]:
    """Results in the order of ``numbers``."""
    run = job.open()
    for number in numbers:
        yield number, run(number)


def in_threads(job: Job[Result], numbers: Sequence[int], workers: int) -> Generator[tuple[int, Result]]:
    """Results in the order of ``numbers``, from so many threads; each opens the job for itself.

    Closing the generator waits for the work in hand.
    """
    own = threading.local()

    def run(number: int) -> Any:
        if not hasattr(own, "run"):
            own.run = job.open()
        return own.run(number)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="cache-builder")
    try:
        yield from _in_turn(pool, run, numbers, workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_turn(pool: Executor, run: Callable[[int], Any], numbers: Sequence[int], workers: int) -> Generator[tuple[int, Any]]:
    """Each result after those before it: what is committed so far never depends on which worker was quicker."""
    # Two numbers a worker keep every worker busy while results are committed here, or while one number takes long.
    waiting, running = iter(numbers), deque[tuple[int, Future[Any]]]()
    for number in islice(waiting, 2 * workers):
        running.append((number, pool.submit(run, number)))
    while running:
        number, future = running.popleft()
        result = future.result()
        running.extend((later, pool.submit(run, later)) for later in islice(waiting, 1))
        yield number, result


def in_worker_processes(job: Job[Result], numbers: Sequence[int], workers: int) -> Generator[tuple[int, Result]]:
    """Results in the order of ``numbers``. Closing the generator stops after the work in hand.

    Raises:
        PeerError: a worker died. Whatever the job itself raises comes through as it is.
    """
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(numbers))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(job,))
    try:
        yield from _in_turn(pool, _run_in_worker, numbers, count)
    except BrokenProcessPool as error:
        remedy = "it may have run out of memory: use fewer workers; the build goes on where it stopped"
        raise PeerError("a worker process died", remedy=remedy) from error
    finally:
        pool.shutdown(cancel_futures=True)


_run: Callable[[int], Any] | None = None


def _start_worker(job: Job[Any]) -> None:
    """Open the job; leave stopping to the parent, and end when the parent ends."""
    global _run
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _run = job.open()
    except BaseException as error:
        # An initializer that raises breaks the pool without saying why; handing the error to the first call says it.
        failure = error

        def fail(number: int) -> Any:
            raise failure

        _run = fail


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_any([parent.sentinel])
        os._exit(1)


def _run_in_worker(number: int) -> Any:
    assert _run is not None
    return _run(number)
