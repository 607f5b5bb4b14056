"""What runs in a Ray actor: a job, opened once, and called with numbers. Needs neither ray nor the driver's libraries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from llm_training.cache.workers import Job
from llm_training.errors import PeerError

SHARED_REMEDY: Final = "the sources, the output and the cache must lie in a file system that all machines of the cluster share"


class Worker:
    """One worker of a cluster; `open` comes before `run`."""

    def __init__(self) -> None:
        self._run: Callable[[int], Any] | None = None

    def open(self, job: Job[Any], directory: Path, folders: Sequence[Path], driver_version: str) -> None:
        """Open the job in the driver's working directory, since paths may be relative to it.

        Raises:
            PeerError: this machine does not have that directory or one of the ``folders`` that will be written into, or
                another version of the program, which might write other bytes.
        """
        where = f"the Ray node {gethostname()}"
        if (own := version("llm-training")) != driver_version:
            remedy = "install the same version on every node"
            raise PeerError(f"llm-training is {own} there, and {driver_version} here", where=where, remedy=remedy)
        for folder in (directory, *folders):
            if not (directory / folder).is_dir():
                raise PeerError(f"there is no folder {folder} there", where=where, remedy=SHARED_REMEDY)
        os.chdir(directory)
        self._run = job.open()

    def run(self, number: int) -> tuple[str, Any]:
        """This machine's name, and what the job returns. Raises what the job raises."""
        assert self._run is not None
        return gethostname(), self._run(number)
