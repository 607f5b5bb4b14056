"""The physical limit of this machine: matrix products by size and type, and memory bandwidth."""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from benchmarks.harness import Figure, Result, alternate, run_benchmark, seconds_of, significant, summarize
from llm_training.runtime.device import choose_device

DESCRIPTION = "torch.mm of N x N in fp32 and bf16, in turn, and a copy of 1 GiB; all usable cores"


def measure(options: argparse.Namespace) -> Result:
    """Rates in TFLOP/s for each size and type; the best bf16 one is the ceiling that MFU is told against."""
    device = choose_device("auto")
    sizes = (512, 1024) if options.quick else (512, 1024, 2048, 4096)
    variants = {f"{name} {size}": _product(size, dtype, device.torch) for size in sizes for name, dtype in _TYPES.items()}
    samples = alternate(variants, 2 if options.quick else 7)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    details = {name: summarize(values) for name, values in samples.items()}
    figures = [
        Figure(what=f"{name} matmul, best size", value=max(rate for key, rate in medians.items() if key.startswith(name)), unit="TFLOP/s")
        for name in _TYPES
    ]
    figures.append(Figure(what="bf16 over fp32", value=figures[1].value / figures[0].value, unit="x"))
    if device.kind == "cpu":
        figures.append(Figure(what="memory copy, read and written", value=_copy_rate(1 << 26 if options.quick else 1 << 30), unit="GB/s"))
    return Result(figures=figures, details={"tflops": details, "device": device.name})


_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _product(size: int, dtype: torch.dtype, device: torch.device):
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)

    def run() -> float:
        """Repeat for about 0.2 s; TFLOP/s of the mean."""
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < 0.2 or not count:
            torch.mm(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize()
            count += 1
        return 2.0 * size**3 * count / elapsed / 1e12 if elapsed else 0.0

    return run


def _copy_rate(num_bytes: int) -> float:
    source, target = torch.ones(num_bytes, dtype=torch.uint8), torch.zeros(num_bytes, dtype=torch.uint8)
    samples = [seconds_of(lambda: target.copy_(source)) for _ in range(4)][1:]
    return significant(2 * num_bytes / statistics.median(samples) / 1e9)


if __name__ == "__main__":
    sys.exit(run_benchmark("matmul_ceiling", measure, DESCRIPTION))
