"""Where a tokenizer comes from: a file, a directory, GPT-2's two files, the byte tokenizer, or the Hub.

The Hub needs ``huggingface-hub`` (extra ``hub``); only ``tokenizer.json``, its configuration and GPT-2's two files are
fetched, never code.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, cast

import orjson

from llm_training.errors import ConfigError, IntegrityError
from llm_training.storage.manifest import MANIFEST_NAME, read_manifest, verify_file
from llm_training.storage.reading import read_bytes
from llm_training.tokenizer.backends import byte_definition
from llm_training.tokenizer.byte_alphabet import SEPARATOR, bpe_definition, byte_level
from llm_training.tokenizer.definition import MAX_FILE_BYTES, Definition, define, parse_definition

BYTES = "bytes"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
HUB_FILES = (TOKENIZER_FILE, CONFIG_FILE, VOCAB_FILE, MERGES_FILE)


def resolve_definition(spec: str | PathLike[str]) -> Definition:
    """Find and check the tokenizer that ``spec`` names.

    Raises:
        ConfigError: nothing is there.
        IntegrityError: it is damaged.
    """
    if spec == BYTES:
        return byte_definition()
    path = Path(spec)
    if path.is_dir():
        return _from_directory(path)
    if path.exists():
        _check_hash(path.resolve())
        return parse_definition(_read(path), where=str(path), separator=_configured_separator(path.parent))
    if _looks_like_hub_name(str(spec)):
        return _from_hub(str(spec))
    raise ConfigError(f"no tokenizer at {spec}", remedy=f"give a {TOKENIZER_FILE}, a directory, a Hub name or {BYTES!r}")


def definition_from_files(vocab: Path, merges: Path) -> Definition:
    """Join GPT-2's ``vocab.json`` and ``merges.txt``; a separator is added after the last id when the vocabulary has none."""
    for path in (vocab, merges):
        if not path.exists():
            raise ConfigError(f"no tokenizer file at {path}", remedy=f"give both {VOCAB_FILE} and {MERGES_FILE}")
    entries = _parse_vocab(vocab)
    pairs = _parse_merges(merges)
    separator_id = entries.setdefault(SEPARATOR, len(entries))
    raw = bpe_definition(entries, pairs, byte_level(use_regex=True), separator_id)
    return define(raw, where=f"{vocab} and {merges}")


def _from_directory(folder: Path) -> Definition:
    if (folder / TOKENIZER_FILE).exists():
        return resolve_definition(folder / TOKENIZER_FILE)
    if (folder / VOCAB_FILE).exists() and (folder / MERGES_FILE).exists():
        return definition_from_files(folder / VOCAB_FILE, folder / MERGES_FILE)
    remedy = f"it should hold {TOKENIZER_FILE}, or {VOCAB_FILE} and {MERGES_FILE}"
    raise ConfigError(f"no tokenizer in the directory {folder}", remedy=remedy)


def _check_hash(path: Path) -> None:
    """Compare with a manifest beside the file that lists it, before anything is parsed: damage is then called damage."""
    if not (path.parent / MANIFEST_NAME).is_file():
        return
    try:
        record = read_manifest(path.parent).files.get(path.name)
    except IntegrityError:
        return  # another program's file of that name; who owns the folder checks it
    if record is not None:
        verify_file(path.parent, path.name, record)


def _read(path: Path) -> bytes:
    real = path.resolve()  # the Hub's own folders are made of links, which the artefact reader refuses
    size = real.stat().st_size
    if size > MAX_FILE_BYTES:
        raise IntegrityError(f"tokenizer file has {size:,} bytes, the limit is {MAX_FILE_BYTES:,}", where=str(path))
    return read_bytes(real, max_bytes=MAX_FILE_BYTES)


def _configured_separator(folder: Path) -> str | None:
    """The end-of-text token that ``tokenizer_config.json`` beside a tokenizer names, when it names one."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    try:
        settings = orjson.loads(_without_big_numbers(_read(path)))
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"tokenizer configuration is not valid JSON ({error})", where=str(path)) from None
    token = settings.get("eos_token") if isinstance(settings, dict) else None
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _without_big_numbers(content: bytes) -> bytes:
    # Hugging Face writes int(1e30) for "no limit"; orjson reads integers of 64 bits only.
    return content.replace(str(int(1e30)).encode(), b"0")


def _parse_vocab(path: Path) -> dict[str, int]:
    try:
        entries = orjson.loads(_read(path))
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"vocabulary is not valid JSON ({error})", where=str(path)) from None
    if not isinstance(entries, dict) or not entries:
        raise IntegrityError("vocabulary is not a JSON object of tokens and ids", where=str(path))
    return cast("dict[str, Any]", entries)


def _parse_merges(path: Path) -> list[list[str]]:
    try:
        lines = _read(path).decode().split("\n")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"merges are not valid UTF-8 (byte offset {error.start})", where=str(path)) from None
    body = lines[1:] if lines[0].startswith("#version") else lines
    pairs = [line.rstrip("\r").split(" ") for line in body if line.strip()]
    bad = next((number for number, pair in enumerate(pairs) if len(pair) != 2), None)
    if bad is not None:
        raise IntegrityError(f"merge {bad} is not a pair of tokens: {' '.join(pairs[bad])!r}", where=str(path))
    return pairs


def _looks_like_hub_name(spec: str) -> bool:
    # "gpt2" or "owner/name"; anything else that does not exist is a mistyped path.
    parts = spec.split("/")
    return 1 <= len(parts) <= 2 and all(part and part[0].isalnum() for part in parts) and not spec.endswith((".json", ".txt"))


def _from_hub(name: str) -> Definition:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise ConfigError(
            f"no tokenizer at {name}, and names on the Hub need huggingface-hub", remedy="pip install 'llm-training[hub]'"
        ) from None
    try:
        folder = huggingface_hub.snapshot_download(name, allow_patterns=list(HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ConfigError(
            f"no tokenizer at {name}, and the Hub does not give one ({type(error).__name__})",
            remedy="check the name and the network, or give a path",
        ) from None
    return _from_directory(Path(folder))
