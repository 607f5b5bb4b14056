"""``python -m benchmarks``: every benchmark in turn, each in a process of its own, then figure, bar, pass or fail."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import RESULTS, table_of
from benchmarks.machine import REPOSITORY

# The longest first would leave the machine warm for the short ones; in this order each starts cool. Seconds are limits, not estimates.
BENCHMARKS = {
    "startup": 60,
    "matmul_ceiling": 90,
    "tokenize_and_pack": 180,
    "cleaning": 150,
    "loader": 150,
    "save_stall": 150,
    "train_throughput": 600,
}
LIMIT_SECONDS = 15 * 60
BUSY_LOAD = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Run them all; exit code 0 when each ran, whatever the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="show that each runs; the figures mean little and are not kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result files")
    options = parser.parse_args(arguments)
    _warn_when_busy()
    started = time.monotonic()
    figures, failed = [], []
    for name, limit in BENCHMARKS.items():
        left = LIMIT_SECONDS - (time.monotonic() - started)
        print(f"\n{name}", flush=True)
        if not _run(name, min(limit, left), options):
            failed.append(name)
        elif not options.quick:
            figures += json.loads((options.output / f"{name}.json").read_text())["figures"]
    judged = [figure for figure in figures if figure["passes"] is not None]
    if judged:
        print("\n" + "\n".join(table_of(judged)))
    print(f"\n{time.monotonic() - started:.0f} s in all" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _run(name: str, limit_seconds: float, options: argparse.Namespace) -> bool:
    words = [
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        *(["--quick"] if options.quick else ["--output", str(options.output / f"{name}.json")]),
    ]
    try:
        return subprocess.run(words, cwd=REPOSITORY, timeout=max(1.0, limit_seconds)).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"  stopped after {limit_seconds:.0f} s", file=sys.stderr)
        return False


def _warn_when_busy() -> None:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY_LOAD:
        print(f"the load average is {load:.2f}: other work runs here, so times will be too long; ratios hold better", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
