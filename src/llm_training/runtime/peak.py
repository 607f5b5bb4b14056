"""The measured ceiling of matrix products: what MFU is measured against, and what the size dial starts from."""

from __future__ import annotations

import time

import torch

from llm_training.runtime.device import Device, Precision


def synchronize(device: Device) -> None:
    """Wait until the device has done all queued work."""
    if device.kind == "cuda":
        torch.cuda.synchronize(device.index)
    elif device.kind == "mps":
        torch.mps.synchronize()


def measure_matmul_flops(device: Device, precision: Precision, *, size: int | None = None, seconds: float = 0.1) -> float:
    """Best rate over repeated ``size x size`` products in the precision given, in FLOP/s.

    The best of the repetitions is taken, not the mean: it is a ceiling, and other work on the machine only lowers it.
    """
    size = size or (8192 if device.kind == "cuda" else 2048)
    gen = torch.Generator().manual_seed(0)
    left = torch.randn(size, size, generator=gen).to(device.torch, precision.dtype)
    right = torch.randn(size, size, generator=gen).to(device.torch, precision.dtype)
    torch.mm(left, right)
    synchronize(device)
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        torch.mm(left, right)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
