"""The text that data benchmarks run on: OpenStax and Gutenberg as plain JSON Lines, the GPT-2 tokenizer, and a cache of them."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY
from llm_training.cache.build import BuildResult, build_store
from llm_training.cache.catalog import make_identity, store_directory
from llm_training.cache.store import ChunkStore, StoreSettings
from llm_training.cache.view import PackedView, build_view
from llm_training.corpus import Corpus, CorpusSettings, Plan, SliceReader, make_plan, open_corpus
from llm_training.tokenizer.tokenizer import Tokenizer, load_tokenizer

SETTINGS = CorpusSettings(validation_fraction=0.01)


def find_data() -> Path | None:
    """The corpora: LLM_TRAINING_TEST_DATA, by default ../shared/data; None when they are not there."""
    folder = Path(os.environ.get("LLM_TRAINING_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    return folder if (folder / "gpt2" / "tokenizer.json").is_file() else None


def unpack(data: Path, target: Path, *, is_quick: bool) -> Path:
    """Plain ``.jsonl`` copies of the training files, so that what is timed is text and not gzip."""
    target.mkdir(parents=True)
    packed = sorted(data.glob("openstax/train-*.jsonl.gz")) + sorted(data.glob("gutenberg/train-*.jsonl.gz"))
    for path in packed[-1:] if is_quick else packed:
        with gzip.open(path) as source, (target / f"{path.parent.name}-{path.name.removesuffix('.gz')}").open("wb") as plain:
            shutil.copyfileobj(source, plain, 1 << 20)
    return target


@dataclass(frozen=True)
class Built:
    """A finished cache and what building it said."""

    store: ChunkStore
    view: PackedView
    result: BuildResult


def build_cache(
    sources: Sequence[Path], tokenizer: Path, directory: Path, *, sequence_length: int, workers: int, compression: str = "lz4"
) -> Built:
    """Everything from files of text to packed rows, as ``llm-build-cache`` does it: plan, tokenise, store, plan rows."""
    uris = [str(source) for source in sources]
    corpus = open_corpus(uris, SETTINGS)
    plan = make_plan(corpus)
    encoder = load_tokenizer(tokenizer)
    identity = make_identity(corpus.name, sources=corpus.fingerprint, tokenizer=encoder.fingerprint, cleaning=None)
    settings = StoreSettings(
        identity.name, identity.fingerprint, encoder.fingerprint, encoder.vocab_size, encoder.separator_id, compression=compression
    )
    folder = store_directory(directory, identity)
    result = build_store(
        folder,
        settings,
        [piece.to_json() for piece in plan.slices],
        partial(open_source, corpus, plan, tokenizer if workers > 1 else encoder),
        workers=workers,
        threads=2 if all(file.is_seekable for file in corpus.files) else 1,
    )
    store = ChunkStore.open(folder)
    return Built(store, build_view(directory, store, sequence_length), result)


def open_source(corpus: Corpus, plan: Plan, tokenizer: Tokenizer | Path) -> tuple[Any, Any]:
    """What a builder reads and encodes with; another process loads the tokenizer from its file."""
    return SliceReader(corpus, plan).read_slice, tokenizer if isinstance(tokenizer, Tokenizer) else load_tokenizer(tokenizer)
