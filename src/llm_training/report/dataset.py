"""What a stream of documents is like, in bounded memory (besides 17 bytes a document for finding copies)."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import xxhash

from llm_training.report.runs import EXACT_WORDS, Run, WordRuns
from llm_training.report.sketches import Distribution, Repeats, Reservoir

NGRAM_SIZES: Final = (1, 2, 3, 5)
# From so many words on, runs that overlap one shown before are left out.
OVERLAPPING_WORDS: Final = 3
OTHER_GROUPS: Final = "(other)"
TRAIN: Final = "train"
# Runs among which those that do not overlap are looked for.
_RANKED_RUNS: Final = 400
_MAX_GROUPS: Final = 200
_KEPT_CHARACTERS: Final = 1_600
_WORD: Final = re.compile(r"\w+(?:['’]\w+)?")
# What ordinary text does not hold: the replacement character and control characters other than tab and line ends.
_GARBLED: Final = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Seen:
    """One document with what was measured on it; None is not measured.

    Attributes:
        group: what documents are compared by: the file, or a field of the record.
        quality: 0 to 1.
        reason: why it was dropped; empty for a kept one.
        whole_bytes: size of the text before it was cut for a sample.
    """

    id: str
    text: str
    group: str
    split: str = TRAIN
    num_tokens: int | None = None
    quality: float | None = None
    language: str | None = None
    reason: str = ""
    whole_bytes: int | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of UTF-8."""
        return len(self.text.encode(errors="replace")) if self.whole_bytes is None else self.whole_bytes


@dataclass
class Sizes:
    """Sums over some documents."""

    num_documents: int = 0
    num_bytes: int = 0
    num_words: int = 0
    num_tokens: int = 0

    def add(self, num_bytes: int, num_words: int, num_tokens: int) -> None:
        """Count one document."""
        self.num_documents += 1
        self.num_bytes += num_bytes
        self.num_words += num_words
        self.num_tokens += num_tokens


@dataclass
class DatasetStatistics:
    """Everything that the report shows about documents.

    Attributes:
        seed: fixes which documents are samples.
        exact_words: words up to which runs of them are counted exactly.
    """

    num_samples: int = 8
    seed: int = 0
    exact_words: int = EXACT_WORDS
    total: Sizes = field(default_factory=Sizes)
    by_split: dict[str, Sizes] = field(default_factory=dict)
    by_group: dict[str, dict[str, Sizes]] = field(default_factory=dict)
    words: Distribution = field(default_factory=Distribution)
    words_by_split: dict[str, Distribution] = field(default_factory=dict)
    bytes_per_token: Distribution = field(default_factory=Distribution)
    quality: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)
    num_measured: int = 0
    num_garbled: int = 0
    num_empty: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.runs = WordRuns(NGRAM_SIZES, max_words=self.exact_words)
        self.samples: Reservoir[Seen] = Reservoir(self.num_samples, self.seed)
        self.dropped_samples: dict[str, Reservoir[Seen]] = {}
        self._worst: list[tuple[float, int, Seen]] = []
        self._longest: list[tuple[int, int, Seen]] = []

    def add(self, document: Seen, *, is_measured: bool = True) -> None:
        """Count a kept document; ``is_measured`` when it belongs to the sample whose words are looked at."""
        words = document.text.split()
        num_bytes = document.num_bytes
        self._count(document, num_bytes, len(words))
        exact = xxhash.xxh3_64_intdigest(document.text.encode(errors="replace"))
        spaced = xxhash.xxh3_64_intdigest(" ".join(words).encode(errors="replace"))
        self.repeats.add(exact, spaced, is_held_out=document.split != TRAIN)
        self.num_empty += not words
        kept = _shortened(document)
        self.samples.add(kept)
        self._keep(self._longest, num_bytes, kept, 3)
        if is_measured:
            self._measure(document, kept)

    def add_dropped(self, document: Seen) -> None:
        """Keep a dropped document as a possible sample of its reason; counts come from :meth:`count_dropped`."""
        if document.reason not in self.dropped_samples and len(self.dropped_samples) >= _MAX_GROUPS:
            return
        self.dropped_samples.setdefault(document.reason, Reservoir(2, self.seed)).add(_shortened(document))

    def count_dropped(self, reason: str, count: int) -> None:
        """``count`` documents went for this reason."""
        self.dropped[reason] += count

    @property
    def worst(self) -> list[Seen]:
        """The documents of lowest quality, the lowest first."""
        return [document for _, _, document in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))]

    @property
    def longest(self) -> list[Seen]:
        """The longest documents, the longest first."""
        return [document for _, _, document in sorted(self._longest, key=lambda entry: (-entry[0], -entry[1]))]

    def top_runs(self, size: int, number: int) -> list[tuple[str, int]]:
        """The most frequent runs of ``size`` words, without those that are others moved by a few words."""
        return distinct_runs(self.runs.top(size, _RANKED_RUNS), number)

    def quality_quantile(self, fraction: float) -> float:
        """The score (in hundredths) that ``fraction`` of the measured documents do not exceed."""
        wanted, seen = fraction * self.quality.total(), 0
        for score in sorted(self.quality):
            seen += self.quality[score]
            if seen >= wanted:
                return score / 100
        return 0.0

    def _count(self, document: Seen, num_bytes: int, num_words: int) -> None:
        group = document.group if document.group in self.by_group or len(self.by_group) < _MAX_GROUPS else OTHER_GROUPS
        of_group = self.by_group.setdefault(group, {})
        for sizes in (
            self.total, self.by_split.setdefault(document.split, Sizes()), of_group.setdefault(document.split, Sizes())
        ):  # fmt: skip
            sizes.add(num_bytes, num_words, document.num_tokens or 0)
        self.words.add(num_words)
        self.words_by_split.setdefault(document.split, Distribution()).add(num_words)
        if document.num_tokens:
            self.bytes_per_token.add(num_bytes / document.num_tokens)

    def _measure(self, document: Seen, kept: Seen) -> None:
        self.num_measured += 1
        self.num_garbled += _GARBLED.search(document.text) is not None
        if document.quality is not None:
            self.quality[round(100 * document.quality)] += 1
            self._keep(self._worst, -document.quality, kept, self.num_samples)
        if document.language is not None:
            self.languages[document.language] += 1
        self.runs.add(found[0].lower() for found in _WORD.finditer(document.text))

    def _keep(self, heap: list[Any], rank: float, document: Seen, size: int) -> None:
        entry = (rank, -self.total.num_documents, document)  # of equals the earlier one stays
        if len(heap) < size:
            heapq.heappush(heap, entry)
        elif size and entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)

    def to_json(self) -> dict[str, Any]:
        """Plain values: what ``--json`` prints."""
        repeats = self.repeats.counts()
        return {
            "total": asdict(self.total),
            "by_split": {name: asdict(sizes) for name, sizes in self.by_split.items()},
            "by_group": {name: {split: asdict(sizes) for split, sizes in of.items()} for name, of in self.by_group.items()},
            "words_per_document": distribution_json(self.words),
            "bytes_per_token": distribution_json(self.bytes_per_token) if self.bytes_per_token.count else None,
            "repeats": asdict(repeats),
            "measured_documents": self.num_measured,
            "garbled_documents": self.num_garbled,
            "empty_documents": self.num_empty,
            "quality": {f"p{round(100 * share)}": self.quality_quantile(share) for share in (0.1, 0.5, 0.9)} if self.quality else None,
            "languages": dict(self.languages.most_common()) or None,
            "top_ngrams": {str(size): self.top_runs(size, 20) for size in NGRAM_SIZES},
            "top_ngrams_too_low_by": {str(size): self.runs.error(size) for size in NGRAM_SIZES},
            "dropped": dict(self.dropped.most_common()),
        }


def distinct_runs(ranked: Iterable[tuple[Run, int]], number: int) -> list[tuple[str, int]]:
    """The first runs of a ranking that are not a stretch of one taken before, moved by a few words.

    A sentence of ten words that comes often would otherwise fill six rows with itself.
    """
    taken: list[tuple[Run, int]] = []
    for run, count in ranked:
        if len(taken) == number:
            break
        if len(run) < OVERLAPPING_WORDS or not any(_overlap(run, other) for other, _ in taken):
            taken.append((run, count))
    return [(" ".join(run), count) for run, count in taken]


def _overlap(one: Run, other: Run) -> bool:
    """Whether the end of one is the beginning of the other, by half of its words or more."""
    size = len(one)
    return any(one[shift:] == other[: size - shift] or other[shift:] == one[: size - shift] for shift in range(size // 2 + 1))


def distribution_json(found: Distribution) -> dict[str, float]:
    """Count, mean, extremes and quantiles."""
    if not found.count:
        return {"count": 0}
    quantiles = {f"p{round(100 * share)}": round(found.quantile(share), 3) for share in (0.1, 0.5, 0.9, 0.99)}
    return {"count": found.count, "mean": round(found.mean, 3), "min": found.least, **quantiles, "max": found.greatest}


def _shortened(document: Seen) -> Seen:
    """The document as a sample: its beginning, and its size before the cut."""
    is_long = len(document.text) > _KEPT_CHARACTERS
    text = document.text[:_KEPT_CHARACTERS] + " …" if is_long else document.text
    return replace(document, text=text, whole_bytes=document.num_bytes)
