"""How many cores this process may use."""

from __future__ import annotations

import contextlib
import os


def usable_cores() -> int:
    """Cores this process may run on: the affinity mask, bounded by the cgroup's quota where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as quota_file:  # noqa: PTH123
        quota, period = quota_file.read().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores
