"""JSON Lines: one record per line, its text in a named field.

Positions are line numbers counted from 0, blank and bad lines included, so that they can be known without parsing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator

import orjson

from llm_training.corpus.sources.decoding import NOT_REPLACED, decode
from llm_training.corpus.sources.record import MISSING_TEXT, UNDECODABLE, Cut, LimitedFormat, Limits, Record, too_long
from llm_training.corpus.streams import ByteStream

_SKIP_BYTES = 1 << 20
_SHORT_CHARACTERS = 200
_MAX_METADATA_BYTES = 8_192


def parse_record(raw: bytes, position: int, offset: int, limits: Limits) -> Record:
    """One JSON record; whatever is wrong with it becomes a reason."""
    if len(raw) > limits.record_bytes:
        return too_long(position, offset, len(raw), limits)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _parse_leniently(raw, position, offset, limits, str(error))
    return record_of_value(value, position, offset, limits.text_field)


def _parse_leniently(raw: bytes, position: int, offset: int, limits: Limits, message: str) -> Record:
    """What the strict parser refuses: tell bad bytes from bad JSON, and accept NaN, which Python's own writer produces."""
    try:
        text, bad = decode(raw, replaces=limits.replaces_bad_bytes)
        value = json.loads(text)
    except UnicodeDecodeError as error:
        return Record(position, offset + error.start, reason=UNDECODABLE, detail=f"not valid utf-8: {error.reason}")
    except (ValueError, RecursionError) as error:
        is_of_bytes = isinstance(error, json.JSONDecodeError) and "UTF-8" in message  # replaced, and wrong all the same
        return Record(position, offset, reason="invalid json", detail=str(error) if is_of_bytes else message)
    record = record_of_value(value, position, offset, limits.text_field)
    record.replaced_at = bad if bad == NOT_REPLACED else offset + bad
    try:
        orjson.dumps((record.text, record.id, record.metadata))  # all that may be written again
    except TypeError as error:
        if "surrogate" in str(error):
            return Record(position, offset, reason="lone surrogate", detail="the text or a field holds half of a surrogate pair")
        return Record(position, offset, reason="invalid json", detail=f"a field cannot be written as JSON: {error}")
    return record


def record_of_value(value: object, position: int, offset: int, text_field: str) -> Record:
    """The record that a parsed value holds; what is wrong with it becomes a reason."""
    if not isinstance(value, dict):
        return Record(position, offset, reason="not an object", detail=f"a record must be a JSON object, met {type(value).__name__}")
    if text_field not in value:
        return Record(
            position, offset, reason=MISSING_TEXT, detail=f"no field {text_field!r} (fields: {', '.join(map(str, list(value)[:8]))})"
        )
    text = value[text_field]
    if not isinstance(text, str):
        return Record(position, offset, reason="text not a string", detail=f"{text_field!r} is {type(text).__name__}")
    own_id = value.get("id")
    return Record(
        position,
        offset,
        text,
        str(own_id) if isinstance(own_id, str | int) and own_id != "" else None,
        _metadata({key: item for key, item in value.items() if key not in (text_field, "id")}) if len(value) > 1 else None,
        None,
        "" if text and not text.isspace() else "empty text",
    )


def _metadata(fields: dict[str, object]) -> dict[str, object]:
    """Short fields, and others that can be written as JSON while there is room; null says nothing."""
    if all(map(_is_short, fields.values())):
        return fields
    kept: dict[str, object] = {}
    room = _MAX_METADATA_BYTES
    for key, item in fields.items():
        size = 0 if _is_short(item) else _json_bytes(item)
        if size <= room:
            kept[key] = item
            room -= size
    return kept


def _is_short(value: object) -> bool:
    return isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= _SHORT_CHARACTERS)


def _json_bytes(value: object) -> int:
    """Length as JSON; more than any room for what is none or is null."""
    if isinstance(value, str | list | dict) and (not isinstance(value, str) or len(value) <= _MAX_METADATA_BYTES):
        with contextlib.suppress(TypeError):
            return len(orjson.dumps(value))
    return _MAX_METADATA_BYTES + 1


class JsonLinesFormat(LimitedFormat):
    """Records divided by line breaks."""

    name = "jsonl"
    is_cuttable = False
    head_bytes = 0

    def cuts(self, stream: ByteStream, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """See :class:`Format`. A last line without a line break is left out while it is not whole: its writer goes on."""
        stream.seek(start)
        while data := stream.read(limits.stretch_bytes):
            position = stream.position - len(data)
            boundary = data.rfind(b"\n") + 1
            if boundary:
                stream.unread(data[boundary:])
                yield _cut(position, data[:boundary])
                continue
            data += _rest_of_line(stream, limits.record_bytes - len(data))
            if data.endswith(b"\n") or (stream.is_at_end() and _is_whole(data)):
                yield _cut(position, data)
            elif not stream.is_at_end():
                yield _oversized(stream, position, data)

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """See :class:`Format`."""
        offset = 0
        lines = data.split(b"\n")
        if data.endswith(b"\n"):
            lines.pop()  # not `removesuffix` before: a line may be long, and that would be one more copy of it
        for number, line in enumerate(lines):
            start, offset = offset, offset + len(line) + 1
            body = line.strip()
            if not body:
                yield Record(first + number, start, reason="blank line")
                continue
            if first + number == 0 and not head:
                body = body.removeprefix(b"\xef\xbb\xbf")
            yield parse_record(body, first + number, start + line.find(body[:1]), limits)


def _cut(position: int, data: bytes) -> Cut:
    num_lines = data.count(b"\n") + (not data.endswith(b"\n"))
    return Cut(position, position + len(data), num_lines, len(data), hashlib.sha256(data).hexdigest())


def _rest_of_line(stream: ByteStream, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    while max_bytes > 0 and (part := stream.read(min(_SKIP_BYTES, max_bytes))):
        end = part.find(b"\n") + 1
        if end:
            stream.unread(part[end:])
            parts.append(part[:end])
            break
        parts.append(part)
        max_bytes -= len(part)
    return b"".join(parts)


def _is_whole(line: bytes) -> bool:
    """True for JSON, also with bytes that are no UTF-8: no more of the line will come."""
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return _is_whole_but_for_bytes(line)
    return True


def _is_whole_but_for_bytes(line: bytes) -> bool:
    if not line.rstrip().endswith(b"}"):
        return False
    text, bad = decode(line, replaces=True)
    try:
        return bad != NOT_REPLACED and isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _oversized(stream: ByteStream, position: int, data: bytes) -> Cut:
    """Pass over a line longer than the limit with bounded memory; the reader refuses the stretch by its size."""
    digest = hashlib.sha256(data)
    while data and not data.endswith(b"\n"):
        data = _rest_of_line(stream, _SKIP_BYTES)
        digest.update(data)
    return Cut(position, stream.position, 1, stream.position - position, digest.hexdigest())
