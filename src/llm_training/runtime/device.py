"""Which device runs the model, with how many threads and in which precision; chosen by probing, said in one line.

Precision ``auto`` is bf16 where the processor multiplies bf16 natively (CUDA 8.0 and newer, AMX or AVX512-bf16 CPUs,
recent MPS), else fp32. Weights stay in fp32; only the arithmetic of forward and backward is narrowed (autocast).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psutil
import torch

from llm_training.errors import ConfigError
from llm_training.runtime.cores import usable_cores as usable_cores  # handed on: who asks for a device asks for its cores too


@dataclass(frozen=True)
class Device:
    """A chosen device: ``kind`` is cpu, cuda or mps; ``name`` is for people; ``threads`` counts CPU threads."""

    kind: str
    index: int
    name: str
    threads: int

    @property
    def torch(self) -> torch.device:
        """The same device as torch names it; only CUDA has an index."""
        return torch.device(self.kind, self.index) if self.kind == "cuda" else torch.device(self.kind)


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the forward and backward pass and why it was chosen."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of the products under autocast."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self, device: Device) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.kind, dtype=self.dtype)


def free_bytes(device: Device) -> int:
    """Memory that nobody uses now, of the device or, without one of its own, of the machine."""
    if device.kind == "cuda":
        return torch.cuda.mem_get_info(device.index)[0]
    return psutil.virtual_memory().available


def _threads_of_openmp() -> int:
    """The first number of OMP_NUM_THREADS (it may be a list, one for each nesting level); 0 when it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def choose_device(wanted: str, *, local_rank: int = 0, local_world_size: int = 1, threads: int = 0) -> Device:
    """Pick and prepare the device.

    Args:
        wanted: auto, cpu, cuda or mps.
        local_rank: index of this process on its machine; picks the GPU.
        local_world_size: processes on this machine; they share the cores.
        threads: CPU threads; 0 takes the usable cores (honouring OMP_NUM_THREADS).

    Raises:
        ConfigError: the device asked for is not there.
    """
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if wanted == "auto":
        wanted = next(kind for kind, is_there in available.items() if is_there())
    elif not available[wanted]():
        raise ConfigError(f"device {wanted} is not available here", where="resources.device", remedy="use auto or cpu")
    if not threads:
        threads = _threads_of_openmp() or max(1, usable_cores() // local_world_size)
    torch.set_num_threads(threads)
    if wanted == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"rank {local_rank} of this machine has no GPU of its own ({torch.cuda.device_count()} there)",
                where="resources.device",
                remedy="start as many ranks as there are GPUs, or use --device cpu",
            )
        torch.cuda.set_device(local_rank)
        return Device("cuda", local_rank, torch.cuda.get_device_name(local_rank), threads)
    name = f"CPU, {threads} thread{'s' if threads > 1 else ''}" if wanted == "cpu" else "Apple GPU"
    return Device(wanted, 0, name, threads)


def has_fast_bf16(device: Device) -> tuple[bool, str]:
    """Whether bf16 products are native, and the fact that decides it."""
    if device.kind == "cuda":
        major, minor = torch.cuda.get_device_capability(device.index)
        return major >= 8, f"compute capability {major}.{minor}"
    if device.kind == "mps":
        supported = bool(getattr(torch.backends.mps, "is_macos_or_newer", lambda *_: False)(14, 0))
        return supported, "macOS 14 or newer" if supported else "macOS before 14"
    probes = (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX512-bf16"))
    for probe, label in probes:
        if getattr(torch.cpu, probe, lambda: False)():
            return True, f"the processor has {label}"
    return False, "the processor has no bf16 arithmetic"


def choose_precision(wanted: str, device: Device) -> Precision:
    """Resolve ``auto`` by probing; an explicit choice is taken as given, with a reason that says if it is slow here."""
    is_fast, fact = has_fast_bf16(device)
    if wanted == "auto":
        return Precision("bf16" if is_fast else "fp32", fact)
    if wanted == "bf16" and not is_fast:
        return Precision("bf16", f"as asked; slow here: {fact}")
    return Precision(wanted, "as asked")
