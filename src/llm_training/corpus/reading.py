"""Documents of a planned slice, with their splits, checked against the plan's hashes.

A reader keeps its files open, so slices read in order cost one pass over compressed files. It is for one thread; make
one reader for each worker: they share nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from llm_training.corpus.corpus import Corpus
from llm_training.corpus.document import REPLACE_BAD_BYTES, SKIP_BAD, TEXT_FIELD, TRAIN, VALIDATION, Document, ReadReport
from llm_training.corpus.opened import OpenFile, OpenFiles, open_file
from llm_training.corpus.plan import BY_RECORD_TAIL, Plan, Slice, Span
from llm_training.corpus.sources.decoding import NOT_REPLACED
from llm_training.corpus.sources.record import MISSING_TEXT, NEVER_CLOSED, UNDECODABLE, Cut, Limits, Record
from llm_training.corpus.split import SINGLE_DOCUMENT_TRAIN_FRACTION, split_of_digest, tail_boundary, text_digest
from llm_training.errors import DataError, IntegrityError, LlmTrainingError

_SHOWN_SOURCES: Final = 3
_HAS_LINES: Final = re.compile(r"\.(?:jsonl|ndjson)(?:\.(?:gz|bz2|xz|zst))?(?:#\d+)?$")


class SliceReader:
    """Reads the slices of one plan.

    Attributes:
        report: what was handed out and dropped so far.
    """

    def __init__(self, corpus: Corpus, plan: Plan) -> None:
        self.plan = plan
        self.report = ReadReport()
        self._settings = corpus.settings
        self._uris = [source.uri for source in corpus.sources]
        self._files = {file.key: file for file in corpus.files}
        self._limits = limits_of(corpus)
        self._open = OpenFiles(corpus.settings)
        self._forced = [dict.fromkeys(source.held_out, VALIDATION) | dict.fromkeys(source.kept, TRAIN) for source in plan.sources]

    def read_slice(self, number: int) -> Iterator[Document]:
        """The documents of slice ``number`` in order.

        Raises:
            DataError: a bad document, in a strict reading.
            IntegrityError: the content is not what was planned.
            StorageError: a file is gone or cannot be read.
        """
        piece = self.plan.slices[number]
        for span in piece.spans:
            opened, records = self._records(span)
            self.report.num_bytes += span.num_bytes
            for record in records:
                if record.reason:
                    self._drop(record, span, opened)
                    continue
                if record.replaced_at != NOT_REPLACED:
                    self.report.count_replaced(span.file, span.start + record.replaced_at)
                for document in self._documents(record, span, piece):
                    self.report.num_documents += 1
                    yield document

    def documents(
        self, split: str | None = None, *, source: int | None = None, join: Callable[[Iterator[Document]], Iterator[Document]] = iter
    ) -> Iterator[Document]:
        """All documents of the plan in order, or those of one split or source.

        Args:
            join: what becomes of the documents of a slice before they are handed out: parts put together, say.

        Raises:
            DataError: as :meth:`read_slice`; also when there is no document at all, or too many are bad.
        """
        found = False
        for piece in self.plan.slices:
            if (piece.split not in (None, split) and split is not None) or source not in (None, piece.source):
                continue
            for document in join(self.read_slice(piece.number)):
                if split in (None, document.split):
                    found = True
                    yield document
        self.report.check(self._settings.max_bad_fraction, self._settings.flags)
        if not found:
            which = f"{split} documents" if split else "documents"
            example = f" (first dropped: {self.report.examples[0]})" if self.report.examples else ""
            shown = self._uris if source is None else self._uris[source : source + 1]
            where = ", ".join(shown[:_SHOWN_SOURCES]) + (", ..." if len(shown) > _SHOWN_SOURCES else "")
            remedy = "give more text, or look at what was dropped"
            raise DataError(f"there are no {which} in the source{example}", where=where, remedy=remedy)

    def close(self) -> None:
        """Close the open files."""
        self._open.close()

    def _records(self, span: Span) -> tuple[OpenFile, list[Record]]:
        file = self._files.get(span.file)
        if file is None:
            raise IntegrityError(f"the plan needs {span.file}, which the sources no longer hold", remedy="restore the file or plan anew")
        opened = self._open.get(file)
        cut = Cut(span.start, span.stop, span.count, span.num_bytes, span.sha256)
        records, digest = opened.read(cut, span.first, self._limits)
        if digest != span.sha256:
            raise edited(span)
        # Of the last stretch under a limit of documents not all records are taken.
        return opened, records[: span.count] if self._settings.max_documents else records

    def _drop(self, record: Record, span: Span, opened: OpenFile) -> None:
        if record.is_bad and not self._settings.skip_bad:
            where = opened.locate(span.start + record.offset)
            raise DataError(f"{record.reason} ({record.detail})", where=where, remedy=_remedy(record, self._settings.flags))
        self.report.drop(record.reason, _place(record, span, opened), is_bad=record.is_bad)

    def _documents(self, record: Record, span: Span, piece: Slice) -> tuple[Document, ...]:
        if piece.split is not None:
            return (_document(record, span, piece.split),)
        if self.plan.sources[piece.source].rule == BY_RECORD_TAIL:
            return tuple(_divide(_document(record, span, TRAIN)))
        return (_document(record, span, self._split_by_hash(record, piece.source)),)

    def _split_by_hash(self, record: Record, source: int) -> str:
        digest = content_digest(record)
        return self._forced[source].get(digest) or split_of_digest(digest, self._settings.validation_fraction)


def content_digest(content: Record | Document) -> str:
    """The hash that places a document: of its text, or of its ids where it has those."""
    return text_digest(content.text if content.token_ids is None else " ".join(map(str, content.token_ids)))


def limits_of(corpus: Corpus) -> Limits:
    """The sizes that formats obey, from the settings."""
    settings = corpus.settings
    return Limits(settings.slice_bytes, settings.max_document_bytes, settings.text_field, settings.keep_html, settings.replace_bad_bytes)


def located(corpus: Corpus, key: str, offset: int) -> str:
    """A place in words: path, line and byte, or row. The file is read up to it; without the file its key and the number."""
    file = next((file for file in corpus.files if file.key == key), None)
    try:
        if file is not None:
            opened = open_file(file, corpus.settings)
            try:
                return opened.locate(offset)
            finally:
                opened.close()
    except LlmTrainingError:
        pass  # it was there when it was read; this is only about where to look
    return f"{key}, offset {offset}"


def edited(span: Span) -> IntegrityError:
    """The error for bytes that changed under a plan."""
    return IntegrityError(
        f"bytes {span.start:,} to {span.stop:,} changed after they were planned",
        where=span.file,
        remedy="restore the file, or use another --cache.name, or llm-build-cache --force-rebuild; appending is always possible",
    )


def _place(record: Record, span: Span, opened: OpenFile) -> str:
    """Records are counted from 0, as in the ids of documents; lines from 1, as editors show them."""
    if _HAS_LINES.search(span.file):
        return f"{span.file}, line {record.position + 1}"
    if record.reason == NEVER_CLOSED:
        where = opened.locate(span.start + record.offset)
        return span.file + where[where.rindex(", line ") :]
    return f"{span.file}, record {record.position}"


def _remedy(record: Record, flags: Sequence[str]) -> str:
    """What can be done about a bad record, with those flags that the command has."""
    ways = ["mend it"]
    if record.reason == MISSING_TEXT and TEXT_FIELD in flags:
        ways.append(f"name the field of the text ({TEXT_FIELD})")
    if record.reason == UNDECODABLE and record.detail.startswith("not valid") and REPLACE_BAD_BYTES in flags:
        ways.append(f"read such bytes as U+FFFD ({REPLACE_BAD_BYTES})")
    if SKIP_BAD in flags:
        ways.append(f"skip bad documents ({SKIP_BAD})")
    return ", ".join(ways[:-1]) + (", or " if ways[1:] else "") + ways[-1]


def _document(record: Record, span: Span, split: str) -> Document:
    name = record.id
    if name is None:
        is_whole_file = span.count == 1 and span.first == 0 and not span.is_continued
        name = span.file if is_whole_file else f"{span.file}:{record.position}"
    return Document(name, record.text, span.file, record.position, split, record.metadata or {}, record.token_ids, span.is_continued)


def _divide(document: Document) -> Iterator[Document]:
    """The only record of a source: its last tenth is held out."""
    ids = document.token_ids
    cut = tail_boundary(document.text) if ids is None else int(len(ids) * SINGLE_DOCUMENT_TRAIN_FRACTION)
    for part, name, split in ((slice(cut), document.id, TRAIN), (slice(cut, None), f"{document.id}#tail", VALIDATION)):
        divided = replace(document, text=document.text[part], token_ids=None if ids is None else ids[part], id=name, split=split)
        if divided.text or divided.token_ids:
            yield divided
