"""Job: what this machine offers for training, and what is missing and what that costs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from llm_training.errors import LlmTrainingError
from llm_training.monitoring.wording import size
from llm_training.runtime.allocator import keep_large_blocks
from llm_training.runtime.device import Device, Precision, choose_device, choose_precision, usable_cores
from llm_training.runtime.peak import measure_matmul_flops

OLDEST_PYTHON, FIRST_UNTRIED_PYTHON = (3, 11), (3, 14)
SMALL_MEMORY_BYTES, SMALL_DISK_BYTES = 4 << 30, 5 << 30
# Parts that are installed by an extra, and what is missing without them.
OPTIONAL_PARTS = {
    "matplotlib": ("plots", "pictures of loss curves"),
    "datasets": ("hub", "hf: sources"),
    "huggingface_hub": ("hub", "tokenizers and models from the Hub"),
    "ray": ("cluster", "preparing data on a Ray cluster"),
    "transformers": ("hf", "opening checkpoints with Hugging Face's own library"),
}
MARKS = {"good": "ok", "note": "note", "bad": "MISSING"}


@dataclass(frozen=True)
class SystemFact:
    """One thing looked at. ``state`` is good, note (it costs something) or bad (training cannot work)."""

    name: str
    found: str
    state: str = "good"
    remedy: str = ""

    @property
    def mark(self) -> str:
        """The state as the table shows it."""
        return MARKS[self.state]


@dataclass(frozen=True)
class SystemReport:
    """Everything looked at. ``is_able`` unless something that training needs is missing."""

    facts: tuple[SystemFact, ...]
    is_able: bool


def check_system(*, with_speed: bool = True) -> SystemReport:
    """Look at the machine; ``with_speed`` measures products of matrices for half a second."""
    facts = (*_software(), *_processor(with_speed), *_room(), *_optional())
    return SystemReport(facts, all(fact.state != "bad" for fact in facts))


def _software() -> Iterator[SystemFact]:
    version = sys.version_info
    is_tried = OLDEST_PYTHON <= version[:2] < FIRST_UNTRIED_PYTHON
    yield SystemFact("Python", platform.python_version(), "good" if is_tried else "note", "" if is_tried else "3.11 to 3.13 are tested")
    yield SystemFact("torch", torch.__version__)
    yield SystemFact("system", f"{platform.system()} {platform.release()} on {platform.machine()}")
    yield SystemFact("llm-training", importlib.metadata.version("llm-training"))


def _processor(with_speed: bool) -> Iterator[SystemFact]:
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    yield SystemFact("processor", f"{cores} of {all_cores} cores usable{_processor_name()}")
    yield from (SystemFact(f"GPU {index}", _gpu(index)) for index in range(torch.cuda.device_count()))
    try:
        device = choose_device("auto")
    except LlmTrainingError as error:
        yield SystemFact("device", error.what, "bad", error.remedy)
        return
    precision = choose_precision("auto", device)
    yield SystemFact("device", device.name)
    is_fast = precision.name != "fp32"
    yield SystemFact("precision", f"{precision.name}: {precision.reason}", "good" if is_fast else "note")
    if with_speed:
        yield SystemFact("matrix products", _speeds(device, precision))
    yield _compiler(device)
    reason = keep_large_blocks()
    yield SystemFact("allocator", reason or "large blocks stay in the process", "note" if reason else "good")


def _processor_name() -> str:
    with_name = [line for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f", {with_name[0].partition(':')[2].strip()}" if with_name else ""


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace") if path.is_file() else ""


def _gpu(index: int) -> str:
    facts = torch.cuda.get_device_properties(index)
    return f"{facts.name}, {size(facts.total_memory)}, compute capability {facts.major}.{facts.minor}"


def _speeds(device: Device, precision: Precision) -> str:
    names = dict.fromkeys((precision.name, "fp32"))
    speeds = {name: measure_matmul_flops(device, Precision(name, ""), seconds=0.2) for name in names}
    return ", ".join(f"{speed / 1e12:.2f} TFLOP/s in {name}" for name, speed in speeds.items())


def _compiler(device: Device) -> SystemFact:
    if device.kind == "cuda":
        has_triton = importlib.util.find_spec("triton") is not None
        found = "triton" if has_triton else "no triton"
        return SystemFact("compiler", found, "good" if has_triton else "note", "" if has_triton else "torch.compile stays off without it")
    path = next((path for name in ("c++", "g++", "clang++", "cl") if (path := shutil.which(name))), None)
    remedy = "" if path else "install g++ or clang: torch.compile stays off without one"
    return SystemFact("compiler", Path(path).name if path else "none", "good" if path else "note", remedy)


def _room() -> Iterator[SystemFact]:
    memory = psutil.virtual_memory()
    is_small = memory.available < SMALL_MEMORY_BYTES
    yield SystemFact("memory", f"{size(memory.available)} free of {size(memory.total)}", "note" if is_small else "good")
    disk = shutil.disk_usage(Path.cwd())
    is_small = disk.free < SMALL_DISK_BYTES
    yield SystemFact("disk", f"{size(disk.free)} free here", "note" if is_small else "good", "checkpoints need room" if is_small else "")


def _optional() -> Iterator[SystemFact]:
    for module, (extra, purpose) in OPTIONAL_PARTS.items():
        if importlib.util.find_spec(module) is None:
            yield SystemFact(module, f"not installed: {purpose}", "note", f"pip install 'llm-training[{extra}]'")
        else:
            yield SystemFact(module, importlib.metadata.version(module.replace("_", "-")))
