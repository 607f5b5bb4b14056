"""JSON files that carry the sha256 of their own content, so that a flipped bit in an index is found as surely as one in a chunk.

The file is the content with one more key, ``seal``. Keys are sorted and there is no time of day in any of them: the same
cache always has the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from llm_training.errors import IntegrityError
from llm_training.storage.durable import write_bytes
from llm_training.storage.reading import read_bytes

MAX_BYTES = 1 << 31
REBUILD = "build the cache again, with --force-rebuild if it is damaged"

_Value = TypeVar("_Value")


def canonical(content: Any) -> bytes:
    """The bytes that are hashed: compact JSON with sorted keys."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def digest(content: Any) -> str:
    """sha256 of JSON-able content, in hexadecimal."""
    return hashlib.sha256(canonical(content)).hexdigest()


def sealed_bytes(content: Mapping[str, Any]) -> bytes:
    """The one file that stands for ``content``."""
    sealed = {**content, "seal": digest(content)}
    return orjson.dumps(sealed, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` and its seal, durably and atomically. Raises StorageError."""
    write_bytes(path, sealed_bytes(content))


def read_sealed(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The content of a sealed file.

    Raises:
        IntegrityError: not JSON, a wrong seal, another kind of file, or a format version this program does not read.
        StorageError: it cannot be read.
    """
    return parse_sealed(read_bytes(path, max_bytes=MAX_BYTES), path, kind, version)


def parse_sealed(data: bytes, path: Path, kind: str, version: int) -> dict[str, Any]:
    """As `read_sealed`, from bytes that were read from ``path``."""
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"not valid JSON ({error})", where=str(path), remedy=REBUILD) from error
    seal = content.pop("seal", None) if isinstance(content, dict) else None
    if seal is None:
        raise IntegrityError("the file carries no seal", where=str(path), remedy=REBUILD)
    if sealed_bytes(content) != data:
        what = f"content hash is {digest(content)[:16]}, its seal says {str(seal)[:16]}"
        raise IntegrityError(what, where=str(path), remedy=REBUILD)
    if content.get("kind") != kind:
        raise IntegrityError(f"the file is a {content.get('kind')!r}, expected {kind!r}", where=str(path), remedy=REBUILD)
    if content.get("version") != version:
        what = f"format version {content.get('version')!r}, this program reads {version}"
        raise IntegrityError(what, where=str(path), remedy="use the program version that wrote it, or build the cache again")
    return content


def parse_content(path: Path, parse: Callable[[], _Value]) -> _Value:
    """Run ``parse`` over sealed content, turning a missing or mistyped field into an IntegrityError about ``path``."""
    try:
        return parse()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"a field is missing or of the wrong type ({error})", where=str(path), remedy=REBUILD) from error
