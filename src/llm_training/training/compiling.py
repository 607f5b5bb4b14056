"""torch.compile: whether it pays, and a check that it computes the same.

On a CPU a cold compile takes some twenty seconds on an idle machine and makes a step about 1.3 times faster
(benchmarks/results/train_throughput.json), so it pays in runs longer than two minutes. What is missing (a compiler,
Triton) or goes wrong costs one line, never the run.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llm_training.model.loss import TokenLoss
from llm_training.runtime.device import Device

PAYS_AFTER_SECONDS = {"cpu": 120.0, "cuda": 90.0}
COMPILERS = ("g++", "clang++", "c++", "cl")
LOSS_TOLERANCE = 0.02  # relative; bf16 rounding of a fused graph against an eager one stays well below


@dataclass(frozen=True)
class CompileChoice:
    """Whether to compile, and why: a line for the reader."""

    is_on: bool
    reason: str


def choose_compile(wanted: str, device: Device, expected_seconds: float | None) -> CompileChoice:
    """Resolve ``auto``.

    Args:
        wanted: auto, true or false.
        expected_seconds: expected time of the run, None when unknown (then it is taken to be long).
    """
    if wanted == "false":
        return CompileChoice(False, "switched off")
    missing = _what_is_missing(device)
    if missing:
        return CompileChoice(False, missing)
    if wanted == "true":
        return CompileChoice(True, "as asked")
    threshold = PAYS_AFTER_SECONDS[device.kind]
    if expected_seconds is not None and expected_seconds < threshold:
        return CompileChoice(False, f"the run is expected to take {expected_seconds:.0f} s; compiling pays from {threshold:.0f} s")
    return CompileChoice(True, "the run is long enough to pay for it")


def _what_is_missing(device: Device) -> str | None:
    if device.kind not in PAYS_AFTER_SECONDS:
        return f"not supported on {device.kind}"
    if device.kind == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), *COMPILERS)):
        return "no C++ compiler found (g++ would make training faster)"
    if device.kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def compile_checked(
    loss_module: TokenLoss,
    forward_backward: Callable[[nn.Module], Tensor],
    device: Device,
    *,
    cache_dir: Path,
) -> tuple[nn.Module, str | None]:
    """Compile and compare with eager on one micro-batch.

    On a CPU the blocks are compiled, one graph for all of them; on a GPU the whole of model and loss, since there the kernels
    between the blocks are worth fusing too.

    Args:
        loss_module: what is to be compiled.
        forward_backward: runs one micro-batch through a module, backward included, and returns the loss; gradients it leaves
            are the caller's to clear.
        cache_dir: where the compiler keeps its products; private to the user.

    Returns:
        (the module to train with, None) or (the eager module, why it is not compiled).
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir))
    eager = float(forward_backward(loss_module))
    try:
        compiled = _compile(loss_module, device)
        found = float(forward_backward(compiled))
    except Exception as error:  # the compiler is a large program of others: any failure of it means eager
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    else:
        if math.isclose(eager, found, rel_tol=LOSS_TOLERANCE):
            return compiled, None
        problem = f"the compiled loss {found:.4f} differs from the eager loss {eager:.4f}"
    for block in loss_module.model.layers:
        block._compiled_call_impl = None  # what Module.compile sets; there is no public way back
    return loss_module, f"not compiled: {problem}"


def _compile(loss_module: TokenLoss, device: Device) -> nn.Module:
    if device.kind == "cpu":
        loss_module.model.compile_blocks()
        return loss_module
    return torch.compile(loss_module, dynamic=False)  # type: ignore[return-value]
