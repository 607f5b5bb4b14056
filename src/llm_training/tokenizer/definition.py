"""A tokenizer as data: the checked content of a ``tokenizer.json``, its fingerprint and its separator.

Everything a damaged or hostile file could say wrongly is refused here, before a native library sees it. It chose not
to depend on how a library version happens to write the file: the fingerprint is taken over the parts that decide ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from llm_training.errors import IntegrityError
from llm_training.tokenizer.byte_alphabet import SEPARATOR, byte_characters

MAX_DEPTH = 32
MAX_FILE_BYTES = 128 * 1024 * 1024
MAX_ENTRIES = 1 << 22
# The names under which published tokenizers carry their end of text, in order of preference.
SEPARATOR_NAMES = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>", "[SEP]")
MODEL_TYPES = ("BPE", "Unigram", "WordLevel", "WordPiece")
REMEDY = "train a new tokenizer or copy the file again from where it came"


@dataclass(frozen=True)
class Definition:
    """A checked tokenizer.

    Attributes:
        text: the ``tokenizer.json`` text that is saved and given to the backends.
        fingerprint: sha256 (hex) over everything that decides ids.
        vocab_size: number of ids; they run from 0 to ``vocab_size - 1`` without a hole.
        separator: content of the end-of-text token.
        separator_id: its id.
        is_byte_level: True when every byte has a token, so that any text survives a round trip.
        where: the place it was read from, for messages.
    """

    text: str
    fingerprint: str
    vocab_size: int
    separator: str
    separator_id: int
    is_byte_level: bool
    where: str = field(default="", compare=False)


def parse_definition(content: bytes | str, *, where: str, separator: str | None = None) -> Definition:
    """Check a ``tokenizer.json`` and make a :class:`Definition` of it.

    Raises:
        IntegrityError: for content that is not a whole, consistent tokenizer, naming what is wrong.
    """
    if len(content) > MAX_FILE_BYTES:
        raise _damaged(f"tokenizer file has {len(content):,} bytes, the limit is {MAX_FILE_BYTES:,}", where)
    try:
        raw = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _damaged(f"tokenizer file is not valid JSON ({error})", where) from None
    return define(raw, where=where, separator=separator)


def define(raw: object, *, where: str, separator: str | None = None) -> Definition:
    """Like :func:`parse_definition`, for a parsed ``tokenizer.json``."""
    data = dict(_mapping(raw, "the file", where))
    model = dict(_mapping(data.get("model"), "model", where))
    if model.get("type", "BPE") not in MODEL_TYPES:
        raise _damaged(f"tokenizer model type {model.get('type')!r} is unknown (known: {', '.join(MODEL_TYPES)})", where)
    _check_depth([data | {"model": None}, {key: value for key, value in model.items() if key not in ("vocab", "merges")}], where)
    vocab = _read_vocab(model, where)
    added = _read_added(data.get("added_tokens"), where)
    if "merges" in model:
        model["merges"] = _read_merges(model["merges"], vocab, where)
    ids = _all_ids(vocab, added, where)
    name = _choose_separator(ids, separator, where)
    data |= {"model": model, "truncation": None, "padding": None, "added_tokens": _with_special(added, ids, name)}
    is_byte_level = _uses_byte_level(data.get("pre_tokenizer"))
    if is_byte_level:
        _check_bytes(vocab, where)
    text = orjson.dumps(data).decode()
    return Definition(text, _fingerprint(data, vocab), len(ids), name, ids[name], is_byte_level, where)


def _damaged(what: str, where: str) -> IntegrityError:
    return IntegrityError(what, where=where, remedy=REMEDY)


def _mapping(value: object, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _damaged(f"tokenizer file is malformed: {name} is not an object but {type(value).__name__}", where)
    return cast("dict[str, Any]", value)


def _check_depth(parts: Sequence[object], where: str) -> None:
    """No tokenizer nests its parts deeper; writers and readers of JSON end at other depths each."""
    for _ in range(MAX_DEPTH):
        children = (node.values() if isinstance(node, dict) else node for node in parts if isinstance(node, dict | list))
        parts = [child for group in children for child in group]
        if not parts:
            return
    raise _damaged(f"tokenizer file is malformed: nested deeper than {MAX_DEPTH} levels", where)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_ENTRIES


def _read_vocab(model: Mapping[str, Any], where: str) -> dict[str, int]:
    vocab = model.get("vocab")
    if isinstance(vocab, list):  # Unigram lists [piece, score] in the order of ids
        pieces = [entry[0] for entry in vocab if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)]
        if len(pieces) != len(vocab):
            raise _damaged("tokenizer file is malformed: a vocabulary entry is not [text, score]", where)
        return {piece: index for index, piece in enumerate(pieces)}
    entries = _mapping(vocab, "model.vocab", where)
    bad = next((token for token, token_id in entries.items() if not _is_id(token_id)), None)
    if bad is not None:
        raise _damaged(f"token {bad!r} has the id {entries[bad]!r}, outside 0 to {MAX_ENTRIES - 1:,}", where)
    return dict(entries)


def _read_added(value: object, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _damaged("tokenizer file is malformed: added_tokens is not a list", where)
    entries = [dict(_mapping(entry, "an added token", where)) for entry in value]
    for entry in entries:
        if not _is_id(entry.get("id")) or not isinstance(entry.get("content"), str) or not entry["content"]:
            raise _damaged(f"added token {entry.get('content')!r} has the id {entry.get('id')!r}: not a text and an id in range", where)
    return entries


def _read_merges(value: object, vocab: Mapping[str, int], where: str) -> list[list[str]]:
    if not isinstance(value, list):
        raise _damaged("tokenizer file is malformed: model.merges is not a list", where)
    merges: list[list[str]] = []
    for number, entry in enumerate(value):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise _damaged(f"merge {number} is not a pair of tokens: {entry!r}", where)
        missing = next((token for token in (*pair, pair[0] + pair[1]) if token not in vocab), None)
        if missing is not None:
            raise _damaged(f"merge {number} needs the token {missing!r}, which the vocabulary lacks", where)
        merges.append(pair)
    return merges


def _all_ids(vocab: Mapping[str, int], added: Iterable[Mapping[str, Any]], where: str) -> dict[str, int]:
    ids = dict(vocab)
    for entry in added:
        if ids.setdefault(entry["content"], entry["id"]) != entry["id"]:
            raise _damaged(f"token {entry['content']!r} has two ids, {ids[entry['content']]} and {entry['id']}", where)
    taken = set(ids.values())
    if len(taken) != len(ids):
        raise _damaged(f"{len(ids) - len(taken)} token ids are given to two tokens", where)
    hole = next((token_id for token_id in range(len(ids)) if token_id not in taken), None)
    if hole is not None:
        raise _damaged(f"token ids have a hole: {hole} is not used although {max(taken)} is", where)
    return ids


def _choose_separator(ids: Mapping[str, int], wanted: str | None, where: str) -> str:
    names = (wanted, *SEPARATOR_NAMES) if wanted else SEPARATOR_NAMES
    found = next((name for name in names if name in ids), None)
    if found is None:
        looked = ", ".join(names)
        raise IntegrityError(f"tokenizer has no end-of-text token (looked for {looked})", where=where, remedy="add one to added_tokens")
    return found


def _with_special(added: Sequence[dict[str, Any]], ids: Mapping[str, int], name: str) -> list[dict[str, Any]]:
    """Mark the separator special, so that both backends read its text inside a document as plain text."""
    marked = [entry | {"special": True} if entry["content"] == name else entry for entry in added]
    if all(entry["content"] != name for entry in added):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        marked.append({"id": ids[name], "content": name, **flags, "special": True})
    return marked


def _uses_byte_level(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    node = cast("dict[str, Any]", part)
    return node.get("type") == "ByteLevel" or any(_uses_byte_level(child) for child in node.get("pretokenizers") or ())


def _check_bytes(vocab: Mapping[str, int], where: str) -> None:
    missing = [byte for byte, character in enumerate(byte_characters()) if character not in vocab]
    if missing:
        raise _damaged(f"byte-level tokenizer has no token for {len(missing)} of 256 bytes (first: 0x{missing[0]:02X})", where)


def _fingerprint(data: Mapping[str, Any], vocab: Mapping[str, int]) -> str:
    # Falsy model options equal missing ones (both mean "off"), so files of other library versions agree.
    model = {key: value for key, value in data["model"].items() if value or key in ("vocab", "merges")}
    parts = {key: data.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    parts |= {"model": {"type": "BPE", **model, "vocab": sorted(vocab.items(), key=lambda item: item[1])}}
    parts["added"] = sorted(data["added_tokens"], key=lambda entry: entry["id"])
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
