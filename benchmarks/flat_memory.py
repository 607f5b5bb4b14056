"""Memory of building a cache does not grow with the text: peak of the whole process tree for 80 MB and for 800 MB.

The larger input is the smaller one ten times over, changed a little each time. Takes minutes, so `python -m benchmarks` leaves
it out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import orjson
import psutil

from benchmarks.harness import Figure, Result, missing, run_benchmark
from benchmarks.machine import REPOSITORY
from benchmarks.text import find_data, unpack

DESCRIPTION = "peak memory of llm-build-cache and all its processes, for the text once and ten times over, with 1 and 2 processes"
TIMES = 10
SAMPLE_SECONDS = 0.02
ALLOWED_GROWTH = 1.25


def measure(options: argparse.Namespace) -> Result:
    """Build both inputs with one and with two processes."""
    data = find_data()
    assert data is not None
    tokenizer = data / "gpt2" / "tokenizer.json"
    figures: list[Figure] = []
    details: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        folder = Path(name)
        once = unpack(data, folder / "once", is_quick=options.quick)
        often = _repeated(once, folder / "often", 3 if options.quick else TIMES)
        for workers in (1, 2):
            runs = {text.name: _peak(text, tokenizer, folder / f"cache-{text.name}-{workers}", workers) for text in (once, often)}
            details[f"{workers} processes"] = {f"{key} {what}": value for key, run in runs.items() for what, value in run.items()}
            peaks = {key: run["peak_mb"] for key, run in runs.items()}
            figures += [Figure(what=f"peak memory, text {key}, {workers} processes", value=peaks[key], unit="MB") for key in peaks]
            growth = peaks["often"] / peaks["once"]
            figures.append(
                Figure(what=f"growth of the peak, {workers} processes", value=growth, unit="x", bar=ALLOWED_GROWTH, is_ceiling=True)
            )
    return Result(figures=figures, details=details)


def _repeated(source: Path, target: Path, times: int) -> Path:
    """Copies of the files in which one common word is another each time, so that no copy repeats another."""
    target.mkdir()
    for turn in range(times):
        for path in sorted(source.iterdir()):
            with path.open("rb") as lines, (target / f"{turn}-{path.name}").open("wb") as out:
                for line in lines:
                    record = orjson.loads(line)
                    record["text"] = record["text"].replace(" the ", f" the{turn} ")
                    out.write(orjson.dumps(record) + b"\n")
    return target


def _peak(text: Path, tokenizer: Path, cache: Path, workers: int) -> dict[str, float]:
    """Peak resident memory of the command's process tree, MB (pages that processes share count for each)."""
    words = [
        sys.executable, "-m", "llm_training", "build-cache", str(text), "--tokenizer", str(tokenizer), "--cache.dir", str(cache),
        "--cache.workers", str(workers), "--sequence-length", "512", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    start = time.monotonic()
    process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    tree, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        peak = max(peak, _resident_bytes(tree))
        time.sleep(SAMPLE_SECONDS)
    assert process.stdout is not None
    report = json.loads(process.stdout.read())
    assert process.returncode == 0
    return {"peak_mb": peak / 1e6, "text_mb": report["text_bytes"] / 1e6, "seconds": time.monotonic() - start}


def _resident_bytes(root: psutil.Process) -> int:
    total = 0
    with suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):  # gone between listing and asking
                total += process.memory_info().rss
    return total


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to tokenise", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("flat_memory", measure, DESCRIPTION, has_ceiling=False))
