"""One slice of the plan, cleaned, in whatever process: documents kept, their keys, documents dropped, and the account.

A slice becomes four files in the working folder, the account last; a slice whose account is there is not cleaned again. Nothing in
them depends on the process, the machine or the order of slices.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from llm_training.cleaning import EXTRACTED, Cleaner, CleaningSettings, Outcome, Verdict, normalise
from llm_training.cleaning.contamination import ContaminationIndex
from llm_training.cleaning.shingles import NUM_BANDS, band_keys, content_key, shingles
from llm_training.cleaning.words import UInt64Array
from llm_training.corpus import TEST, TRAIN, VALIDATION, Corpus, Document, Plan, ReadReport, SliceReader
from llm_training.corpus.sources.kinds import kind_of
from llm_training.corpus.sources.record import HARMLESS_REASONS
from llm_training.jobs.contamination_tests import texts_of_tests
from llm_training.jobs.whole_documents import joined
from llm_training.storage.durable import write_bytes, write_json
from llm_training.storage.faults import crash_point

SPLIT_ORDER: Final = (TEST, VALIDATION, TRAIN)
# Rows of the key file after the two halves of the content key and the bands.
NUM_EXTRA_ROWS: Final = 3
_TEXTS_AT_ONCE: Final = 1_000
# What tells files of equal names apart.
_KEY_NUMBER: Final = re.compile(r"#\d+$")


# Places of records left out in reading that are listed: of bad ones, and of blank lines and the like.
MAX_PLACES: Final = 10_000
MAX_HARMLESS_PLACES: Final = 1_000
NOT_A_PAGE: Final = "not a page"  # requests and the like: every WARC file has one beside each page


@dataclass(frozen=True)
class SliceFiles:
    """Names of the files of one slice."""

    folder: Path
    number: int

    def _named(self, suffix: str) -> Path:
        return self.folder / f"slice-{self.number:06d}.{suffix}"

    @property
    def kept(self) -> Path:
        """Documents that stay so far, JSON Lines."""
        return self._named("jsonl")

    @property
    def keys(self) -> Path:
        """uint64 [2 + bands + 3, documents]: content key, bands, offset in ``kept``, place in SPLIT_ORDER, standing."""
        return self._named("keys")

    @property
    def dropped(self) -> Path:
        """Documents that went, with the reason, JSON Lines."""
        return self._named("dropped.jsonl")

    @property
    def account(self) -> Path:
        """Counts; the mark of a whole slice."""
        return self._named("account.json")


@dataclass
class BadRecords(ReadReport):
    """A report that remembers where the first records were that were left out; counts are of all.

    Attributes:
        places: reason and place of up to `MAX_PLACES` bad records and `MAX_HARMLESS_PLACES` others.
    """

    places: list[tuple[str, str]] = field(default_factory=list)
    num_harmless_places: int = 0

    def drop(self, reason: str, where: str, *, is_bad: bool) -> None:
        """See :class:`ReadReport`."""
        super().drop(reason, where, is_bad=is_bad)
        self.remember(reason, where)

    def remember(self, reason: str, where: str) -> None:
        """List a place while there is room for its kind."""
        if reason == NOT_A_PAGE:
            return
        is_harmless = reason in HARMLESS_REASONS
        num_bad_places = len(self.places) - self.num_harmless_places
        if self.num_harmless_places < MAX_HARMLESS_PLACES if is_harmless else num_bad_places < MAX_PLACES:
            self.places.append((reason, where))
            self.num_harmless_places += is_harmless


@dataclass(frozen=True)
class CleanSlices:
    """The job of a worker: a corpus, what to do with its texts, and where the results go.

    Attributes:
        settings: per-document rules.
        tests: files of tests that training documents must not hold.
        has_bands: near-duplicates are looked for later.
        keeps_dropped: write the text of what goes, too.
    """

    corpus: Corpus
    plan: Plan
    folder: Path
    settings: CleaningSettings
    tests: tuple[str, ...] = ()
    has_bands: bool = True
    keeps_dropped: bool = False

    def open(self) -> Callable[[int], int]:
        """The function that cleans a slice by number; it returns the bytes of source text read."""
        worker = _Worker(self)
        return worker.clean

    def files(self, number: int) -> tuple[Path, ...]:
        """What is there when slice ``number`` is cleaned."""
        files = SliceFiles(self.folder, number)
        return files.kept, files.keys, files.dropped, files.account


def is_prose(document: Document) -> bool:
    """False for source code, compressed or not: no rule for running text means anything in it."""
    return kind_of(Path(_KEY_NUMBER.sub("", document.source))) != "python"


class _Worker:
    def __init__(self, job: CleanSlices) -> None:
        self._job = job
        self._reader = SliceReader(job.corpus, job.plan)
        self._cleaner = Cleaner(job.settings)
        self._tests = ContaminationIndex(self._test_texts(job)) if job.tests else None

    @staticmethod
    def _test_texts(job: CleanSlices) -> Iterator[str]:
        """Those of the files, in the form that documents have when they are compared with them."""
        texts = texts_of_tests(job.tests)
        return (normalise(text)[0] for text in texts) if "normalise" in job.settings.steps else texts

    def clean(self, number: int) -> int:
        report = self._reader.report = BadRecords()
        is_named = self._job.plan.slices[number].split is not None
        result = _SliceResult(self._job.has_bands, self._job.keeps_dropped)
        for document in joined(self._reader.read_slice(number)):
            result.add(document, self._outcome(document), is_named=is_named)
        result.write(SliceFiles(self._job.folder, number), report)
        crash_point("prepare.after_slice")
        return report.num_bytes

    def _outcome(self, document: Document) -> Outcome:
        tests = self._tests.judge if self._tests is not None and document.split == TRAIN else None
        return self._cleaner.clean(document.text, is_prose=is_prose(document), tests=tests)


class _SliceResult:
    """What is gathered of one slice before it is written."""

    def __init__(self, has_bands: bool, keeps_dropped: bool) -> None:
        self._has_bands = has_bands
        self._keeps_dropped = keeps_dropped
        self._kept: list[bytes] = []
        self._dropped: list[bytes] = []
        self._content: list[tuple[int, int]] = []
        self._sets: list[UInt64Array] = []
        self._bands: list[UInt64Array] = []
        self._splits: list[int] = []
        self._standings: list[int] = []
        self._reasons: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._num_documents = self._num_characters = 0

    def add(self, document: Document, outcome: Outcome, *, is_named: bool) -> None:
        """Take in a document; ``is_named``: its split is that of its file or folder, not of its hash."""
        self._num_documents += 1
        self._num_characters += len(document.text)
        if outcome.verdict is not None:
            self._reasons[f"{outcome.verdict.step}: {outcome.verdict.reason}"] += 1
            self._dropped.append(dropped_line(_as_json(document, outcome), outcome.verdict, with_text=self._keeps_dropped))
            return
        self._changes.update(outcome.changes)
        self._content.append(content_key(outcome.text))
        if self._has_bands:
            self._sets.append(shingles(outcome.text))
            if len(self._sets) >= _TEXTS_AT_ONCE:
                self._key()
        self._splits.append(SPLIT_ORDER.index(document.split))
        self._standings.append(standing(document.split, is_named=is_named, is_extracted=EXTRACTED in outcome.changes))
        self._kept.append(orjson.dumps(_as_json(document, outcome)) + b"\n")

    def write(self, files: SliceFiles, report: BadRecords) -> None:
        write_bytes(files.kept, b"".join(self._kept))
        write_bytes(files.keys, self._keys().tobytes())
        write_bytes(files.dropped, b"".join(self._dropped))
        account = {
            "num_documents": self._num_documents,
            "num_characters": self._num_characters,
            "num_kept": len(self._kept),
            "num_bytes": report.num_bytes,
            "num_bad": report.num_bad,
            "reasons": dict(sorted(self._reasons.items())),
            "changes": dict(sorted(self._changes.items())),
            "left_out": dict(report.dropped),
            "places": report.places,
            "examples": report.examples,
            "num_replaced": report.num_replaced,
            "first_replaced": report.first_replaced,
        }
        write_json(files.account, account)

    def _key(self) -> None:
        self._bands.append(band_keys(self._sets))
        self._sets = []

    def _keys(self) -> UInt64Array:
        content = np.array(self._content, dtype=np.uint64).reshape(len(self._content), 2).T
        bands = np.empty((0, len(self._content)), dtype=np.uint64)
        if self._has_bands:
            self._key()
            bands = np.concatenate(self._bands, axis=1)
        offsets = np.cumsum([0, *map(len, self._kept)], dtype=np.uint64)[:-1]
        split, standings = (np.array(row, dtype=np.uint64)[None] for row in (self._splits, self._standings))
        return np.concatenate([content, bands, offsets[None], split, standings])


def standing(split: str, *, is_named: bool, is_extracted: bool) -> int:
    """Which of equal documents stays, the lowest: of a test or validation file or folder, for these lose nothing to training; then
    text as it was written before what was extracted of a page."""
    place = SPLIT_ORDER.index(split) if is_named else SPLIT_ORDER.index(TRAIN)
    return 2 * place + is_extracted


def num_rows(has_bands: bool) -> int:
    """Rows of a key file."""
    return 2 + (NUM_BANDS if has_bands else 0) + NUM_EXTRA_ROWS


def dropped_line(record: Mapping[str, Any], verdict: Verdict, *, with_text: bool) -> bytes:
    """A dropped document as a line of JSON; without its text only what names it."""
    shown = record if with_text else {key: record[key] for key in ("id", "source", "position", "split")}
    return orjson.dumps({**shown, "step": verdict.step, "reason": verdict.reason, "detail": verdict.detail}) + b"\n"


def bad_lines(bad: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """Records that could not be read (reason and place), as lines of JSON."""
    for reason, place in bad:
        yield orjson.dumps({"id": None, "source": place, "step": "read", "reason": reason}) + b"\n"


def _as_json(document: Document, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": document.id,
        "text": outcome.text,
        "source": document.source,
        "position": document.position,
        "split": document.split,
        "metadata": dict(document.metadata),
        "score": outcome.score,
        "is_continued": document.is_continued,
    }
