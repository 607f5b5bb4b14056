"""How much text a planned corpus has: a look at a few slices, for the plan of a run and the size of its vocabulary."""

from __future__ import annotations

from dataclasses import replace

from llm_training.corpus import TRAIN, Corpus, Plan, SliceReader
from llm_training.errors import LlmTrainingError

# Kinds of files that are text and nothing else.
WHOLE_TEXTS = frozenset({"text", "python"})
BYTES_PER_TOKEN = 4  # of text that was tokenised elsewhere; an estimate


def train_bytes_of(plan: Plan, validation_fraction: float) -> int:
    """Bytes of source that train: a plan counts what it reads, before anything is made of it."""
    named = sum(piece.num_bytes for piece in plan.slices if piece.split == TRAIN)
    hashed = sum(piece.num_bytes for piece in plan.slices if piece.split is None)
    return named + int(hashed * (1.0 - validation_fraction))


def text_share(corpus: Corpus, plan: Plan) -> float:
    """Bytes of text for each byte of source: records have other fields, pages have markup, ids stand for text.

    Seen on the first, middle and last slice; of sources that can only be read forward on the first, for the others would be
    all of a compressed or remote file once more.
    """
    numbers = [piece.number for piece in plan.slices if piece.split in (None, TRAIN)]
    if not numbers or all(file.kind in WHOLE_TEXTS for file in corpus.files):
        return 1.0
    reader = SliceReader(replace(corpus, settings=replace(corpus.settings, skip_bad=True)), plan)
    can_seek = all(file.is_seekable for file in corpus.files)
    some = {numbers[0], numbers[len(numbers) // 2], numbers[-1]} if can_seek else {numbers[0]}
    num_bytes = 0
    try:
        for number in sorted(some):
            for document in reader.read_slice(number):
                num_bytes += len(document.text.encode()) if document.token_ids is None else BYTES_PER_TOKEN * len(document.token_ids)
    except LlmTrainingError:
        return 1.0  # who reads all of it will say it better
    finally:
        reader.close()
    return num_bytes / max(1, reader.report.num_bytes)
