"""The tokenizer that every other room uses: text to ids, ids to text, and the files beside a model.

It chose not to add anything to a text: separators are placed by the cache, chat templates by nobody. The text of a
special token inside a document is plain text; only the separator's id, written by the cache, ends a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import orjson

from llm_training.errors import DataError, IntegrityError
from llm_training.storage import durable
from llm_training.tokenizer.backends import choose_backend
from llm_training.tokenizer.definition import Definition
from llm_training.tokenizer.load import definition_from_files, resolve_definition
from llm_training.tokenizer.long_words import MAX_WORD_CHARACTERS, cut_long_words

# The value Hugging Face writes for "no limit".
_NO_LENGTH_LIMIT = int(1e30)


class Tokenizer:
    """Byte-level BPE, or any other tokenizer that a ``tokenizer.json`` describes.

    Attributes:
        definition: the checked content.
        backend: ``fastokens``, ``tokenizers`` or ``bytes``: the engine that encodes.
        backend_reason: why this engine.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._choice = choose_backend(definition)
        self.backend = self._choice.bulk.name
        self.backend_reason = self._choice.reason

    @classmethod
    def from_files(cls, vocab: str | PathLike[str], merges: str | PathLike[str]) -> Tokenizer:
        """Load GPT-2's two files, ``vocab.json`` and ``merges.txt``.

        Raises:
            ConfigError: a file is missing.
            IntegrityError: a file is damaged or the two do not belong together.
        """
        return cls(definition_from_files(Path(vocab), Path(merges)))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.definition.vocab_size

    @property
    def separator(self) -> str:
        """Text of the token that ends a document."""
        return self.definition.separator

    @property
    def separator_id(self) -> int:
        """Id of the token that ends a document."""
        return self.definition.separator_id

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of everything that decides ids: stored in caches and checkpoints."""
        return self.definition.fingerprint

    def encode(self, text: str) -> list[int]:
        """Ids of one text, nothing added."""
        return self.encode_documents([text])[0].tolist()

    def encode_documents(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode many documents at once.

        Returns:
            ids of all documents, uint32 [N], and offsets, int64 [len(texts) + 1]: document i has
            ``ids[offsets[i]:offsets[i + 1]]``. No separator is added.

        Raises:
            DataError: a text holds a lone surrogate, which is not a character.
        """
        pieces, first_pieces = cut_long_words(texts, MAX_WORD_CHARACTERS)
        try:
            ids, offsets = self._choice.bulk.encode_flat(pieces)
        except UnicodeEncodeError as error:
            raise DataError(
                f"document holds a lone surrogate (U+{ord(error.object[error.start]):04X}), which is not a character",
                remedy="decode the source with errors='replace'",
            ) from None
        return ids, offsets if first_pieces is None else offsets[first_pieces]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ids, special tokens included; an incomplete character at either end becomes U+FFFD.

        Raises:
            IntegrityError: an id outside the vocabulary.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        outside = tokens[(tokens < 0) | (tokens >= self.vocab_size)]
        if outside.size:
            raise IntegrityError(
                f"token id {outside[0]} is outside the vocabulary of {self.vocab_size:,}", remedy="use the tokenizer the ids were made with"
            )
        return self._choice.reference.native.decode(tokens.tolist(), skip_special_tokens=False)

    def token_text(self, token_id: int) -> str:
        """The vocabulary entry of an id as the file spells it (bytes as their stand-ins)."""
        return self._choice.reference.native.id_to_token(token_id) or ""

    def files(self) -> dict[str, bytes]:
        """The files that make ``AutoTokenizer`` give equal ids, by name."""
        names = {"eos_token": self.separator, "pad_token": self.separator}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "clean_up_tokenization_spaces": False}
        limit = f',"model_max_length":{_NO_LENGTH_LIMIT}}}'.encode()  # larger than 64 bits, which orjson refuses
        return {
            "tokenizer.json": self.definition.text.encode(),
            "tokenizer_config.json": orjson.dumps(settings)[:-1] + limit,
            "special_tokens_map.json": orjson.dumps(names),
        }

    def vocab_files(self) -> dict[str, bytes]:
        """GPT-2's form of the same tokenizer, ``vocab.json`` and, for BPE, ``merges.txt``."""
        model = orjson.loads(self.definition.text)["model"]
        if not isinstance(model["vocab"], dict):
            return {}
        vocab = model["vocab"] | {self.separator: self.separator_id}
        lines = [" ".join(pair) for pair in model.get("merges", ())]
        return {"vocab.json": orjson.dumps(vocab), "merges.txt": "\n".join(["#version: 0.2", *lines, ""]).encode()}

    def save(self, directory: str | PathLike[str]) -> None:
        """Write :meth:`files` into a directory, which is made when missing.

        Raises:
            StorageError: the disk refused.
        """
        durable.make_directory(Path(directory))
        for name, content in self.files().items():
            durable.write_bytes(Path(directory) / name, content)


def load_tokenizer(spec: str | PathLike[str]) -> Tokenizer:
    """Load a tokenizer.

    Args:
        spec: a ``tokenizer.json``, a directory with one or with ``vocab.json`` and ``merges.txt``, ``bytes``, or a name
            on the Hugging Face Hub.

    Raises:
        ConfigError: nothing is there, or the Hub cannot be reached.
        IntegrityError: the tokenizer is damaged.
    """
    return Tokenizer(resolve_definition(spec))
