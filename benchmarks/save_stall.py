"""How long training waits for a checkpoint: the default model beside its own step time, and 1.5 GB of tensors."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Figure, Result, run_benchmark, summarize
from benchmarks.session import TimedSession, default_load
from benchmarks.train_throughput import REFERENCE_PEAK_FLOPS
from llm_training.checkpoint.retention import RetentionPolicy
from llm_training.checkpoint.snapshot import Snapshot
from llm_training.checkpoint.store import CheckpointStore
from llm_training.model.families import to_hf_tensors
from llm_training.model.hf_config import to_hf_config
from llm_training.runtime.allocator import keep_large_blocks
from llm_training.runtime.device import choose_device, choose_precision

DESCRIPTION = "seconds that a save holds up training, against the seconds of a step; and for 1.5 GB, the size of 124M parameters with AdamW"
LARGE_BYTES = 1.49e9


def measure(options: argparse.Namespace) -> Result:
    """Save while training the default model, then save 1.5 GB of tensors."""
    keep_large_blocks()
    with tempfile.TemporaryDirectory(prefix="bench-save-") as name:
        figures, details = measure_default(Path(name), num_saves=2 if options.quick else 5)
        stalls, writes = measure_large(Path(name), num_bytes=5e7 if options.quick else LARGE_BYTES, num_saves=2 if options.quick else 4)
    figures += [
        Figure(what="stall of a 1.5 GB checkpoint", value=statistics.median(stalls[1:]), unit="s", bar=0.5, aim=0.25, is_ceiling=True),
        Figure(what="the same, first save of a run", value=stalls[0], unit="s"),
        Figure(what="the same, written and verified in the background", value=statistics.median(writes), unit="s"),
    ]
    details["large"] = {"stall": summarize(stalls), "write": summarize(writes)}
    return Result(figures=figures, details=details)


def measure_default(folder: Path, *, num_saves: int) -> tuple[list[Figure], dict[str, Any]]:
    """Steps and saves in turn; the stall is what the training thread waits, snapshot included."""
    device = choose_device("auto")
    session = TimedSession(default_load(REFERENCE_PEAK_FLOPS), device, choose_precision("auto", device))
    store = CheckpointStore(folder / "default", retention=RetentionPolicy(save_total_limit=2))
    steps, stalls, beside = [], [], []
    for _ in range(num_saves):
        steps.append(session.seconds_per_step(5))
        start = time.perf_counter()
        store.save_async(_snapshot_of(session))
        stalls.append(time.perf_counter() - start)
        beside.append(session.seconds_per_step(3))
        store.wait()
    step, stall = statistics.median(steps), statistics.median(stalls)
    figures = [
        Figure(what="stall of a save over a step, default model", value=stall / step, unit="steps", bar=1.0, is_ceiling=True),
        Figure(what="stall of a save, default model", value=stall, unit="s"),
        Figure(what="first save over a step", value=stalls[0] / step, unit="steps"),
        Figure(what="steps while the save is written", value=statistics.median(beside) / step, unit="x their usual time"),
    ]
    details = {"default": {"step": summarize(steps), "stall": summarize(stalls), "step_beside_write": summarize(beside)}}
    return figures, details


def measure_large(folder: Path, *, num_bytes: float, num_saves: int) -> tuple[list[float], list[float]]:
    """Stall and write seconds of each save of random tensors of that size, a third of them weights; each save replaces the last."""
    root = folder / "large"
    store = CheckpointStore(root, retention=RetentionPolicy(save_total_limit=1))
    rows = max(1, int(num_bytes / 4 / 3 / 12 / 4096))
    tensors = {f"block.{number}": torch.randn(rows, 4096) for number in range(12)}
    moments = {f"adamw.{key}.{name}": tensor.clone() for key in ("exp_avg", "exp_avg_sq") for name, tensor in tensors.items()}
    stalls, writes = [], []
    for step in range(num_saves):
        start = time.perf_counter()
        store.save_async(Snapshot(step=step, model_tensors=tensors, config={}, optimizer_tensors=moments))
        stalls.append(time.perf_counter() - start)
        writes.extend(report.write_seconds for report in store.wait())
    shutil.rmtree(root)
    return stalls, writes


def _snapshot_of(session: TimedSession) -> Snapshot:
    return Snapshot(
        step=session.num_steps,
        model_tensors=to_hf_tensors(session.model),
        config=to_hf_config(session.load.spec),
        optimizer_tensors=session.optimizer.tensors(),
        state={"step": session.num_steps},
    )


if __name__ == "__main__":
    sys.exit(run_benchmark("save_stall", measure, DESCRIPTION))
