"""How much text a planned corpus has: a look at a few slices, for the plan of a run and the size of its vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_training.corpus import TRAIN, Corpus, Plan, Slice, SliceReader
from llm_training.errors import LlmTrainingError

# Kinds of files that are text and nothing else.
WHOLE_TEXTS = frozenset({"text", "python"})
BYTES_PER_TOKEN = 4  # of text that was tokenised elsewhere; an estimate
_ANYWHERE = -1  # slices of files that can be read at any place


def train_bytes_of(plan: Plan, validation_fraction: float) -> int:
    """Bytes of source that train: a plan counts what it reads, before anything is made of it."""
    return _train_bytes(plan.slices, validation_fraction)


def train_bytes_by_source(plan: Plan, validation_fraction: float) -> list[int]:
    """The same for each source, in the order of the plan."""
    pieces: list[list[Slice]] = [[] for _ in plan.sources]
    for piece in plan.slices:
        pieces[piece.source].append(piece)
    return [_train_bytes(found, validation_fraction) for found in pieces]


def _train_bytes(pieces: Sequence[Slice], validation_fraction: float) -> int:
    named = sum(piece.num_bytes for piece in pieces if piece.split == TRAIN)
    hashed = sum(piece.num_bytes for piece in pieces if piece.split is None)
    return named + int(hashed * (1.0 - validation_fraction))


def text_share(corpus: Corpus, plan: Plan) -> float:
    """Bytes of text for each byte of source: records have other fields, pages have markup, ids stand for text.

    Seen on the first, middle and last slice; of a source that can only be read forward on its first, for the others would be
    all of a compressed or remote file once more. Each part counts by its bytes.
    """
    if all(file.kind in WHOLE_TEXTS for file in corpus.files):
        return 1.0
    seekable = {file.key for file in corpus.files if file.is_seekable}
    parts: dict[int, list[Slice]] = {}
    for piece in plan.slices:
        if piece.split in (None, TRAIN):
            parts.setdefault(_ANYWHERE if all(span.file in seekable for span in piece.spans) else piece.source, []).append(piece)
    reader = SliceReader(replace(corpus, settings=replace(corpus.settings, skip_bad=True)), plan)
    num_bytes = num_text = 0.0
    try:
        for place, pieces in parts.items():
            size = sum(piece.num_bytes for piece in pieces)
            some = {0, len(pieces) // 2, len(pieces) - 1} if place == _ANYWHERE else {0}
            num_bytes += size
            num_text += size * _share(reader, [pieces[number] for number in sorted(some)])
    except LlmTrainingError:
        return 1.0  # who reads all of it will say it better
    finally:
        reader.close()
    return num_text / num_bytes if num_bytes else 1.0


def _share(reader: SliceReader, pieces: Sequence[Slice]) -> float:
    before, num_text = reader.report.num_bytes, 0
    for piece in pieces:
        for document in reader.read_slice(piece.number):
            num_text += len(document.text.encode()) if document.token_ids is None else BYTES_PER_TOKEN * len(document.token_ids)
    return num_text / max(1, reader.report.num_bytes - before)
