"""What can be measured on a document with the libraries at hand: quality, language, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Measures:
    """Measures that are there; ``missing`` says in one line each why another is not."""

    quality: Callable[[str], float] | None = None
    language: Callable[[str], str] | None = None
    missing: tuple[str, ...] = ()

    def watch(self, text: str, *, is_held_out: bool) -> None:
        """Show a document to the search for near-duplicates."""

    def near_duplicates(self) -> tuple[int, int] | None:
        """(documents that nearly repeat an earlier one, documents looked at); None when nobody looked."""
        return None


def available_measures(*, with_quality: bool = True, with_near_duplicates: bool = True) -> Measures:
    """The measures of this installation."""
    return Measures()
