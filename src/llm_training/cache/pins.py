"""Which chunks a run reads, and in which order they number its rows: fixed when the run starts, extended only at joins.

A builder may add chunks, in any order of numbers, while a trainer reads. Row numbers must not move under the run, so the
run keeps a pin: the chunks it started with, ascending, then those of each join, ascending. The pin also holds a digest
of their contents, so that a run is never resumed over other tokens. It is small enough to lie in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_training.cache.sealed import digest
from llm_training.cache.view import PackedView
from llm_training.errors import DataError, IntegrityError


@dataclass(frozen=True)
class Pin:
    """Chunks in row order.

    Attributes:
        ranges: ``(first, last)`` chunk numbers, both included.
        num_rows: of all of them.
        digest: over number, content and rows of each.
    """

    ranges: tuple[tuple[int, int], ...]
    num_rows: int
    digest: str

    @property
    def numbers(self) -> list[int]:
        """Chunk numbers in row order."""
        return [number for first, last in self.ranges for number in range(first, last + 1)]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ranges": [list(pair) for pair in self.ranges], "num_rows": self.num_rows, "digest": self.digest}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Pin:
        """The pin of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        ranges = tuple((int(first), int(last)) for first, last in content["ranges"])
        return Pin(ranges, int(content["num_rows"]), str(content["digest"]))


@dataclass(frozen=True)
class Growth:
    """Rows recorded by a run and rows in the cache now. ``pin`` covers all of them, the recorded ones first."""

    old_sequences: int
    new_sequences: int
    pin: Pin

    @property
    def has_grown(self) -> bool:
        """True when there are rows the run does not know."""
        return self.new_sequences > self.old_sequences


def pin_all(view: PackedView) -> Pin:
    """All chunks of the view as it is now. Raises DataError when they have no rows at all."""
    pin = _pin(view, sorted(view.records))
    if not pin.num_rows:
        raise DataError("the cache holds no training rows", where=str(view.directory), remedy="add data or shorten the sequence length")
    return pin


def check_pin(view: PackedView, pin: Pin) -> None:
    """Raise IntegrityError unless the view still holds the chunks of the pin, with the same tokens and rows."""
    missing = [number for number in pin.numbers if number not in view.records]
    if missing:
        what = f"{len(missing)} chunks of the run are missing from the cache, the first is {missing[0]}"
        raise IntegrityError(what, where=str(view.directory), remedy="rebuild them: llm-build-cache SOURCE --mode inverse")
    if _pin(view, pin.numbers) != pin:
        what = "the cache holds other tokens or rows than the run was started with"
        raise IntegrityError(what, where=str(view.directory), remedy="restore the cache, or start a new run")


def find_growth(view: PackedView, recorded: Pin) -> Growth:
    """Compare what a run recorded with the cache now. Raises IntegrityError as `check_pin`."""
    check_pin(view, recorded)
    pin = _pin(view, [*recorded.numbers, *sorted(set(view.records) - set(recorded.numbers))])
    return Growth(recorded.num_rows, pin.num_rows, pin)


def _pin(view: PackedView, numbers: list[int]) -> Pin:
    records = [view.records[number] for number in numbers]
    content = [[record.number, record.content, record.num_rows] for record in records]
    settings = view.settings
    facts = [settings.tokenizer, settings.sequence_length, settings.strategy, content]
    return Pin(_ranges(numbers), sum(record.num_rows for record in records), digest(facts))


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)
