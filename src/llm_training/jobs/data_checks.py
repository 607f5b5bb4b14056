"""The checks of data, each a function from what was watched to findings; a table of them by name."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import xxhash

from llm_training.corpus import TEST, TRAIN, VALIDATION
from llm_training.jobs.data_measures import Measures
from llm_training.jobs.near_repeats import NearCounts
from llm_training.report.numbers import plural, share
from llm_training.report.sketches import Distribution, Repeats

_GARBLED: Final = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MAX_EXAMPLES: Final = 5
# Kinds of examples.
BAD_RECORDS, REPEATED_IDS, LOW_QUALITY, GARBLED = "bad records", "ids that came before", "low quality", "garbled"
SHORT, LARGEST, COPIES, NEAR_DUPLICATES = "short", "largest", "copies", "near-duplicates"
LEAKS, NEAR_LEAKS = "leaks", "near leaks"
# Texts whose names are remembered, so that the first copies of them can be named.
_REMEMBERED: Final = 50_000
# With fewer documents than this, one of them is naturally a large share, and two lengths differ by chance.
_FEW_DOCUMENTS: Final = 20
_ENOUGH_TO_COMPARE: Final = 100


@dataclass(frozen=True)
class Thresholds:
    """What is allowed. Fractions are of the documents that could be read unless another whole is named."""

    max_bad_fraction: float = 0.0
    max_repeated_id_fraction: float = 0.0
    max_duplicate_fraction: float = 0.01
    max_near_duplicate_fraction: float = 0.05
    max_leaked_documents: int = 0
    max_near_leaked_fraction: float = 0.05
    min_words: int = 5
    max_short_fraction: float = 0.05
    max_document_share: float = 0.5
    max_split_shift: float = 0.3
    min_quality: float = 0.5
    max_low_quality_fraction: float = 0.1
    max_garbled_fraction: float = 0.01


@dataclass(frozen=True)
class Finding:
    """One measure. ``value`` and ``limit`` are fractions, or whole numbers when ``is_count``; more than the limit is too much.

    ``kind`` is that of the examples that show it; empty for none.
    """

    check: str
    measure: str
    value: float
    limit: float
    flag: str
    kind: str = ""
    is_count: bool = False

    @property
    def is_good(self) -> bool:
        """True within the limit."""
        return self.value <= self.limit

    @property
    def shown_value(self) -> str:
        """For readers."""
        return f"{self.value:,.0f}" if self.is_count else share(self.value, 1)

    @property
    def shown_limit(self) -> str:
        """For readers."""
        return f"{self.limit:,.0f}" if self.is_count else share(self.limit, 1)


@dataclass
class Watched:
    """What one pass over the documents leaves behind; 25 bytes a document, and what near-duplicates need."""

    limits: Thresholds
    measures: Measures
    num_documents: int = 0
    num_bytes: int = 0
    largest_bytes: int = 0
    num_short: int = 0
    num_measured: int = 0
    num_low_quality: int = 0
    num_garbled: int = 0
    num_bad: int = 0
    bad_reasons: Counter[str] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)
    lengths: dict[str, Distribution] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = array("Q")
        self._names: dict[int, tuple[str, bool]] = {}
        self._seen_ids: set[str] = set()
        self._largest = ""

    def add(self, name: str, text: str, num_words: int, exact: int, spaced: int, split: str, *, is_measured: bool) -> None:
        """Count one document."""
        self.num_documents += 1
        num_bytes = len(text.encode())
        self.num_bytes += num_bytes
        if num_bytes > self.largest_bytes:
            self.largest_bytes, self._largest = num_bytes, name
        if num_words < self.limits.min_words:
            self.num_short += 1
            self._example(SHORT, f"{name} ({plural(num_words, 'word')})")
        self.repeats.add(exact, spaced, is_held_out=split != TRAIN)
        self.lengths.setdefault(split, Distribution()).add(num_words)
        self._ids.append(xxhash.xxh3_64_intdigest(name.encode(errors="replace")))
        self._remember(name, spaced, is_held_out=split != TRAIN)
        if self.measures.near_repeats is not None:
            self.measures.near_repeats.add(text, name=name, is_held_out=split != TRAIN)
        if is_measured:
            self.num_measured += 1
            if found := _GARBLED.search(text):
                self.num_garbled += 1
                self._example(GARBLED, f"{name} (U+{ord(found[0]):04X} at character {found.start():,})")
            if self.measures.quality is not None and (score := self.measures.quality(text)) < self.limits.min_quality:
                self.num_low_quality += 1
                self._example(LOW_QUALITY, f"{name} ({score:.2f})")

    @cached_property
    def near(self) -> NearCounts | None:
        """Near-duplicates, when they were looked for."""
        found = self.measures.near_repeats.counts() if self.measures.near_repeats is not None else None
        if found is not None:
            self.examples[NEAR_DUPLICATES] = list(found.examples)
            self.examples[NEAR_LEAKS] = list(found.leaked_examples)
        return found

    def largest_share(self) -> float:
        """Bytes of the largest document, of all; it becomes an example when that is too much."""
        found = self.largest_bytes / max(1, self.num_bytes)
        if found > self.limits.max_document_share:
            self.examples[LARGEST] = [f"{self._largest} ({self.largest_bytes:,} bytes)"]
        return found

    def num_repeated_ids(self) -> int:
        """Documents whose id an earlier one has."""
        return len(self._ids) - len(np.unique(np.frombuffer(self._ids, dtype=np.uint64)))

    def _remember(self, name: str, spaced: int, *, is_held_out: bool) -> None:
        if name in self._seen_ids:
            self._example(REPEATED_IDS, name)
        elif len(self._seen_ids) < _REMEMBERED:
            self._seen_ids.add(name)
        first, was_held_out = self._names.get(spaced, (None, False))
        if first is not None:
            self._example(COPIES, f"{name} repeats {first}")
            if is_held_out != was_held_out:
                self._example(LEAKS, f"{name} repeats {first}")
        elif len(self._names) < _REMEMBERED:
            self._names[spaced] = name, is_held_out

    def _example(self, kind: str, text: str) -> None:
        some = self.examples.setdefault(kind, [])
        if len(some) < _MAX_EXAMPLES:
            some.append(text)


def schema(watched: Watched) -> Iterator[Finding]:
    """Records that cannot be read as documents, and ids that come twice."""
    limits, total = watched.limits, watched.num_documents
    bad = watched.num_bad / max(1, watched.num_bad + total)
    yield Finding("schema", "records that cannot be read", bad, limits.max_bad_fraction, "--max-bad-fraction", BAD_RECORDS)
    repeated = watched.num_repeated_ids() / max(1, total)
    yield Finding(
        "schema",
        "documents with an id that came before",
        repeated,
        limits.max_repeated_id_fraction,
        "--max-repeated-id-fraction",
        REPEATED_IDS,
    )


def quality(watched: Watched) -> Iterator[Finding]:
    """Scores below the least wanted, and places that were not decoded rightly."""
    limits, total = watched.limits, max(1, watched.num_measured)
    if watched.measures.quality is not None:
        low = watched.num_low_quality / total
        yield Finding(
            "quality",
            f"documents scoring below {limits.min_quality:g}",
            low,
            limits.max_low_quality_fraction,
            "--max-low-quality-fraction",
            LOW_QUALITY,
        )
    garbled = watched.num_garbled / total
    yield Finding(
        "quality",
        "documents with control or replacement characters",
        garbled,
        limits.max_garbled_fraction,
        "--max-garbled-fraction",
        GARBLED,
    )


def distribution(watched: Watched) -> Iterator[Finding]:
    """Documents too short to learn from, one document that is most of the text, splits of different lengths."""
    limits, total = watched.limits, max(1, watched.num_documents)
    short = watched.num_short / total
    yield Finding(
        "distribution",
        f"documents of fewer than {limits.min_words} words",
        short,
        limits.max_short_fraction,
        "--max-short-fraction",
        SHORT,
    )
    if watched.num_documents >= _FEW_DOCUMENTS:
        largest = watched.largest_share()
        yield Finding("distribution", "largest document, of all text", largest, limits.max_document_share, "--max-document-share", LARGEST)
    training = watched.lengths.get(TRAIN)
    for split in (VALIDATION, TEST):
        other = watched.lengths.get(split)
        if training and other and min(training.count, other.count) >= _ENOUGH_TO_COMPARE:
            shift = training.distance(other)
            yield Finding("distribution", f"shift of lengths, train to {split}", shift, limits.max_split_shift, "--max-split-shift")


def duplicates(watched: Watched) -> Iterator[Finding]:
    """Copies, white space aside, and texts that nearly repeat another."""
    limits, found = watched.limits, watched.repeats.counts()
    copies = (found.num_copies + found.num_spaced_copies) / max(1, found.num_documents)
    yield Finding("duplicates", "copies of another document", copies, limits.max_duplicate_fraction, "--max-duplicate-fraction", COPIES)
    yield from _near(watched)


def _near(watched: Watched) -> Iterator[Finding]:
    near = watched.near
    if near is not None:
        measure, value = "near-duplicates of another document", near.num_near / max(1, near.num_documents)
        yield Finding(
            "duplicates",
            measure,
            value,
            watched.limits.max_near_duplicate_fraction,
            "--max-near-duplicate-fraction",
            NEAR_DUPLICATES,
        )


def leakage(watched: Watched) -> Iterator[Finding]:
    """Held-out texts that are also trained on."""
    found = watched.repeats.counts()
    if not found.num_held_out:
        watched.skipped.append("leakage: nothing is held out in this data")
        return
    yield Finding(
        "leakage",
        "held-out documents that are also training documents",
        found.num_leaked,
        watched.limits.max_leaked_documents,
        "--max-leaked-documents",
        LEAKS,
        is_count=True,
    )
    near = watched.near
    if near is not None:
        measure, value = "held-out documents that nearly repeat training", near.num_leaked / max(1, near.num_held_out)
        yield Finding("leakage", measure, value, watched.limits.max_near_leaked_fraction, "--max-near-leaked-fraction", NEAR_LEAKS)


CHECKS: Final[Mapping[str, Callable[[Watched], Iterator[Finding]]]] = {
    "schema": schema,
    "quality": quality,
    "distribution": distribution,
    "duplicates": duplicates,
    "leakage": leakage,
}
