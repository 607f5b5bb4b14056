"""Runs a job over numbers on a Ray cluster: one actor a worker, results in the order of the numbers, as in `workers`.

The cluster is the one at ``RAY_ADDRESS``, else the one that ``ray start`` began on this machine, else one of our own on this machine
for as long as the work takes. Ray's own fault tolerance is not used: a slice whose file is there is not built again, so a second
start of the command goes on after any loss, and nothing has to be kept on the cluster.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from llm_training.cache.ray_actor import SHARED_REMEDY, Worker
from llm_training.cache.workers import Job
from llm_training.errors import ConfigError, PeerError
from llm_training.runtime.cores import usable_cores

Result = TypeVar("Result", covariant=True)

# Read by ray when it is imported. Its remarks on workers go to standard output, where --json has its result.
_ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_QUIET: Final = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
LOCAL: Final = "local"  # ray's word for a cluster of our own
# Ray itself tries for several minutes.
_CONNECT_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 30.0
# Directory entries that a network file system keeps in memory are at most so old.
_FILE_SECONDS: Final = 30.0
_LEAVE_SECONDS: Final = 60.0


class SharedJob(Job[Result], Protocol[Result]):
    """A job whose results lie in files, seen by every worker and by who gives out the work."""

    def files(self, number: int) -> Sequence[Path]:
        """The files that are there when ``number`` is done."""
        ...


def in_ray(
    job: SharedJob[Result], numbers: Sequence[int], workers: int, *, notify: Callable[[str], None] | None = None
) -> Generator[tuple[int, Result]]:
    """Results in the order of ``numbers``, from actors with one CPU each. Closing the generator stops after the work in hand.

    Args:
        workers: actors at most; 0: one for each CPU of the cluster.
        notify: told in a line where the work runs.

    Raises:
        ConfigError: ray is not installed.
        PeerError: no cluster can be reached or started, a worker died, or a machine of it does not share our files.
            Whatever the job itself raises comes through as it is.
    """
    if not numbers:
        return
    ray = _library()
    with _cluster(ray, min(workers or usable_cores(), len(numbers))) as name:
        count = min(workers or int(ray.cluster_resources().get("CPU", 1)) or 1, len(numbers))
        say = notify or (lambda line: None)
        say(f"{count:,} worker{'s' if count > 1 else ''} on {name}")
        crew = _Crew(ray, job, numbers, count, say)
        try:
            yield from crew.results(numbers)
        finally:
            crew.leave()


def _library() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Its way to say where tokens for new clusters are kept is a warning at every start.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigError("--engine ray needs the package ray", remedy="pip install 'llm-training[cluster]'") from None


@contextmanager
def _cluster(ray: Any, num_cpus: int) -> Generator[str]:
    """Connect to a cluster, or start one with so many CPUs; yields its name. A session that the caller has is used and left open."""
    if ray.is_initialized():
        yield "the Ray cluster of this process"
        return
    named = os.environ.get("RAY_ADDRESS", "")
    if named:
        _require_listener(named)
    # Without an address ray finds what `ray start` began here, and its token.
    address = named or (None if _is_one_here() else LOCAL)
    own_folder: Path | None = None
    try:
        with _own_signal_handlers():
            context = ray.init(address, num_cpus=num_cpus if address == LOCAL else None, **_QUIET)
        if address == LOCAL:
            own_folder = Path(context.address_info["session_dir"])
    except Exception as error:
        where = f"RAY_ADDRESS={named}" if named else ""
        remedy = (
            "a cluster with tokens needs RAY_AUTH_MODE=token and its token"
            if named not in ("", LOCAL)
            else "one that is started here needs a short path for its sockets: set RAY_TMPDIR"
        )
        raise PeerError(f"no Ray cluster could be reached or started ({_one_line(error)})", where=where, remedy=remedy) from error
    try:
        yield "Ray on this machine" if own_folder else f"the Ray cluster at {ray.get_runtime_context().gcs_address}"
    finally:
        ray.shutdown(wait_for_processes=True)
        if own_folder is not None:
            shutil.rmtree(own_folder, ignore_errors=True)  # logs and sockets


def _is_one_here() -> bool:
    """Whether the cluster that the last ``ray start`` on this machine began answers: ray itself waits for a dead one for minutes."""
    temporary = os.environ.get("TMPDIR") if sys.platform == "linux" else None
    folder = os.environ.get("RAY_TMPDIR") or temporary or "/tmp"  # noqa: S108 - where ray looks
    with suppress(OSError, PeerError):
        address = Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
        _require_listener(address)
        return bool(address)
    return False


def _require_listener(address: str) -> None:
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # a word such as "auto", which ray understands or refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        remedy = "start it (ray start --head), or unset RAY_ADDRESS to work on this machine"
        raise PeerError(f"there is no Ray cluster ({_one_line(error)})", where=f"RAY_ADDRESS={address}", remedy=remedy) from None


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray's start takes SIGTERM for itself; what was there before comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class _Crew:
    """Actors, one number each at a time: what is in hand is all that a stop has to wait for."""

    def __init__(self, ray: Any, job: SharedJob[Any], numbers: Sequence[int], count: int, say: Callable[[str], None]) -> None:
        self._ray, self._job, self._count, self._say = ray, job, count, say
        folders = sorted({path.parent for path in job.files(numbers[0])})
        shared_job = ray.put(job)
        remote = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self._actors = [remote.remote() for _ in range(count)]
        self._opening = {actor.open.remote(shared_job, Path.cwd(), folders, version("llm-training")): actor for actor in self._actors}
        self._running: dict[Any, tuple[Any, int]] = {}
        self._idle: list[Any] = []
        self._done: dict[int, Any] = {}

    def results(self, numbers: Sequence[int]) -> Generator[tuple[int, Any]]:
        """See `in_ray`."""
        waiting = deque(numbers)
        for place, number in enumerate(numbers):
            # As with processes, two numbers a worker keep all busy while one takes long, and bound what waits for its turn.
            last = place + 2 * self._count
            self._collect(0)
            self._hand_out(waiting, len(numbers), last)
            while number not in self._done:
                self._collect(_PATIENCE_SECONDS)
                self._hand_out(waiting, len(numbers), last)
            node, result = self._get(self._done.pop(number))
            self._require_files(number, node)
            yield number, result

    def leave(self) -> None:
        """Wait for the work in hand, then end the actors."""
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_LEAVE_SECONDS)
        for actor in self._actors:
            with suppress(Exception):  # one that is gone already
                self._ray.kill(actor)

    def _hand_out(self, waiting: deque[int], total: int, last: int) -> None:
        while self._idle and waiting and total - len(waiting) < last:
            actor, number = self._idle.pop(), waiting.popleft()
            self._running[actor.run.remote(number)] = (actor, number)

    def _collect(self, timeout: float) -> None:
        """Take note of who is ready and what is done; waits so many seconds for the first of them."""
        tasks = [*self._running, *self._opening]
        if not tasks:
            return
        ready, _ = self._ray.wait(tasks, num_returns=1 if timeout else len(tasks), timeout=timeout)
        if timeout and not ready and len(self._opening) == self._count:
            self._say("waiting for free CPUs of the Ray cluster")
        for task in ready:
            if task in self._opening:
                self._idle.append(self._opening.pop(task))
                self._get(task)
            else:
                actor, number = self._running.pop(task)
                self._idle.append(actor)
                self._done[number] = task

    def _get(self, task: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(task)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, exceptions.RayError) or not isinstance(error.cause, Exception):
                raise _lost(error) from error
            raise error.cause from error
        except exceptions.RayError as error:
            raise _lost(error) from error

    def _require_files(self, number: int, node: str) -> None:
        """Raises PeerError when what was written there cannot be seen here."""
        until = time.monotonic() + _FILE_SECONDS
        for path in self._job.files(number):
            while not path.exists():
                if time.monotonic() > until:
                    where = f"the Ray node {node}"
                    raise PeerError(f"a file written there is not here: {path}", where=where, remedy=SHARED_REMEDY)
                time.sleep(0.1)


def _lost(error: Exception) -> PeerError:
    remedy = "it may have run out of memory: use fewer workers; the same command goes on where it stopped"
    return PeerError(f"a worker on the Ray cluster was lost ({_one_line(error)})", remedy=remedy)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
