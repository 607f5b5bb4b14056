"""One job at a time on a thread beside training; its failure is kept until somebody asks.

A thread rather than a process: hashing, writing and syncing all run outside the interpreter's lock, and the snapshot is
shared without a copy. It is not a daemon, so a program that ends normally ends after its last checkpoint is committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BackgroundWorker(Generic[Result]):
    """Runs jobs one after the other; results and the first failure are handed out by `collect` and `wait`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self._results_lock = threading.Lock()
        self._failure: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """True while a job runs."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, job: Callable[[], Result]) -> None:
        """Start a job, after the one before has ended and was seen not to have failed. Raises what that one raised."""
        self._join()
        self._raise_failure()
        self._thread = threading.Thread(target=self._run, args=(job,), name=self._name, daemon=False)
        self._thread.start()

    def _run(self, job: Callable[[], Result]) -> None:
        try:
            result = job()
            with self._results_lock:  # looked up after the job: `collect` may have changed the list meanwhile
                self._results.append(result)
        except BaseException as error:  # whatever it is belongs to the thread that asked for the job
            self._failure = error

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def wait(self) -> None:
        """Return when no job runs. Raises what the job raised, once."""
        self._join()
        self._raise_failure()

    def collect(self) -> list[Result]:
        """The results since the last call, without waiting. Raises what a job raised, once."""
        if not self.is_busy:
            self._raise_failure()
        with self._results_lock:
            results, self._results = self._results, []
        return results
