"""The engines that turn texts into ids, and the choice between them.

``fastokens`` is 30 to 50 times faster per core than ``tokenizers`` but a younger library: it is used for a tokenizer
only after giving the reference's ids on the probe set, and the verdict is kept for the life of the process. Decoding
always belongs to the reference: it is not the bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar

import fastokens
import numpy as np
import tokenizers

from llm_training.errors import IntegrityError
from llm_training.tokenizer.byte_alphabet import byte_tokenizer_definition
from llm_training.tokenizer.definition import Definition, define
from llm_training.tokenizer.probe import probe_texts

Flat = tuple[np.ndarray, np.ndarray]
Result = TypeVar("Result")


class Backend(Protocol):
    """An encoder. Text of special tokens is plain text for it, and it adds nothing."""

    name: str

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """Ids of all texts, uint32 [N], and offsets, int64 [len(texts) + 1]: text i has ``ids[offsets[i]:offsets[i+1]]``."""
        ...


class ReferenceBackend:
    """Hugging Face ``tokenizers``: trains, decodes, and is what the others are compared with."""

    name = "tokenizers"

    def __init__(self, definition: Definition) -> None:
        self.native = _guard(lambda: tokenizers.Tokenizer.from_str(definition.text), "tokenizers", definition.where)
        self.native.encode_special_tokens = True

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """See :class:`Backend`."""
        rows = [encoding.ids for encoding in self.native.encode_batch_fast(list(texts), add_special_tokens=False)]
        flat = np.fromiter((token for row in rows for token in row), dtype=np.uint32, count=sum(map(len, rows)))
        return flat, _offsets(list(map(len, rows)))


class FastBackend:
    """``fastokens``: the bulk encoder."""

    name = "fastokens"

    def __init__(self, definition: Definition) -> None:
        self._native = _guard(lambda: fastokens.Tokenizer.from_json_str(definition.text), "fastokens", definition.where)

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """See :class:`Backend`."""
        ids, offsets = self._native.encode_batch_flat(list(texts), add_special_tokens=False, split_special_tokens=True)
        return np.frombuffer(ids, dtype="<u4"), np.frombuffer(offsets, dtype="<u8").astype(np.int64)


class ByteBackend:
    """The byte tokenizer needs no library: the ids are the bytes."""

    name = "bytes"

    def encode_flat(self, texts: Sequence[str]) -> Flat:
        """See :class:`Backend`."""
        rows = [text.encode() for text in texts]
        return np.frombuffer(b"".join(rows), dtype=np.uint8).astype(np.uint32), _offsets(list(map(len, rows)))


class Choice(NamedTuple):
    """The engines of one tokenizer: ``bulk`` encodes, ``reference`` decodes, ``reason`` says why ``bulk`` is what it is."""

    bulk: Backend
    reference: ReferenceBackend
    reason: str


@lru_cache(maxsize=8)
def choose_backend(definition: Definition) -> Choice:
    """The fastest engine that gives the reference's ids; cached by the content of the definition.

    Raises:
        IntegrityError: the reference library refuses the definition, or its special text cannot be kept apart.
    """
    reference = ReferenceBackend(definition)
    _check_separator(reference, definition)
    if definition.fingerprint == byte_definition().fingerprint:
        return Choice(ByteBackend(), reference, "ids are bytes")
    try:
        fast = FastBackend(definition)
    except IntegrityError as error:
        return Choice(reference, reference, f"fastokens cannot load this tokenizer ({error.what})")
    difference = first_difference(fast, reference, probe_texts())
    if difference is not None:
        return Choice(reference, reference, f"fastokens gives other ids on {difference!r}")
    return Choice(fast, reference, "fastokens equals tokenizers on the probe set")


@lru_cache(maxsize=1)
def byte_definition() -> Definition:
    """The byte tokenizer, checked like any other."""
    return define(byte_tokenizer_definition(), where="bytes")


def first_difference(one: Backend, other: Backend, texts: Sequence[str]) -> str | None:
    """The first text on which two backends disagree (or on which one fails), or None."""
    for text in texts:
        if not np.array_equal(_ids_or_failure(one, text), _ids_or_failure(other, text)):
            return text
    return None


def _ids_or_failure(backend: Backend, text: str) -> np.ndarray:
    try:
        return _guard(lambda: backend.encode_flat([text])[0], backend.name)
    except IntegrityError:
        return np.array([-1 if backend.name == "tokenizers" else -2])  # a failure never equals anything


def _check_separator(reference: ReferenceBackend, definition: Definition) -> None:
    ids, _ = reference.encode_flat([f"a {definition.separator} b"])
    if definition.separator_id in ids:
        raise IntegrityError(
            f"the text {definition.separator!r} inside a document becomes the control token {definition.separator_id}",
            where=definition.where,
            remedy="use a tokenizer whose pre-tokenizer splits it",
        )


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)


def _guard(call: Callable[[], Result], library: str, where: str = "") -> Result:
    """Turn whatever a native tokenizer library throws, panics included, into an IntegrityError."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic derives from BaseException only
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IntegrityError(f"{library} refuses the tokenizer: {message[:200]}", where=where) from None
