"""Runs a job over numbers, here or in worker processes. Workers are plain processes that die with their parent.

Processes rather than threads: reading and cleaning documents is Python. They are spawned, not forked, so that no lock of
a parent's thread is inherited taken.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
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


def in_worker_processes(job: Job[Result], numbers: Sequence[int], workers: int) -> Generator[tuple[int, Result]]:
    """Results as they come. Closing the generator stops after the work in hand.

    Raises:
        PeerError: a worker died. Whatever the job itself raises comes through as it is.
    """
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(numbers))
    waiting = list(reversed(numbers))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(job,))
    try:
        running: dict[Future[Any], int] = {}
        while waiting or running:
            # Two numbers a worker in flight keep every worker busy while results are committed here.
            while waiting and len(running) < 2 * count:
                number = waiting.pop()
                running[pool.submit(_run_in_worker, number)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
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
