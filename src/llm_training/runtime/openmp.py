"""How long OpenMP threads wait actively for each other; to be said before torch is imported.

By default a thread that waits at the end of a parallel region keeps its core busy for milliseconds. That is right on an idle
machine and ruinous on a shared one: with one other process on a core, two threads then trained at a tenth of their speed. After
some ten thousand turns (a fraction of a millisecond, longer than the gaps between operations) they go to sleep instead: as fast
when idle, and three times faster when not (benchmarks/results/contended_cores.json).
"""

from __future__ import annotations

import os

SPIN_TURNS = "10000"


def wait_briefly() -> None:
    """Bound the active waiting of GNU's OpenMP runtime, unless the user has chosen a policy."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_TURNS)
