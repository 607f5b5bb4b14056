"""Cleaning on the way into training: the steps that look at one document alone, applied as documents are read.

What compares documents with each other needs all of them at once and is the job of ``llm-prepare-data``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from llm_training.cache.store import LeftOut
from llm_training.cleaning import RULES_VERSION, Cleaner, CleaningSettings
from llm_training.config.data import DataConfig
from llm_training.corpus import Document, ReadReport, SliceReader
from llm_training.errors import ConfigError
from llm_training.jobs.clean_corpus import configured_cleaning, plain_values
from llm_training.jobs.clean_slices import is_prose


@dataclass(frozen=True)
class CleanReading:
    """Settings of the cleaning in reading; None changes nothing. It goes to worker processes."""

    settings: CleaningSettings | None

    def identity(self) -> list[Any]:
        """What names it in the identity of a cache; empty for no cleaning."""
        return [] if self.settings is None else [RULES_VERSION, plain_values(asdict(self.settings))]

    def opened(self) -> Callable[[Iterator[Document]], Iterator[Document]]:
        """A function from documents to those that stay, as they are then. Raises ConfigError for a missing library."""
        if self.settings is None:
            return lambda documents: documents
        return _Cleaned(Cleaner(self.settings))

    def of_slices(self, reader: SliceReader) -> CleanedSlices:
        """The same for a reader of slices. Raises ConfigError."""
        return CleanedSlices(reader, self.opened())


class CleanedSlices:
    """Documents of a slice that are to be packed, with an account of the others."""

    def __init__(self, reader: SliceReader, clean: Callable[[Iterator[Document]], Iterator[Document]]) -> None:
        self._reader = reader
        self._clean = clean

    def __call__(self, number: int) -> Iterator[Document]:
        """The documents of slice ``number``; errors as those of `SliceReader.read_slice`."""
        self._reader.report = ReadReport()
        if isinstance(self._clean, _Cleaned):
            self._clean.dropped.clear()
        return self._clean(self._reader.read_slice(number))

    def left_out(self) -> LeftOut | None:
        """Of the slice read last: bad documents, those that cleaning took out, and those with bytes replaced."""
        report = self._reader.report
        cleaned = self._clean.dropped if isinstance(self._clean, _Cleaned) else Counter[str]()
        reasons = {**report.dropped, **cleaned}
        if not reasons and not report.num_replaced:
            return None
        example = next(iter(report.examples), "")
        return LeftOut(report.num_bad, dict(sorted(reasons.items())), example, report.num_replaced, report.first_replaced)


class _Cleaned:
    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner
        self.dropped: Counter[str] = Counter()

    def __call__(self, documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            if document.token_ids is not None:
                yield document
                continue
            outcome = self._cleaner.clean(document.text, is_prose=is_prose(document))
            if outcome.verdict is None:
                yield replace(document, text=outcome.text)
            else:
                self.dropped[f"{outcome.verdict.step}: {outcome.verdict.reason}"] += 1


def clean_reading(data: DataConfig) -> CleanReading:
    """What ``data`` asks for. Raises ConfigError for steps that only ``llm-prepare-data`` can do, and for unknown ones."""
    remedy = "run llm-prepare-data first and train on its folder"
    if data.decontaminate:
        raise ConfigError("data.decontaminate is given, but a training run does not compare documents", remedy=remedy)
    plan = configured_cleaning(data, auto=())
    if plan is None:
        return CleanReading(None)
    if plan.deduplicate or plan.near_similarity is not None:
        raise ConfigError("data.cleaning asks to remove duplicates, but a training run does not compare documents", remedy=remedy)
    return CleanReading(plan.settings)
