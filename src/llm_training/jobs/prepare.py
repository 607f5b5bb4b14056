"""Job: texts into train and validation files with a tokenizer beside them.

The folder holds ``train.json`` and ``validation.json`` (JSON Lines; ``test.json`` when the sources have a test split), the
tokenizer (``tokenizer.json`` and what transformers reads beside it, ``vocab.json`` and ``merges.txt``), ``stats.json``, and,
written last, ``manifest.json``. With a given tokenizer the token ids are written too, as text (``train.ids``). Same input
and settings give the same bytes. Documents keep their id and metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_training.corpus import TEST, TRAIN, VALIDATION, Corpus, CorpusSettings, Document, Plan, SliceReader, make_plan, open_corpus
from llm_training.errors import ConfigError, DataError
from llm_training.events import EventBus, Notice, Progress
from llm_training.jobs.prepared_folder import PreparedFolder
from llm_training.jobs.text_statistics import SplitStatistics, cut_to_length
from llm_training.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

# Text that a tokenizer of this many entries is worth training on, bytes; the last one that fits is taken.
VOCABULARIES = ((0, 4_096), (20_000_000, 8_192), (200_000_000, 16_384), (2_000_000_000, 32_768), (20_000_000_000, 49_152))
SHORTEST_LENGTH = 8
_BATCH_CHARACTERS = 1 << 21


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
    """What was written. ``splits`` has documents, bytes and tokens of each split by name."""

    output: str
    files: tuple[str, ...]
    splits: dict[str, dict[str, Any]]
    dropped: dict[str, int]
    vocab_size: int
    tokenizer: str

    def facts(self) -> dict[str, str]:
        """Lines for people."""
        shown = {
            name.capitalize(): f"{split['num_documents']:,} documents, {split['num_bytes']:,} bytes" for name, split in self.splits.items()
        }
        shown["Tokenizer"] = f"{self.vocab_size:,} entries, fingerprint {self.tokenizer[:8]}"
        if self.dropped:
            shown["Left out"] = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        return shown | {"Written": f"{self.output}: {', '.join(self.files)}"}


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
    text_field: str = "text",
    skip_bad: bool = False,
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
        format: ``jsonl``.

    Raises:
        ConfigError: settings out of range or contradicting.
        DataError: no documents, bad ones in a strict reading, or too little text for the vocabulary.
        LockedError, StorageError, IntegrityError: see the rooms.
    """
    bus = bus or EventBus()
    _check(input, format=format, vocab_size=vocab_size, max_length=max_length, fraction=validation_fraction, given=tokenizer_files)
    settings = CorpusSettings(text_field=text_field, validation_fraction=validation_fraction, skip_bad=skip_bad)
    corpus = open_corpus(input, settings)
    tokenizer = tokenizer_files.load() if tokenizer_files else None
    with PreparedFolder(Path(output)) as folder:
        folder.refuse_sources(file.path for file in corpus.files)
        plan = make_plan(corpus, notify=lambda line: bus.publish(Notice(message=line)))
        if tokenizer is None:
            tokenizer = _train(corpus, plan, vocab_size, bus)
        writer = _Writer(folder, tokenizer, max_length, with_ids=tokenizer_files is not None, with_lengths=create_stats)
        reader = SliceReader(corpus, plan)
        try:
            writer.write(_watched(reader.documents(), reader, plan, bus, "Writing documents"))
        finally:
            reader.close()
        if not writer.statistics[TRAIN].num_documents:
            raise DataError(
                "there are no training documents in the source", where=", ".join(input), remedy="add files that are not held out"
            )
        return _finish(folder, writer, reader, plan, tokenizer, output)


def _check(
    input: Sequence[str], *, format: str, vocab_size: int | None, max_length: int | None, fraction: float, given: TokenizerChoice | None
) -> None:
    problems: list[str] = []
    if not input:
        problems.append("no source of text was given; at --input; give a file, a folder or a URI")
    if format != "jsonl":
        problems.append(f"--format is {format} but must be jsonl")
    if max_length is not None and max_length < SHORTEST_LENGTH:
        problems.append(f"--max-length is {max_length} but must be at least {SHORTEST_LENGTH}")
    if not 0 <= fraction <= 0.5:
        problems.append(f"--validation-fraction is {fraction} but must be >= 0 and <= 0.5")
    if given is not None and vocab_size is not None:
        problems.append(f"--vocab-size is {vocab_size} but the given tokenizer has a size of its own; give one of them")
    if problems:
        raise ConfigError("wrong flags", problems=problems)


def _train(corpus: Corpus, plan: Plan, vocab_size: int | None, bus: EventBus) -> Tokenizer:
    reader = SliceReader(corpus, plan)
    documents = _watched(reader.documents(TRAIN), reader, plan, bus, "Training the tokenizer")
    size = vocab_size or [entries for least, entries in VOCABULARIES if plan.num_bytes >= least][-1]
    try:
        return train_tokenizer((document.text for document in documents), size, allow_smaller=vocab_size is None)
    finally:
        reader.close()


def _watched(documents: Iterator[Document], reader: SliceReader, plan: Plan, bus: EventBus, task: str) -> Iterator[Document]:
    shown = -1.0
    for document in documents:
        if reader.report.num_bytes != shown:
            shown = reader.report.num_bytes
            bus.publish(Progress(task=task, done=shown, total=plan.num_bytes, unit="B"))
        yield document
    if shown != plan.num_bytes:
        bus.publish(Progress(task=task, done=plan.num_bytes, total=plan.num_bytes, unit="B"))


class _Writer:
    """Documents to their files, in batches for the encoder."""

    def __init__(self, folder: PreparedFolder, tokenizer: Tokenizer, max_length: int | None, *, with_ids: bool, with_lengths: bool) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._with_ids = with_ids
        self._encodes = with_ids or with_lengths
        self.statistics: dict[str, SplitStatistics] = {split: SplitStatistics(with_lengths=with_lengths) for split in (TRAIN, VALIDATION)}

    def write(self, documents: Iterator[Document]) -> None:
        batch: list[Document] = []
        size = 0
        for document in documents:
            batch.append(document)
            size += len(document.text)
            if size >= _BATCH_CHARACTERS:
                self._write_batch(batch)
                batch, size = [], 0
        self._write_batch(batch)

    def _write_batch(self, documents: Sequence[Document]) -> None:
        entries = [entry for document in documents for entry in self._entries(document)]
        counts: Sequence[int | None] = [None] * len(entries)
        if self._encodes and entries:
            ids, offsets = self._tokenizer.encode_documents([text for _, _, text in entries])
            counts = (offsets[1:] - offsets[:-1]).tolist()
            if self._with_ids:
                for (document, _, _), start, stop in zip(entries, offsets[:-1], offsets[1:], strict=True):
                    self._folder.write_ids(document.split, ids[start:stop].tolist(), self._tokenizer.separator_id)
        for (document, name, text), count in zip(entries, counts, strict=True):
            statistics = self.statistics.setdefault(document.split, SplitStatistics(with_lengths=bool(self._encodes)))
            statistics.add(text, count)
            self._folder.write_document(document.split, {**document.metadata, "id": name, "text": text})

    def _entries(self, document: Document) -> list[tuple[Document, str, str]]:
        pieces = [document.text] if self._max_length is None else cut_to_length(document.text, self._max_length, self._tokenizer.encode)
        if len(pieces) == 1:
            return [(document, document.id, document.text)]
        return [(document, f"{document.id}#{number}", piece) for number, piece in enumerate(pieces)]


def _finish(folder: PreparedFolder, writer: _Writer, reader: SliceReader, plan: Plan, tokenizer: Tokenizer, output: str) -> PrepareResult:
    splits = {name: found.as_json() for name, found in writer.statistics.items() if name != TEST or found.num_documents}
    dropped = {**plan.skipped, **reader.report.dropped}
    folder.write_bytes({**tokenizer.files(), **tokenizer.vocab_files()})
    folder.write_json(
        "stats.json", {"splits": splits, "dropped": dropped, "vocab_size": tokenizer.vocab_size, "tokenizer": tokenizer.fingerprint}
    )
    files = folder.seal({"tokenizer": tokenizer.fingerprint, "splits": list(splits)})
    return PrepareResult(output, files, splits, dropped, tokenizer.vocab_size, tokenizer.fingerprint)
