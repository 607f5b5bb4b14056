"""A process that holds one variant ready and measures it when told, so that variants with different process-wide settings
(allocator, precision, compiler) can take turns.

Parent and worker speak JSON lines over pipes: the parent writes ``{"steps": n}``, the worker answers ``{"seconds": s}``; the
worker's first line tells what it built. A waiting worker uses no processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

from benchmarks.machine import REPOSITORY


class Worker:
    """The parent's end. ``settings`` is what the worker's ``serve`` receives; ``facts`` what it told first."""

    def __init__(self, module: str, settings: dict[str, Any]) -> None:
        environment = {
            key: value for key, value in os.environ.items() if key not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", json.dumps(settings)],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark worker ended with exit code {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def answer(message: dict[str, Any]) -> None:
    """The worker's end: one line to the parent."""
    print(json.dumps(message), flush=True)


def requests() -> Any:
    """The worker's end: requests until the parent closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)
