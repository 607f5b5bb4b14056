"""Reading data in order to look at it: every document that can be read, an account of the others, nothing held out.

Splits are those that file names give; without such names everything trains. Bad records are counted, not fatal: finding
them is what one looks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import xxhash

from llm_training.corpus import Corpus, CorpusSettings, Document, Plan, ReadReport, SliceReader, make_plan, open_corpus, prepared_tokenizer
from llm_training.errors import ConfigError, DataError, IntegrityError
from llm_training.events import EventBus, Notice, Progress
from llm_training.jobs.dropped_documents import READ_STEP
from llm_training.storage.home import expanded
from llm_training.storage.reading import read_json
from llm_training.tokenizer import Tokenizer, load_tokenizer

STATISTICS_FILE = "stats.json"
_HASHES = 1 << 64
_MANY_FILES = 40
_SIZING = "Sizing up the text"
# What the group of a record is that lacks the field.
NO_FIELD = "(no such field)"
_BATCH_CHARACTERS = 1 << 21


@dataclass(frozen=True)
class Looked:
    """A document, and whether it belongs to the sample on which slow measures are taken."""

    document: Document
    is_measured: bool
    num_tokens: int | None


class DataReading:
    """Context manager over the documents of some sources.

    Attributes:
        num_bytes: size of the sources, bytes of content.
        num_files: files of the sources.
        report: what was dropped so far while reading.
    """

    def __init__(self, inputs: Sequence[str], *, text_field: str, bus: EventBus, measured_bytes: int) -> None:
        """Raises ConfigError, DataError (nothing there), StorageError."""
        if not inputs:
            raise ConfigError("no data was given", where="--data-file", remedy="give a file, a folder or a URI")
        settings = CorpusSettings(text_field=text_field, validation_fraction=0.0, skip_bad=True, max_bad_fraction=1.0)
        corpus = open_corpus(inputs, settings)
        plan = make_plan(corpus, notify=lambda line: bus.publish(Notice(message=line)))
        self.num_bytes = plan.num_bytes
        self.num_files = len(corpus.files)
        self._skipped = plan.skipped
        self._bus = bus
        num_text_bytes = plan.num_bytes if plan.num_bytes <= measured_bytes else self._most_text(corpus, plan, measured_bytes)
        self._limit = _HASHES if num_text_bytes <= measured_bytes else int(_HASHES * measured_bytes / num_text_bytes)
        self._reader = SliceReader(corpus, plan)

    def __enter__(self) -> DataReading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.close()

    @property
    def report(self) -> ReadReport:
        """Counts of the reading."""
        return self._reader.report

    @property
    def dropped(self) -> Counter[str]:
        """Files and records that could not be read, by reason."""
        return Counter(self._skipped) + self.report.dropped

    @property
    def is_sampled(self) -> bool:
        """True when only a part of the documents is measured."""
        return self._limit < _HASHES

    def documents(self, tokenizer: Tokenizer | None, task: str) -> Iterator[Looked]:
        """All documents in order, with their token counts. Raises DataError when there is none, or when they are token ids."""
        batch: list[Document] = []
        size = 0
        for document in self._watched(task):
            if document.token_ids is not None:
                raise DataError("token ids have no text to look at", where=document.source, remedy="give the text they were made from")
            batch.append(document)
            size += len(document.text)
            if size >= _BATCH_CHARACTERS:
                yield from self._looked(batch, tokenizer)
                batch, size = [], 0
        yield from self._looked(batch, tokenizer)

    def _looked(self, batch: Sequence[Document], tokenizer: Tokenizer | None) -> Iterator[Looked]:
        counts: Sequence[int | None] = [None] * len(batch)
        if tokenizer is not None and batch:
            _, offsets = tokenizer.encode_documents([document.text for document in batch])
            counts = (offsets[1:] - offsets[:-1]).tolist()
        for document, count in zip(batch, counts, strict=True):
            is_measured = not self.is_sampled or xxhash.xxh3_64_intdigest(document.text.encode()) < self._limit
            yield Looked(document, is_measured, count)

    def _watched(self, task: str) -> Iterator[Document]:
        shown = 0
        self._progress(task, shown)
        for document in self._reader.documents():
            if self.report.num_bytes != shown:
                shown = self.report.num_bytes
                self._progress(task, shown)
            yield document
        if shown != self.num_bytes:
            self._progress(task, self.num_bytes)

    def _progress(self, task: str, done: int) -> None:
        self._bus.publish(Progress(task=task, done=done, total=self.num_bytes, unit="B"))

    def _most_text(self, corpus: Corpus, plan: Plan, measured_bytes: int) -> int:
        """Bytes of text, from reading them: markup, other fields and bad records are no text, however large their files are.

        It is read no further than ``measured_bytes``; of what follows, everything counts as text.
        """
        text = others = seen = 0
        self._progress(_SIZING, seen)
        with closing(SliceReader(corpus, plan)) as reader:
            for document in reader.documents():
                if reader.report.num_bytes != seen:
                    others, seen = seen - text, reader.report.num_bytes
                    self._progress(_SIZING, seen)
                text += len(document.text.encode())
                if text > measured_bytes or document.token_ids is not None:
                    break
        self._progress(_SIZING, self.num_bytes)
        return text if text <= measured_bytes else max(text, self.num_bytes - others)


def tokenizer_beside(inputs: Sequence[str], spec: str | None) -> Tokenizer | None:
    """The tokenizer named, else the one that lies beside prepared data, else None. Raises ConfigError, IntegrityError."""
    if spec is not None:
        return load_tokenizer(spec)
    folder = _home(inputs)
    return load_tokenizer(folder) if folder is not None and (folder / "tokenizer.json").is_file() else None


def dropped_before(inputs: Sequence[str]) -> Counter[str]:
    """What the preparation of this data left out, by reason, from its ``stats.json``; empty for other data.

    What was left out while reading is called as it is here, where there is no other step.
    """
    folder = _home(inputs)
    if folder is None or not (folder / STATISTICS_FILE).is_file():
        return Counter()
    dropped = read_json(folder / STATISTICS_FILE).get("dropped", {})
    found: Counter[str] = Counter()
    for reason, count in dropped.items():
        found[str(reason).removeprefix(f"{READ_STEP}: ")] += int(count)
    return found


def _home(inputs: Sequence[str]) -> Path | None:
    """The prepared folder that the data is, or lies in."""
    places = {expanded(uri) for uri in inputs}
    folders = {place if place.is_dir() else place.parent for place in places}
    if len(folders) != 1:
        return None
    try:
        return prepared_tokenizer([str(folders.pop())])
    except IntegrityError:
        return None  # reading the data itself will say what is wrong


def grouping(group_by: str | None, num_files: int) -> tuple[str, Callable[[Document], str]]:
    """What documents are compared by, in words, and as a function: a field of the record, else the file, of many files the folder."""
    if group_by is not None:
        return group_by, lambda document: str(document.metadata.get(group_by, NO_FIELD))
    if num_files > _MANY_FILES:
        return "folder", lambda document: document.source.rpartition("/")[0] or document.source
    return "file", lambda document: document.source
