"""Documents whole: a text file that the plan cuts into parts is one document of a preparation, in one split.

Parts lie in one slice and are joined as they are read. Only a text longer than half of `data.max_document_bytes` stays in several
documents. The first part says which split the whole is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from llm_training.corpus import VALIDATION, Corpus, Document, Plan, Slice, SliceReader, Span
from llm_training.corpus.plan import BY_HASH, PlannedSource
from llm_training.corpus.split import split_of_digest, text_digest

# With fewer held-out documents expected than this, the exact share is held out, as the plan does for its parts.
_FEW_HELD_OUT: Final = 10


def with_whole_documents(corpus: Corpus, plan: Plan) -> Plan:
    """The plan with the parts of each document in one slice, and documents held out whole. Raises as `SliceReader.read_slice`."""
    # Half, for as a line of JSON a text is up to twice as long (line breaks, quotes), and is to be read again.
    slices = _joined_slices(plan, corpus.settings.max_document_bytes // 2)
    if len(slices) == len(plan.slices):
        return plan
    plan = replace(plan, slices=slices)
    return replace(plan, sources=tuple(_divided_whole(corpus, plan, number) for number in range(len(plan.sources))))


def _joined_slices(plan: Plan, max_bytes: int) -> tuple[Slice, ...]:
    """Slices in order; one goes on with the next as long as its last document does, unless that would be too long."""
    found: list[Slice] = []
    for piece in plan.slices:
        before, first = found[-1].spans if found else (), piece.spans[0]
        goes_on = bool(before) and before[-1].is_continued and before[-1].file == first.file
        if goes_on and _last_document_bytes(before) + first.num_bytes <= max_bytes:
            found[-1] = replace(found[-1], spans=(*before, *piece.spans))
        else:
            found.append(replace(piece, number=len(found)))
    return tuple(found)


def _last_document_bytes(spans: Sequence[Span]) -> int:
    size = spans[-1].num_bytes
    for span in reversed(spans[:-1]):
        if not span.is_continued:
            break
        size += span.num_bytes
    return size


def _divided_whole(corpus: Corpus, plan: Plan, number: int) -> PlannedSource:
    """A source whose documents are divided by hash, with the exact share of whole documents held out when there are few."""
    source, fraction = plan.sources[number], corpus.settings.validation_fraction
    pieces = [piece for piece in plan.slices if piece.source == number and piece.split is None]
    starts = [span for piece in pieces for span in _starts(piece.spans)]
    is_cut = len(starts) < sum(len(piece.spans) for piece in pieces)
    if source.rule != BY_HASH or not fraction or not is_cut:
        return source
    if sum(span.count for span in starts) * fraction >= _FEW_HELD_OUT:
        return replace(source, held_out=(), kept=())
    digests = _digests(corpus, plan, starts)
    if len(digests) < 2:
        return replace(source, held_out=(), kept=digests)
    held_out = digests[: max(1, round(len(digests) * fraction))]
    by_hash = [digest for digest in digests if split_of_digest(digest, fraction) == VALIDATION]
    forced = tuple(digest for digest in held_out if digest not in by_hash)
    return replace(source, held_out=forced, kept=tuple(digest for digest in by_hash if digest not in held_out))


def _starts(spans: Sequence[Span]) -> list[Span]:
    """Spans with which documents begin."""
    return [span for place, span in enumerate(spans) if not place or not spans[place - 1].is_continued]


def _digests(corpus: Corpus, plan: Plan, spans: Sequence[Span]) -> tuple[str, ...]:
    """Digests of the documents, or first parts, in the spans, ascending."""
    slices = tuple(Slice(number, 0, None, (span,)) for number, span in enumerate(spans))
    lenient = replace(corpus, settings=replace(corpus.settings, skip_bad=True))
    reader = SliceReader(lenient, Plan(plan.settings, (PlannedSource("", BY_HASH),), (), slices))
    try:
        return tuple(sorted({text_digest(document.text) for piece in slices for document in reader.read_slice(piece.number)}))
    finally:
        reader.close()


def joined(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents of a slice with the parts of each put together."""
    parts: list[Document] = []
    for document in documents:
        if parts and not (parts[-1].is_continued and parts[-1].source == document.source):
            yield _whole(parts)
            parts = []
        parts.append(document)
    if parts:
        yield _whole(parts)


def _whole(parts: Sequence[Document]) -> Document:
    first, last = parts[0], parts[-1]
    if first is last:
        return first
    name = first.source if first.position == 0 and not last.is_continued else first.id
    return replace(first, id=name, text="".join(part.text for part in parts), is_continued=last.is_continued)
