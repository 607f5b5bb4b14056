"""Texts of the test files that training data must not hold.

A JSON file may hold items of any form: every string in it counts as a text. Of other files every line does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from llm_training.corpus.streams import ByteStream, compression_of
from llm_training.errors import DataError
from llm_training.storage.home import expanded

_BLOCK_BYTES = 1 << 20
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


def require_tests(paths: Sequence[str]) -> None:
    """Raise DataError for a path that is no file, before anything is read."""
    for name in paths:
        path = expanded(name)
        if not path.exists():
            raise DataError("no such file of tests", where=name, remedy="check the path given to --decontaminate")
        if not path.is_file():
            raise DataError("not a file of tests", where=name, remedy="give files to --decontaminate, each by its name")


def texts_of_tests(paths: Sequence[str]) -> Iterator[str]:
    """All texts of the files, compressed or not. Raises DataError, StorageError."""
    for name in paths:
        path = expanded(name)
        stream = ByteStream(path)
        try:
            text = b"".join(iter(lambda: stream.read(_BLOCK_BYTES), b"")).decode("utf-8-sig", errors="replace")  # noqa: B023 - read at once
        finally:
            stream.close()
        plain = path.with_suffix("") if compression_of(path) else path
        try:
            yield from _texts_of_json(text) if plain.suffix.lower() in _JSON_SUFFIXES else text.split("\n")
        except orjson.JSONDecodeError as error:
            raise DataError(f"a test file is not JSON ({error})", where=name, remedy="give JSON, JSON Lines or plain text") from None


def _texts_of_json(text: str) -> Iterator[str]:
    try:
        values = [orjson.loads(text)]
    except orjson.JSONDecodeError:
        values = map(orjson.loads, filter(str.strip, text.split("\n")))  # not splitlines: a string may hold U+2028
    for value in values:
        yield from _strings_in(value)


def _strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings_in(item)
