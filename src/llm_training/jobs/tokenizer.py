"""Job: train a tokenizer on texts and measure it on the held-out ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_training.corpus import TRAIN, VALIDATION, CorpusSettings, Document, SliceReader, make_plan, open_corpus
from llm_training.errors import ConfigError
from llm_training.events import EventBus, Notice, Progress
from llm_training.storage.durable import make_directory
from llm_training.storage.locks import FileLock
from llm_training.tokenizer import Tokenizer, TokenizerReport, measure_tokenizer, train_tokenizer

LOCK_NAME = ".tokenizer.lock"


@dataclass(frozen=True)
class TokenizerResult:
    """Where the tokenizer lies and how well it fits held-out text."""

    output: str
    report: TokenizerReport


def train_tokenizer_job(
    inputs: Sequence[str],
    output: str,
    *,
    vocab_size: int,
    min_frequency: int = 2,
    max_training_bytes: int = 16_000_000,
    text_field: str = "text",
    skip_bad: bool = False,
    bus: EventBus | None = None,
) -> TokenizerResult:
    """Train on the training documents of the sources, save, measure on the validation documents.

    Raises:
        ConfigError: no source, or a vocabulary size out of range.
        DataError: no documents, bad ones in a strict reading, or too little text for the vocabulary.
        LockedError: another process trains to the same folder.
        StorageError: the disk refuses.
    """
    if not inputs:
        raise ConfigError("no source of text was given", where="--input", remedy="give a file, a folder or a URI")
    bus = bus or EventBus()
    directory = Path(output)
    make_directory(directory)
    with FileLock(directory / LOCK_NAME, what=f"the tokenizer {output}"):
        corpus = open_corpus(inputs, CorpusSettings(text_field=text_field, skip_bad=skip_bad))
        plan = make_plan(corpus, notify=lambda line: bus.publish(Notice(message=line)))
        reader = SliceReader(corpus, plan)
        try:
            began = time.perf_counter()
            tokenizer = train_tokenizer(
                (document.text for document in _watched(reader.documents(TRAIN), reader, plan.num_bytes, bus)),
                vocab_size,
                min_frequency=min_frequency,
                max_training_bytes=max_training_bytes,
            )
            seconds = time.perf_counter() - began
            tokenizer.save(directory)
            return TokenizerResult(output, _measure(tokenizer, reader, seconds))
        finally:
            reader.close()


def _watched(documents: Iterator[Document], reader: SliceReader, total: int, bus: EventBus) -> Iterator[Document]:
    shown = -1
    for document in documents:
        if reader.report.num_bytes != shown:
            shown = reader.report.num_bytes
            bus.publish(Progress(task="Training the tokenizer", done=shown, total=total, unit="B"))
        yield document
    if shown != total:
        bus.publish(Progress(task="Training the tokenizer", done=total, total=total, unit="B"))


def _measure(tokenizer: Tokenizer, reader: SliceReader, seconds: float) -> TokenizerReport:
    """On validation documents; a corpus that holds none out is measured on nothing, and the report says 0 documents."""
    held_out = (
        (document.source.split("/")[0], document.text)
        for piece in reader.plan.slices
        if piece.split in (None, VALIDATION)
        for document in reader.read_slice(piece.number)
        if document.split == VALIDATION
    )
    return measure_tokenizer(tokenizer, held_out, seconds=seconds)
