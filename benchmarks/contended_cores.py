"""What another busy process costs: the default model's step, idle and with one core taken, by how long OpenMP threads spin.

Each figure comes from processes of its own, since OpenMP reads its settings when it is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.harness import Figure, Result, run_benchmark, summarize
from benchmarks.machine import REPOSITORY
from llm_training.runtime.openmp import SPIN_TURNS

DESCRIPTION = "tokens/s of the default model on all cores, idle and beside one busy process, with OpenMP's own waiting and with ours"
WORKER = """
import json
from benchmarks.session import TimedSession, default_load
from llm_training.runtime import allocator
allocator.prefer_huge_pages(), allocator.keep_large_blocks()
from llm_training.runtime.device import choose_device, choose_precision
device = choose_device("auto")
load = default_load(2e12)
session = TimedSession(load, device, choose_precision("auto", device))
session.seconds_per_step(2)
print(json.dumps(load.tokens / session.seconds_per_step({steps})))
"""
POLICIES: dict[str, dict[str, str]] = {"OpenMP's own": {}, "ours": {"GOMP_SPINCOUNT": SPIN_TURNS}}


def measure(options: argparse.Namespace) -> Result:
    """Both policies in turn, idle and contended."""
    steps, rounds = (2, 1) if options.quick else (8, 3)
    speeds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for place in ("idle", "contended"):
            for policy, settings in POLICIES.items():
                speeds.setdefault(f"{policy}, {place}", []).append(_speed(settings, steps, is_contended=place == "contended"))
    typical = {name: statistics.median(values) for name, values in speeds.items()}
    figures = [Figure(what=name, value=value, unit="tokens/s") for name, value in typical.items()]
    figures += [
        Figure(what=f"ours over OpenMP's own, {place}", value=typical[f"ours, {place}"] / typical[f"OpenMP's own, {place}"], unit="x")
        for place in ("idle", "contended")
    ]
    details: dict[str, Any] = {name: summarize(values) for name, values in speeds.items()}
    return Result(figures=figures, details=details)


def _speed(settings: dict[str, str], steps: int, *, is_contended: bool) -> float:
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if is_contended else None
    try:
        words = [sys.executable, "-c", WORKER.format(steps=steps)]
        done = subprocess.run(words, cwd=REPOSITORY, env=environment | settings, capture_output=True, text=True, timeout=120, check=True)
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(run_benchmark("contended_cores", measure, DESCRIPTION, has_ceiling=False))
