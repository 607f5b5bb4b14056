"""Run in a process of its own: a command is killed at random moments and run again until it is whole; prints an account as JSON.

``killer.py PLACE KILLS SEED COMMAND WORDS...``: the command writes to ``out`` in its working directory, which is new for
every round of one to three kills. The process imports once and forks for each attempt, so a kill costs no start.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from llm_training.__main__ import main
from llm_training.cli.commands import COMMANDS

# What a command imports when it runs: imported before the first fork, so that kills fall into the work.
WORK = {
    "prepare-data": ("llm_training.jobs.prepare", "llm_training.monitoring.console", "pyarrow.parquet"),
    "build-cache": ("llm_training.jobs.cache", "llm_training.monitoring.console"),
}


def attempt(folder: Path, words: list[str], kill_after: float | None = None) -> int:
    """One run of the command in a child; returns its exit code, or -9."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            code = main(words)
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but locks, by its name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of files that are not as expected."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def kill_and_compare(place: Path, kills: int, seed: int, words: list[str]) -> dict[str, object]:
    """Kill until ``kills`` runs died; every round must end in the files of a run that was left alone."""
    rng = random.Random(seed)
    for name in ("warm", "whole"):
        (place / name).mkdir()
        began = time.monotonic()
        assert attempt(place / name, words) == 0
        duration = time.monotonic() - began
    expected = contents(place / "whole" / "out")
    wrong = differences(contents(place / "warm" / "out"), expected)
    died = begun = rounds = 0
    while died < kills and not wrong:
        folder = place / f"round-{rounds}"
        folder.mkdir()
        for _ in range(rng.randint(1, 3)):
            was_killed = attempt(folder, words, rng.uniform(0, duration)) == -signal.SIGKILL
            died += was_killed
            duration *= 1.03 if was_killed else 0.95  # the machine may be faster or slower by now
            begun += any((folder / "out").rglob("*")) if (folder / "out").is_dir() else False
        code = attempt(folder, words)
        wrong = [f"exit {code}"] if code else differences(contents(folder / "out"), expected)
        if not wrong:
            shutil.rmtree(folder)
        rounds += 1
    return {"kills": died, "rounds": rounds, "found_begun": begun, "wrong": wrong, "files": len(expected), "seconds": duration}


if __name__ == "__main__":
    for module in (COMMANDS[sys.argv[4]].module, "llm_training.config.load", *WORK[sys.argv[4]]):
        importlib.import_module(module)
    print(json.dumps(kill_and_compare(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
