"""What a figure was measured on: processor, memory, versions, date, commit, load; and the ceiling of matrix products.

Imports nothing but the standard library at the top, so that it runs where only torch is installed.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "numpy", "pyarrow", "tokenizers", "fastokens", "safetensors", "transformers", "rich", "cyclopts", "pydantic")


def machine_facts() -> dict[str, Any]:
    """Everything a reader needs to judge a figure, as plain values."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "usable_cores": _usable_cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def measure_ceiling(seconds: float = 0.5) -> dict[str, float]:
    """Best matrix-product rate of this process now, in TFLOP/s, for fp32 and bf16 (the MFU of this run is against the latter)."""
    from llm_training.runtime.device import Precision, choose_device
    from llm_training.runtime.peak import measure_matmul_flops

    device = choose_device("auto")
    return {name: round(measure_matmul_flops(device, Precision(name, "as asked"), seconds=seconds) / 1e12, 3) for name in ("fp32", "bf16")}


def _commit() -> str:
    """The commit, marked when the tree has changes (results themselves apart)."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py", "pyproject.toml")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}{'+changes' if changes else ''}"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    extras = [
        label for flag, label in (("amx_bf16", "AMX bf16"), ("avx512_bf16", "AVX512 bf16"), ("avx512f", "AVX512")) if f" {flag}" in flags
    ]
    return f"{names[0] if names else platform.machine()} ({', '.join(extras) or 'no AVX512'})"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
