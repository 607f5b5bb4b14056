"""Job: train a tokenizer on texts and measure it on the held-out ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_training.corpus import SKIP_BAD, TEXT_FIELD, TRAIN, VALIDATION, CorpusSettings, Document, SliceReader, make_plan, open_corpus
from llm_training.corpus.sources.prepared import TOKENIZER_KIND, TOKENIZER_NAMES, TOKENIZER_REPORT, own_tokenizer_files
from llm_training.errors import ConfigError, IntegrityError, StorageError
from llm_training.events import EventBus, Notice, Progress
from llm_training.jobs.own_folder import refuse_source_as_output, removed_when_empty
from llm_training.jobs.plan_files import tell_skipped
from llm_training.storage.durable import json_bytes, remove_file, write_bytes
from llm_training.storage.locks import FileLock
from llm_training.storage.manifest import MANIFEST_NAME, read_manifest, write_manifest
from llm_training.tokenizer import DEFAULT_PATTERN, Tokenizer, TokenizerReport, measure_tokenizer, require_trainable, train_tokenizer

LOCK_NAME = ".tokenizer.lock"
REPORT_FILE = TOKENIZER_REPORT
# Files of tokenizers that this job does not write; beside its own they would make two tokenizers of one folder.
_OTHER_NAMES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "added_tokens.json")


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
    pattern: str = DEFAULT_PATTERN,
    text_field: str = "text",
    skip_bad: bool = False,
    bus: EventBus | None = None,
) -> TokenizerResult:
    """Train on the training documents of the sources, measure on the validation documents, save both.

    The folder gets the tokenizer, ``tokenizer_report.json``, and last a manifest with their hashes.

    Raises:
        ConfigError: no source, a vocabulary size out of range, an unknown pattern, a folder that is a source or holds
            a tokenizer that this job did not write.
        DataError: no documents, bad ones in a strict reading, or too little text for the vocabulary.
        LockedError: another process trains to the same folder.
        StorageError: the disk refuses.
    """
    if not inputs:
        raise ConfigError("no source of text was given", where="--input", remedy="give a file, a folder or a URI")
    require_trainable(vocab_size, pattern)
    bus = bus or EventBus()
    directory = Path(output)
    refuse_source_as_output(inputs, directory)
    with removed_when_empty(directory), FileLock(directory / LOCK_NAME, what=f"the tokenizer {output}"):
        _require_own(directory)
        corpus = open_corpus(inputs, CorpusSettings(text_field=text_field, skip_bad=skip_bad, flags=(SKIP_BAD, TEXT_FIELD)))
        plan = make_plan(corpus, notify=lambda line: bus.publish(Notice(message=line)))
        tell_skipped(plan, bus)
        reader = SliceReader(corpus, plan)
        try:
            began = time.perf_counter()
            tokenizer = train_tokenizer(
                (document.text for document in _watched(reader.documents(TRAIN), reader, plan.num_bytes, bus)),
                vocab_size,
                min_frequency=min_frequency,
                max_training_bytes=max_training_bytes,
                pattern=pattern,
                notify=lambda line: bus.publish(Notice(message=line, level="warning")),
            )
            report = _measure(tokenizer, reader, time.perf_counter() - began)
            _tell_replaced(tokenizer, directory, bus)
            _save(tokenizer, report, directory)
            return TokenizerResult(output, report)
        finally:
            reader.close()


def _require_own(directory: Path) -> None:
    """Refuse a folder with another program's tokenizer: some of its files would stay beside the new ones."""
    own = own_tokenizer_files(directory)
    foreign = [name for name in (*TOKENIZER_NAMES, *_OTHER_NAMES) if name not in own and os.path.lexists(directory / name)]
    if foreign:
        what = f"the folder holds {foreign[0]}, which llm-train-tokenizer did not write"
        raise ConfigError(what, where=str(directory), remedy="choose another --output")


def _tell_replaced(tokenizer: Tokenizer, directory: Path, bus: EventBus) -> None:
    """Another tokenizer in the folder goes: what was encoded with it is read by it alone."""
    try:
        before = read_manifest(directory).extra.get("fingerprint")
    except (IntegrityError, StorageError):
        return  # nothing there, or nothing that can be used
    if before not in (None, tokenizer.fingerprint):
        line = f"{directory} held another tokenizer ({str(before)[:8]}), which is replaced: a cache built with it cannot grow without it"
        bus.publish(Notice(message=line, level="warning"))


def _save(tokenizer: Tokenizer, report: TokenizerReport, directory: Path) -> None:
    """The manifest goes first and comes last: at no moment does it speak of other files than those that are there."""
    if (directory / MANIFEST_NAME).exists():
        remove_file(directory / MANIFEST_NAME)
    files = {REPORT_FILE: json_bytes(report.to_json()), **tokenizer.files()}  # the report shows whose the others are
    records = {name: write_bytes(directory / name, content) for name, content in files.items()}
    write_manifest(directory, records, extra={"kind": TOKENIZER_KIND, "fingerprint": tokenizer.fingerprint})


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
    sources = reader.plan.sources
    held_out = (
        (sources[piece.source].uri if len(sources) > 1 else _part_of_source(document.source), document.text)
        for piece in reader.plan.slices
        if piece.split in (None, VALIDATION)
        for document in reader.read_slice(piece.number)
        if document.split == VALIDATION
    )
    return measure_tokenizer(tokenizer, held_out, seconds=seconds)


def _part_of_source(key: str) -> str:
    """Of a single source its folders, or its files where it has none."""
    parts = key.split("/")
    return parts[1] if len(parts) > 1 else parts[0]
