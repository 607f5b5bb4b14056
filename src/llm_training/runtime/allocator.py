"""Keep large blocks inside the process, so that a training step does not page-fault its activations again.

glibc serves every allocation above a threshold by ``mmap`` and gives it back by ``munmap``; a step that allocates and
frees hundreds of megabytes of activations then pays a page fault per 4 KiB, every step. ``mallopt`` switches that off
for the running process: no environment variable, no preloaded library, nothing for the user to set.

Huge pages: torch's CPU allocator asks for transparent huge pages when ``THP_MEM_ALLOC_ENABLE`` is set before its first
allocation, which the kernel grants where its policy is ``madvise`` or ``always``.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD = -1  # free memory at the top of the heap above which it is returned to the system
M_MMAP_MAX = -4  # number of blocks that may live outside the heap in mappings of their own
LARGEST_INT = 2**31 - 1


def prefer_huge_pages() -> None:
    """Let torch's CPU allocator ask for huge pages. Has an effect only before torch's first allocation."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_large_blocks() -> str | None:
    """Stop glibc from mapping and unmapping every large block.

    Returns:
        None when it is done, else the reason why it is not (another C library, a replaced allocator); harmless.
    """
    if not sys.platform.startswith("linux"):
        return f"no mallopt on {sys.platform}"
    if any(name in os.environ.get("LD_PRELOAD", "") for name in ("tcmalloc", "jemalloc", "mimalloc")):
        return "another allocator is preloaded"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return "the C library has no mallopt"
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    if not mallopt(M_MMAP_MAX, 0) or not mallopt(M_TRIM_THRESHOLD, LARGEST_INT):
        return "mallopt refused"
    return None
