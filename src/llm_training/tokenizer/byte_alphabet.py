"""The printable stand-ins that byte-level BPE uses for the 256 bytes, and the plain byte tokenizer made of them.

Printable bytes stand for themselves; the others take the code points from 256 upwards, in byte order. This is the
alphabet of GPT-2, which every byte-level ``tokenizer.json`` uses.
"""

from __future__ import annotations

from collections.abc import Mapping

SEPARATOR = "<|endoftext|>"
NUM_BYTES = 256
_PRINTABLE = frozenset((*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)))


def byte_characters() -> tuple[str, ...]:
    """The stand-in of each byte: element ``b`` is the character of byte ``b``."""
    characters: list[str] = []
    moved = 0
    for byte in range(NUM_BYTES):
        if byte in _PRINTABLE:
            characters.append(chr(byte))
        else:
            characters.append(chr(NUM_BYTES + moved))
            moved += 1
    return tuple(characters)


def separator_entry(token_id: int, content: str = SEPARATOR) -> dict[str, object]:
    """The ``added_tokens`` entry of a separator: special, so that it is never matched inside user text."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, **flags, "special": True}


def byte_level(use_regex: bool) -> dict[str, object]:
    """A ``ByteLevel`` part of a ``tokenizer.json``; with ``use_regex`` it also splits by GPT-2's pattern."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def bpe_definition(
    vocab: Mapping[str, int], merges: list[list[str]], pre_tokenizer: Mapping[str, object], separator_id: int, separator: str = SEPARATOR
) -> dict[str, object]:
    """A whole byte-level BPE ``tokenizer.json`` as a dictionary."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": merges,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [separator_entry(separator_id, separator)],
        "normalizer": None,
        "pre_tokenizer": dict(pre_tokenizer),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }


def byte_tokenizer_definition() -> dict[str, object]:
    """The byte tokenizer as a ``tokenizer.json``: id ``b`` is byte ``b``, 256 is the separator; there are no merges."""
    vocab = {character: byte for byte, character in enumerate(byte_characters())}
    return bpe_definition(vocab, [], byte_level(use_regex=False), NUM_BYTES)
