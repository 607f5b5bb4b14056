"""Job: texts into train and validation files with a tokenizer beside them.

The folder holds ``train.json`` and ``validation.json`` (JSON Lines; ``test.json`` when the sources have a test split; Parquet shards on
request), the tokenizer (``tokenizer.json`` and what transformers reads beside it, ``vocab.json`` and ``merges.txt``),
``stats.json``, and, written last, ``manifest.json``. With a given tokenizer the token ids are written too, as text
(``train.ids``). Same input and settings give the same bytes, whatever the number of workers and however often it was killed before.
Documents keep their id and metadata.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from llm_training.config.data import Engine
from llm_training.corpus import TEST, TRAIN, VALIDATION, Corpus, CorpusSettings, Document, Plan, SliceReader, make_plan
from llm_training.errors import ConfigError, DataError
from llm_training.events import EventBus, Notice, Progress
from llm_training.jobs.clean_corpus import WORK_FOLDER, CleanedCorpus, CleaningPlan, clean_corpus, no_unused_work
from llm_training.jobs.clean_slices import BadRecords, bad_lines
from llm_training.jobs.contamination_tests import require_tests
from llm_training.jobs.document_writer import FORMATS, DocumentWriter
from llm_training.jobs.left_out import tell_replaced
from llm_training.jobs.own_folder import refuse_source_as_output, removed_when_empty
from llm_training.jobs.prepare_sources import open_held_out
from llm_training.jobs.prepared_folder import PreparedFolder
from llm_training.jobs.whole_documents import joined, with_whole_documents
from llm_training.storage.durable import make_directory, remove_tree, write_stream
from llm_training.tokenizer import Tokenizer, load_tokenizer, require_trainable, train_tokenizer

# Text that a tokenizer of this many entries is worth training on, bytes; the last one that fits is taken.
VOCABULARIES = ((0, 4_096), (20_000_000, 8_192), (200_000_000, 16_384), (2_000_000_000, 32_768), (20_000_000_000, 49_152))
SHORTEST_LENGTH = 8
MOST_WORKERS: Final = 1_024
REPLACED: Final = "read with U+FFFD for bytes that are no UTF-8"
DROPPED_FILE: Final = "dropped.jsonl"
# Small enough that two workers end at about the same time.
_SLICE_BYTES: Final = 2 << 20
_DOCUMENTS_PER_LINE: Final = 500


@dataclass(frozen=True)
class TokenizerChoice:
    """An existing tokenizer: a spec as `load_tokenizer` takes it, or GPT-2's two files."""

    spec: str | None = None
    vocab: str | None = None
    merges: str | None = None

    def load(self) -> Tokenizer:
        """Raises ConfigError, IntegrityError."""
        if self.spec is not None:
            return load_tokenizer(self.spec)
        assert self.vocab is not None and self.merges is not None
        return Tokenizer.from_files(self.vocab, self.merges)


def chosen_tokenizer(*, vocab: str | None = None, merges: str | None = None, tokenizer: str | None = None) -> TokenizerChoice | None:
    """The existing tokenizer that the flags name; None when one is to be trained. Raises ConfigError."""
    if tokenizer is not None and (vocab is not None or merges is not None):
        raise ConfigError("--tokenizer and --vocab/--merges are both given", remedy="give one of them")
    if (vocab is None) != (merges is None):
        raise ConfigError("--vocab and --merges belong together", remedy="give both files")
    return None if tokenizer is None and vocab is None else TokenizerChoice(tokenizer, vocab, merges)


@dataclass(frozen=True)
class PrepareResult:
    """What was written.

    Attributes:
        splits: documents, bytes and tokens of each split by name.
        dropped: documents that went, by ``step: reason``.
        changes: documents or stretches changed, by kind.
        bad: reason and place of the first records left out in reading: 10,000 bad ones, 1,000 blank lines and the like.
        num_documents: documents that were read.
        num_leaks: training documents that stand in another split too.
    """

    output: str
    files: tuple[str, ...]
    splits: dict[str, dict[str, Any]]
    dropped: dict[str, int]
    vocab_size: int
    tokenizer: str
    changes: dict[str, int] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    num_documents: int = 0
    num_leaks: int = 0

    def facts(self) -> dict[str, str]:
        """Lines for people."""
        shown = {
            name.capitalize(): f"{split['num_documents']:,} documents, {split['num_bytes']:,} bytes" for name, split in self.splits.items()
        }
        shown["Tokenizer"] = f"{self.vocab_size:,} entries, fingerprint {self.tokenizer[:8]}"
        if self.changes:
            shown["Changed"] = ", ".join(f"{count:,} {kind}" for kind, count in self.changes.items())
        if self.num_leaks:
            shown["Leaks"] = f"{self.num_leaks:,} training documents stand in another split too"
        return shown | {"Written": f"{self.output}: {', '.join(self.files)}"}

    def reasons(self) -> list[tuple[str, str, str, str]]:
        """Step, reason, number and share of documents of everything that went, most frequent first."""
        unread = sum(count for name, count in self.dropped.items() if name.startswith("read: "))
        total = max(1, self.num_documents + unread)
        rows: list[tuple[str, str, str, str]] = []
        for name, count in sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])):
            step, _, reason = name.partition(": ")
            rows.append((step, reason, f"{count:,}", f"{count / total:.2%}"))
        return rows


class Texts(Protocol):
    """Documents to be written, cleaned or as they are."""

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """Those of one split, or all."""
        ...


def prepare(
    input: Sequence[str],
    output: str,
    *,
    vocab_size: int | None = None,
    max_length: int | None = None,
    tokenizer_files: TokenizerChoice | None = None,
    create_stats: bool = False,
    format: str = "jsonl",
    validation_fraction: float = 0.05,
    validation_sources: Sequence[str] = (),
    text_field: str = "text",
    skip_bad: bool = False,
    replace_bad_bytes: bool = False,
    max_bad_fraction: float = 0.01,
    max_document_bytes: int = 32_000_000,
    cleaning: CleaningPlan | None = None,
    keep_dropped: str | None = None,
    allow_leaks: bool = False,
    workers: int = 0,
    engine: Engine = "local",
    bus: EventBus | None = None,
) -> PrepareResult:
    """Prepare texts.

    Args:
        input: sources of text.
        output: folder; files of an earlier preparation in it are replaced, others are refused.
        vocab_size: entries of the tokenizer to train; None picks one for the amount of text.
        max_length: tokens of a document at most; longer ones are cut into pieces. None leaves them whole.
        tokenizer_files: an existing tokenizer instead; then token ids are written too.
        create_stats: measure words, tokens and lengths as well.
        format: ``jsonl`` or ``parquet``.
        max_bad_fraction: share of unreadable records above which even a lenient reading stops.
        validation_fraction: share of documents held out.
        validation_sources: sources of held-out text; nothing is then split off.
        text_field: key or column of the text.
        skip_bad: skip and count unreadable records instead of stopping.
        replace_bad_bytes: bytes that are no UTF-8 become U+FFFD and are counted, instead of the record being unreadable.
        max_document_bytes: longest record held in memory; longer ones are unreadable.
        cleaning: what to clean and how; None leaves every text as it is.
        keep_dropped: folder for a file with everything that went, and why.
        allow_leaks: go on when the same text stands in training and held-out documents.
        workers: processes that clean; 0 takes what the amount of text is worth, on a Ray cluster all its CPUs.
        engine: where cleaning runs; everything else is done here.

    Raises:
        ConfigError: settings out of range or contradicting, or an output folder that is a source.
        DataError: no such source or test file, no documents, bad ones in a strict reading, leaks, or too little text for the vocabulary.
        LockedError, StorageError, IntegrityError, PeerError: see the rooms.
    """
    bus = bus or EventBus()
    _check(
        input,
        format=format,
        vocab_size=vocab_size,
        max_length=max_length,
        fraction=validation_fraction,
        workers=workers,
        given=tokenizer_files,
    )
    refuse_source_as_output((*input, *validation_sources), Path(output))
    require_tests(cleaning.tests if cleaning else ())
    settings = CorpusSettings(
        text_field=text_field,
        validation_fraction=validation_fraction,
        skip_bad=skip_bad,
        replace_bad_bytes=replace_bad_bytes,
        max_bad_fraction=max_bad_fraction,
        slice_bytes=_SLICE_BYTES,
        max_document_bytes=max_document_bytes,
    )
    corpus = open_held_out(input, validation_sources, settings)
    tokenizer = tokenizer_files.load() if tokenizer_files else None
    with removed_when_empty(Path(output)), PreparedFolder(Path(output), format=format) as folder, no_unused_work(Path(output)):
        folder.refuse_sources(file.path for file in corpus.files)
        plan = with_whole_documents(corpus, make_plan(corpus, notify=lambda line: bus.publish(Notice(message=line))))
        texts: PlainTexts | CleanedCorpus = PlainTexts(corpus, plan, bus)
        if cleaning is not None:
            texts = clean_corpus(
                corpus, plan, cleaning, Path(output), workers=workers, engine=engine, keeps_dropped=keep_dropped is not None, bus=bus
            )
        elif engine == "ray":
            bus.publish(Notice(message="nothing is cleaned, so nothing runs on the Ray cluster"))
        if tokenizer is None:
            tokenizer = _train(texts, plan, input, vocab_size, bus)
        writer = DocumentWriter(
            folder, tokenizer, max_length, with_ids=tokenizer_files is not None, with_lengths=create_stats, format=format
        )
        writer.write(_watched(texts.documents(), bus))
        if not writer.statistics[TRAIN].num_documents:
            raise _all_held_out(input)
        if (validation_fraction or validation_sources) and not writer.statistics[VALIDATION].num_documents:
            bus.publish(Notice(message="no document is held out: validation.json is empty, so a training run has nothing to evaluate on"))
        num_leaks = writer.count_leaks()
        if num_leaks and not allow_leaks:
            raise DataError(
                f"{num_leaks:,} training documents stand in held-out documents too, but for white space",
                remedy="remove them (--deduplicate), or go on all the same (--allow-leaks)",
            )
        if keep_dropped is not None:
            _write_dropped(Path(keep_dropped), texts)
        tell_replaced(texts.report.num_replaced, texts.report.first_replaced, corpus, bus)
        result = _finish(folder, writer, texts, plan, tokenizer, output, num_leaks)
    remove_tree(Path(output) / WORK_FOLDER)
    return result


def _check(
    input: Sequence[str],
    *,
    format: str,
    vocab_size: int | None,
    max_length: int | None,
    fraction: float,
    workers: int,
    given: TokenizerChoice | None,
) -> None:
    problems: list[str] = []
    if not input:
        problems.append("no source of text was given; at --input; give a file, a folder or a URI")
    if format not in FORMATS:
        problems.append(f"--format is {format} but must be one of {', '.join(FORMATS)}")
    if max_length is not None and max_length < SHORTEST_LENGTH:
        problems.append(f"--max-length is {max_length} but must be at least {SHORTEST_LENGTH}")
    if not 0 <= fraction <= 0.5:
        problems.append(f"--validation-fraction is {fraction} but must be >= 0 and <= 0.5")
    if not 0 <= workers <= MOST_WORKERS:
        problems.append(f"--workers is {workers} but must be >= 0 and <= {MOST_WORKERS:,}")
    if given is not None and vocab_size is not None:
        problems.append(f"--vocab-size is {vocab_size} but the given tokenizer has a size of its own; give one of them")
    if problems:
        raise ConfigError("wrong flags", problems=problems)
    if vocab_size is not None:
        require_trainable(vocab_size)


def _all_held_out(input: Sequence[str]) -> DataError:
    return DataError("there are no training documents in the source", where=", ".join(input), remedy="add files that are not held out")


def _train(texts: Texts, plan: Plan, input: Sequence[str], vocab_size: int | None, bus: EventBus) -> Tokenizer:
    documents = texts.documents(TRAIN)
    first = next(documents, None)
    if first is None:
        raise _all_held_out(input)
    size = [entries for least, entries in VOCABULARIES if plan.num_bytes >= least][-1] if vocab_size is None else vocab_size
    bus.publish(Progress(task="Training the tokenizer", done=0, total=1, unit=""))
    texts_of = (document.text for document in itertools.chain([first], documents))
    trained = train_tokenizer(texts_of, size, allow_smaller=vocab_size is None)
    bus.publish(Progress(task="Training the tokenizer", done=1, total=1, unit=""))
    return trained


def _watched(documents: Iterator[Document], bus: EventBus) -> Iterator[Document]:
    done = 0
    bus.publish(Progress(task="Writing documents", done=done, total=None, unit="documents"))
    for document in documents:
        done += 1
        if done % _DOCUMENTS_PER_LINE == 0:
            bus.publish(Progress(task="Writing documents", done=done, total=None, unit="documents"))
        yield document
    bus.publish(Progress(task="Writing documents", done=done, total=done, unit="documents"))


class PlainTexts:
    """The documents of a plan as they are."""

    def __init__(self, corpus: Corpus, plan: Plan, bus: EventBus) -> None:
        self._corpus, self._plan = corpus, plan
        self.report = BadRecords()
        self.changes: dict[str, int] = {}
        self.num_documents = 0  # of the last reading

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """Documents of one split, or all; raises as `SliceReader.documents` does."""
        reader = SliceReader(self._corpus, self._plan)
        self.report = reader.report = BadRecords()
        self.num_documents = 0

        def whole(parts: Iterator[Document]) -> Iterator[Document]:
            for document in joined(parts):
                self.num_documents += 1
                yield document

        try:
            yield from reader.documents(split, join=whole)
        finally:
            reader.close()

    @property
    def dropped(self) -> dict[str, int]:
        """Records left out of the last reading, by reason."""
        return {f"read: {reason}": count for reason, count in self.report.dropped.items()}

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Reason and place of the first of those."""
        return self.report.places

    def dropped_lines(self) -> Iterator[bytes]:
        """See `CleanedCorpus.dropped_lines`."""
        yield from bad_lines(self.bad)


def _write_dropped(folder: Path, texts: PlainTexts | CleanedCorpus) -> None:
    make_directory(folder)
    with write_stream(folder / DROPPED_FILE) as sink:
        for lines in texts.dropped_lines():
            sink.write(lines)


def _finish(
    folder: PreparedFolder,
    writer: DocumentWriter,
    texts: PlainTexts | CleanedCorpus,
    plan: Plan,
    tokenizer: Tokenizer,
    output: str,
    num_leaks: int,
) -> PrepareResult:
    splits = {name: found.as_json() for name, found in writer.statistics.items() if name != TEST or found.num_documents}
    dropped = {f"read: {reason}": count for reason, count in plan.skipped.items()} | dict(sorted(texts.dropped.items()))
    replaced = {REPLACED: texts.report.num_replaced} if texts.report.num_replaced else {}
    changes = dict(sorted((texts.changes | replaced).items()))
    folder.write_bytes({**tokenizer.files(), **tokenizer.vocab_files()})
    folder.write_json(
        "stats.json",
        {
            "splits": splits,
            "num_documents_read": texts.num_documents,
            "dropped": dropped,
            "changes": changes,
            "unreadable": [{"reason": reason, "place": place} for reason, place in texts.bad],
            "num_leaks": num_leaks,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": tokenizer.fingerprint,
        },
    )
    documents = writer.close()
    files = folder.seal({"tokenizer": tokenizer.fingerprint, "splits": list(splits), "documents": documents})
    return PrepareResult(
        output,
        files,
        splits,
        dropped,
        tokenizer.vocab_size,
        tokenizer.fingerprint,
        changes=changes,
        bad=texts.bad,
        num_documents=texts.num_documents,
        num_leaks=num_leaks,
    )
