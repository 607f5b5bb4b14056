"""Documents of one slice to tokens: batched for the encoder, a separator after each document, the smallest token type.

The rooms that read documents and encode text are passed in; these Protocols are all that is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llm_training.errors import IntegrityError

# Text handed to the encoder at a time: large enough that calls cost nothing, small enough to stay out of the way.
ENCODE_CHARACTERS = 1 << 22

_TOKEN_TYPES = (np.uint8, np.uint16, np.uint32)


class DocumentLike(Protocol):
    """A document: where it comes from, its text, and the split it was assigned to.

    A document object may also have a true attribute ``continues``: its text goes on in the next slice, so no separator
    follows it here.
    """

    @property
    def id(self) -> str:
        """The document's own name, or one made of source and position."""
        ...

    @property
    def text(self) -> str:
        """Valid Unicode text."""
        ...

    @property
    def source(self) -> str:
        """File or data set it was read from."""
        ...

    @property
    def position(self) -> int:
        """Its number in the source."""
        ...

    @property
    def split(self) -> str:
        """``train``, ``validation`` or ``test``."""
        ...


class EncoderLike(Protocol):
    """A tokenizer, as far as a cache needs one."""

    @property
    def vocab_size(self) -> int:
        """All ids are below this."""
        ...

    @property
    def separator_id(self) -> int:
        """The id that ends every document and never comes out of text."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides ids."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """All ids in one array and ``[len(texts) + 1]`` offsets into it, without separators."""
        ...


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Documents as tokens. ``D`` documents, ``N`` tokens.

    Attributes:
        ids, sources: ``[D]``.
        positions, text_bytes, lengths: ``[D]`` int64; ``lengths`` counts the separator, ``text_bytes`` is UTF-8 and does not.
        tokens: ``[N]`` of the token type, documents one after another.
    """

    ids: list[str]
    sources: list[str]
    positions: NDArray[np.int64]
    text_bytes: NDArray[np.int64]
    lengths: NDArray[np.int64]
    tokens: NDArray[np.unsignedinteger]


def token_type(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned type that holds every id of a vocabulary."""
    return np.dtype(next(kind for kind in _TOKEN_TYPES if vocab_size - 1 <= np.iinfo(kind).max))


def encode_slice(documents: Iterable[DocumentLike], encoder: EncoderLike, splits: Sequence[str]) -> dict[str, TokenTable]:
    """Tokenise the documents of the wanted splits.

    Raises:
        IntegrityError: the encoder returned an id outside its vocabulary.
    """
    builders = {split: _Builder(encoder) for split in splits}
    for document in documents:
        builder = builders.get(document.split)
        if builder is not None:
            builder.add(document)
    return {split: builder.finish() for split, builder in builders.items()}


@dataclass
class _Builder:
    """Collects the documents of one split and encodes them a few megabytes at a time."""

    encoder: EncoderLike
    ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[NDArray[np.unsignedinteger]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)
    waiting_characters: int = 0

    def add(self, document: DocumentLike) -> None:
        text = document.text
        self.ids.append(document.id)
        self.sources.append(document.source)
        self.positions.append(document.position)
        self.text_bytes.append(len(text) if text.isascii() else len(text.encode()))
        self.waiting.append(text)
        self.ends.append(not getattr(document, "continues", False))
        self.waiting_characters += len(text)
        if self.waiting_characters >= ENCODE_CHARACTERS:
            self.encode()

    def encode(self) -> None:
        flat, offsets = self.encoder.encode_documents(self.waiting)
        if len(flat) and int(flat.max()) >= self.encoder.vocab_size:
            what = f"the tokenizer returned id {int(flat.max())}, its vocabulary has {self.encoder.vocab_size}"
            raise IntegrityError(what, remedy="check the tokenizer's files")
        has_separator = np.asarray(self.ends)
        narrow = flat.astype(token_type(self.encoder.vocab_size))
        self.tokens.append(np.insert(narrow, offsets[1:][has_separator], self.encoder.separator_id))
        self.lengths.append(np.diff(offsets).astype(np.int64) + has_separator)
        self.waiting, self.ends, self.waiting_characters = [], [], 0

    def finish(self) -> TokenTable:
        if self.waiting:
            self.encode()
        kind = token_type(self.encoder.vocab_size)
        return TokenTable(
            ids=self.ids,
            sources=self.sources,
            positions=np.asarray(self.positions, dtype=np.int64),
            text_bytes=np.asarray(self.text_bytes, dtype=np.int64),
            lengths=np.concatenate([np.zeros(0, dtype=np.int64), *self.lengths]),
            tokens=np.concatenate([np.zeros(0, dtype=kind), *self.tokens]),
        )
