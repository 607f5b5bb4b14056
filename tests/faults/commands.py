"""Calls of commands, for tests of what they do with faults: in this process, in a child of another user, killed again and again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_training.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65_534


def in_a_process(code: str, *words: object, timeout: float = 300) -> dict[str, Any]:
    """Run a program text; it prints JSON."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    call = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def kill_again_and_again(place: Path, kills: int, seed: int, *words: object) -> dict[str, Any]:
    """See ``killer.py``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    call = [sys.executable, str(Path(__file__).with_name("killer.py")), str(place), str(kills), str(seed), *map(str, words)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=3_000)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def as_nobody(words: list[str], messages: Path) -> int:
    """Run a command as a user without rights, in a forked child with standard error in a file; returns its exit code."""
    messages.touch()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stderr = messages.open("w", buffering=1)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            code = main(words)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def small_disk(place: Path, num_bytes: int) -> Generator[bool]:
    """A file system of that size at ``place``; yields False where mounting is not allowed."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "none", str(place)]
    is_mounted = shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(place)], check=True)
