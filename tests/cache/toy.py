"""A small data set with its own toy tokenizer: nothing here depends on the rooms that read text or train tokenizers."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from llm_training.cache.build import build_store
from llm_training.cache.store import ChunkStore, StoreSettings
from llm_training.cache.view import PackedView, build_view

SEPARATOR = 256


@dataclass(frozen=True)
class ToyDocument:
    id: str
    text: str
    source: str
    position: int
    split: str
    token_ids: tuple[int, ...] | None = None
    is_continued: bool = False


class ToyEncoder:
    """Bytes as ids; a larger vocabulary only widens the token type."""

    separator_id = SEPARATOR

    def __init__(self, vocab_size: int = 257) -> None:
        self.vocab_size = vocab_size
        self.fingerprint = hashlib.sha256(f"toy {vocab_size}".encode()).hexdigest()

    def encode_documents(self, texts):
        parts = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
        offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
        return np.concatenate([np.zeros(0, np.uint8), *parts]).astype(np.uint32), offsets


def toy_documents(number: int, seed: int = 0, documents: int = 12, size: int = 60) -> list[ToyDocument]:
    """Documents of slice ``number``; about one in six is held out."""
    randomness = random.Random(f"{seed}/{number}")
    found = []
    for position in range(documents):
        text = "".join(randomness.choices("abcdefg häß\n", k=randomness.randrange(1, size)))
        split = randomness.choices(["train", "validation", "test"], [8, 2, 1])[0]
        found.append(ToyDocument(f"{number}-{position}", text, f"file{number}.txt", position, split))
    return found


def open_toy(vocab_size: int = 257, seed: int = 0, documents: int = 12, size: int = 60):
    """Picklable through `functools.partial`."""
    return partial(toy_documents, seed=seed, documents=documents, size=size), ToyEncoder(vocab_size)


def toy_settings(vocab_size: int = 257, compression: str = "lz4", fingerprint: str = "f" * 64) -> StoreSettings:
    return StoreSettings("toy-ffffffff", fingerprint, ToyEncoder(vocab_size).fingerprint, vocab_size, SEPARATOR, compression)


def toy_slices(count: int) -> list[dict]:
    return [{"number": number, "sha256": f"{number:064x}"} for number in range(count)]


@dataclass
class ToyCache:
    """A cache directory; `build` builds its store."""

    root: Path

    @property
    def directory(self) -> Path:
        return self.root / "store" / "toy-ffffffff"

    def build(self, count: int = 4, *, settings: StoreSettings | None = None, source=open_toy, **options):
        return build_store(self.directory, settings or toy_settings(), toy_slices(count), source, **options)

    def store(self) -> ChunkStore:
        return ChunkStore.open(self.directory)

    def view(self, sequence_length: int = 32, strategy: str = "best_fit", **options) -> PackedView:
        return build_view(self.root, self.store(), sequence_length, strategy, **options)

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}
