"""What the corpus room hands out, the values that steer it, and the account of what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llm_training.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SKIP_BAD, REPLACE_BAD_BYTES, TEXT_FIELD = "--skip-bad", "--replace-bad-bytes", "--text-field"
SPLITS = (TRAIN, VALIDATION, TEST)
_MAX_EXAMPLES = 5
# A handful of bad documents in a small folder is no reason to stop, whatever share of it they are.
_TOLERATED_BAD_DOCUMENTS = 3


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        id: its own id where the source gives one, else made of source and position.
        text: the text; empty for a document of token ids.
        source: the file it came from, as a stable name without machine paths.
        position: index of the record in its file, counted from 0 (the line of a JSONL file).
        split: ``train``, ``validation`` or ``test``.
        metadata: other fields of the record, the long ones while they fit into some kilobytes.
        token_ids: ids already made (the ``token-ids:`` kind), else None.
        is_continued: True when the next document continues this text, so that no separator belongs between them.
    """

    id: str
    text: str
    source: str
    position: int
    split: str = TRAIN
    metadata: Mapping[str, object] = field(default_factory=dict)
    token_ids: tuple[int, ...] | None = None
    is_continued: bool = False


@dataclass(frozen=True)
class CorpusSettings:
    """How sources are read.

    Attributes:
        text_field: key of the text in JSON records, column of the text in tables.
        validation_fraction: share of documents held out by hash, fraction; 0 holds nothing out.
        skip_bad: skip and count bad documents instead of raising.
        max_bad_fraction: share of bad documents above which even a lenient reading stops, fraction.
        slice_bytes: size of a slice of the plan, bytes of text.
        max_document_bytes: longest record held in memory, bytes.
        max_documents: documents taken of all sources at most, in order, blank and bad ones included; 0 for all. Files named
            for validation or test are not counted; of the splits of an ``hf:`` source no one gives more.
        keep_html: pages of WARC files stay HTML, for a cleaning that extracts their text; else the source extracts it.
        replace_bad_bytes: bytes that are no UTF-8 become U+FFFD and are counted, instead of the document being bad.
        flags: those that the command at hand has for bad documents, for its errors to name; they change no document.
    """

    text_field: str = "text"
    validation_fraction: float = 0.05
    skip_bad: bool = False
    max_bad_fraction: float = 0.01
    slice_bytes: int = 8 * 1024 * 1024
    max_document_bytes: int = 32_000_000
    max_documents: int = 0
    keep_html: bool = False
    replace_bad_bytes: bool = False
    flags: tuple[str, ...] = (SKIP_BAD, REPLACE_BAD_BYTES, TEXT_FIELD)


@dataclass
class ReadReport:
    """Counts of one reading.

    Attributes:
        dropped: a named reason for every document that was not handed out.
        num_replaced: documents read with U+FFFD for bytes that are no UTF-8 (of a long one, its parts).
        first_replaced: file and offset of the first such byte.
    """

    num_documents: int = 0
    num_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    num_bad: int = 0
    num_replaced: int = 0
    first_replaced: tuple[str, int] | None = None

    def drop(self, reason: str, where: str, *, is_bad: bool) -> None:
        """Count a document that is left out; ``is_bad`` when it should not have been in the source at all."""
        self.dropped[reason] += 1
        self.num_bad += is_bad
        if is_bad and len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{reason} at {where}")

    def count_replaced(self, file: str, offset: int) -> None:
        """Count a document with U+FFFD for bytes that are no UTF-8, the first of them at ``offset`` of ``file``."""
        self.num_replaced += 1
        self.first_replaced = self.first_replaced or (file, offset)

    def check(self, max_bad_fraction: float, flags: Sequence[str] = (REPLACE_BAD_BYTES, TEXT_FIELD)) -> None:
        """Raise DataError when more of the documents were bad than allowed; it names those flags that the command has."""
        total = self.num_documents + self.num_bad
        tolerated = _TOLERATED_BAD_DOCUMENTS if max_bad_fraction > 0 else 0
        if self.num_bad > max(tolerated, max_bad_fraction * total):
            first = f" (first: {self.examples[0]})" if self.examples else ""
            ways = {"missing text": (TEXT_FIELD, "name its text with"), "undecodable": (REPLACE_BAD_BYTES, "read bad bytes as U+FFFD with")}
            flag, way = ways.get(self.examples[0].partition(" at ")[0], ("", "")) if self.examples else ("", "")
            raise DataError(
                f"{self.num_bad:,} of {total:,} documents are bad, more than the {max_bad_fraction:.1%} allowed{first}",
                remedy=f"mend the source{f', {way} {flag}' if flag in flags else ''} or raise data.max_bad_fraction",
            )
