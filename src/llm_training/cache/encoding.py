"""Documents of one slice to tokens: batched for the encoder, a separator after each document, the smallest token type.

The rooms that read documents and encode text are passed in; these Protocols are all that is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llm_training.errors import DataError, IntegrityError, LlmTrainingError

# Text handed to the encoder at a time: large enough that calls cost nothing, small enough to stay out of the way.
ENCODE_CHARACTERS = 1 << 22

_TOKEN_TYPES = (np.uint8, np.uint16, np.uint32)


class DocumentLike(Protocol):
    """A document: where it comes from, its text, and the split it was assigned to."""

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

    @property
    def token_ids(self) -> Sequence[int] | None:
        """Ids already made, in place of text."""
        ...

    @property
    def is_continued(self) -> bool:
        """True when the next document goes on with this text, here or in the next slice: no separator between them."""
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
        DataError: a document of ready-made ids has one outside the vocabulary; or from the encoder.
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
    ends: list[bool] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[NDArray[np.unsignedinteger]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    waiting_characters: int = 0

    def add(self, document: DocumentLike) -> None:
        text = document.text
        self.ids.append(document.id)
        self.sources.append(document.source)
        self.positions.append(document.position)
        self.text_bytes.append(len(text) if text.isascii() else len(text.encode()))
        self.ends.append(not document.is_continued)
        if document.token_ids is not None:
            # The document's own entry in `ends` is the last; those waiting come before it.
            self.encode(before=1)
            self.take(np.asarray(document.token_ids, dtype=np.uint32), np.array([0, len(document.token_ids)]), self.ends[-1:], DataError)
            return
        self.waiting.append(text)
        self.waiting_characters += len(text)
        if self.waiting_characters >= ENCODE_CHARACTERS:
            self.encode()

    def encode(self, before: int = 0) -> None:
        """Encode what waits; ``before`` documents after it are already listed."""
        if self.waiting:
            flat, offsets = self.encoder.encode_documents(self.waiting)
            stop = len(self.ends) - before
            self.take(flat, offsets, self.ends[stop - len(self.waiting) : stop], IntegrityError)
            self.waiting, self.waiting_characters = [], 0

    def take(self, flat: NDArray[np.uint32], offsets: NDArray[np.int64], ends: list[bool], kind: type[LlmTrainingError]) -> None:
        if len(flat) and int(flat.max()) >= self.encoder.vocab_size:
            what = f"token id {int(flat.max())} is outside the vocabulary of {self.encoder.vocab_size}"
            raise kind(what, where=self.ids[-1], remedy="use the tokenizer that the ids were made with")
        has_separator = np.asarray(ends)
        narrow = flat.astype(token_type(self.encoder.vocab_size))
        self.tokens.append(np.insert(narrow, offsets[1:][has_separator], self.encoder.separator_id))
        self.lengths.append(np.diff(offsets).astype(np.int64) + has_separator)

    def finish(self) -> TokenTable:
        self.encode()
        # What goes on in the next document of this slice becomes one document with it, named by its first part.
        firsts = np.flatnonzero(np.concatenate([np.ones(1, dtype=bool), self.ends])[: len(self.ends)])
        kind = token_type(self.encoder.vocab_size)
        return TokenTable(
            ids=[self.ids[first] for first in firsts],
            sources=[self.sources[first] for first in firsts],
            positions=np.asarray(self.positions, dtype=np.int64)[firsts],
            text_bytes=_sum_from(np.asarray(self.text_bytes, dtype=np.int64), firsts),
            lengths=_sum_from(np.concatenate([np.zeros(0, dtype=np.int64), *self.lengths]), firsts),
            tokens=np.concatenate([np.zeros(0, dtype=kind), *self.tokens]),
        )


def _sum_from(values: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of ``values`` over the groups that begin at ``firsts``."""
    return np.add.reduceat(values, firsts) if len(firsts) else values
