"""Held-out files that repeat training files, found exactly: by windows of three lines.

A window is three consecutive non-blank lines, white space normalised. A held-out text more than half of whose
distinct windows occur in training texts would measure memory rather than learning, and is removed. Single lines would
accuse innocent files: ``return None`` is everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import xxhash

WINDOW_LINES = 3
MAX_SHARED_FRACTION = 0.5


def windows(text: str) -> set[int]:
    """Hashes of all windows of a text; a text of fewer lines is one window."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    last = max(1, len(lines) - WINDOW_LINES + 1)
    return {xxhash.xxh3_64_intdigest("\n".join(lines[start : start + WINDOW_LINES])) for start in range(last)}


def find_near_duplicates(training: Iterable[str], held_out: Mapping[str, str]) -> list[str]:
    """Names of the held-out texts that repeat training texts; memory is bounded by the held-out ones."""
    of_name = {name: windows(text) for name, text in held_out.items()}
    wanted = set().union(*of_name.values()) if of_name else set()
    shared: set[int] = set()
    for text in training:
        shared |= wanted & windows(text)
    return [name for name, own in of_name.items() if len(own & shared) > MAX_SHARED_FRACTION * len(own)]
