"""WARC and WET: archives of web pages.

WET (``conversion`` records) holds text. WARC (``response`` and ``resource`` records) holds pages: their main content is
extracted here, so that training reads text, unless ``keep_html`` leaves that to a cleaning. Requests, metadata, redirects,
errors and pictures are counted as "not a page". Positions count all records of the file.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llm_training.corpus.sources.decoding import NOT_REPLACED, decode
from llm_training.corpus.sources.record import UNDECODABLE, Cut, Limits, Record, too_long
from llm_training.corpus.streams import ByteStream
from llm_training.errors import ConfigError, DataError
from llm_training.pages import extract_page

_HEAD_BYTES = 1 << 14
_SKIP_BYTES = 1 << 20
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_TEXT_TYPES = frozenset({"text/plain"})
_PAGE_TYPES = _HTML_TYPES | _TEXT_TYPES
_HTTP_OK = "200"
_NOT_A_PAGE = "not a page"


class _Head(NamedTuple):
    """The header of a record: its fields by lower-case name, its own length and that of what follows, bytes."""

    fields: dict[str, str]
    num_bytes: int
    content_bytes: int

    @property
    def total(self) -> int:
        return self.num_bytes + self.content_bytes


def _parse_head(data: bytes) -> _Head:
    """Raises ValueError for anything that is not the header of a record."""
    found = _HEADER_END.search(data)
    if not data.startswith(b"WARC/") or found is None:
        raise ValueError("no WARC header")
    lines = data[: found.start()].decode("utf-8", errors="replace").splitlines()[1:]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(fields.get("content-length", "-1"))
    if length < 0:
        raise ValueError("no Content-Length")
    return _Head(fields, found.end(), length)


class WarcFormat:
    """Records that follow each other, each with its length."""

    name = "warc"
    is_cuttable = False
    head_bytes = 0

    def cuts(self, stream: ByteStream, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """See :class:`Format`. Raises DataError for a record that is cut off or has no header."""
        stream.seek(start)
        group: list[bytes] = []
        size, position = 0, start
        while (head := _next_head(stream, stop)) is not None:
            if group and size + head.total > limits.stretch_bytes:
                yield _cut(position, group)
                position, group, size = position + size, [], 0
            if head.total > max(limits.record_bytes, limits.stretch_bytes):
                yield _oversized(stream, position, head)
                position = stream.position
                continue
            data = _exactly(stream, head.total) + _line_ends(stream)
            group.append(data)
            size += len(data)
        if group:
            yield _cut(position, group)

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """See :class:`Format`. Raises ConfigError without the packages that read pages."""
        offset = number = 0
        while offset < len(data):
            found = _parse_head(data[offset : offset + _HEAD_BYTES])
            content = data[offset + found.num_bytes : offset + found.total]
            record = _record(found, data[offset : offset + found.total], content, limits)
            record.position, record.offset = first + number, offset + record.offset
            record.replaced_at += offset if record.replaced_at != NOT_REPLACED else 0
            yield record
            number += 1
            offset += found.total
            while data[offset : offset + 1] in (b"\r", b"\n"):
                offset += 1

    def oversized(self, start: bytes, position: int, num_bytes: int, limits: Limits) -> Record:
        """See :class:`Format`: a page is too long, a picture or film is none whatever its size."""
        head = _parse_head(start)
        if _is_page(head, start[head.num_bytes :]):
            return too_long(position, 0, num_bytes, limits)
        return Record(position, reason=_NOT_A_PAGE)


def _is_page(head: _Head, content: bytes) -> bool:
    """Whether a record whose content begins so is one that is read, by what its headers say."""
    kind = head.fields.get("warc-type", "").lower()
    if _is_about_the_archive(head):
        return False
    if kind == "conversion":
        return True
    if kind == "response":
        status, *lines = _HEADER_END.split(content, 1)[0].decode("latin-1").splitlines() or [""]
        fields = {name.strip().lower(): value for name, _, value in (line.partition(":") for line in lines)}
        return status.split()[1:2] == [_HTTP_OK] and _type_of(fields.get("content-type", "")) in _PAGE_TYPES
    return kind == "resource" and _type_of(head.fields.get("content-type", "")) in _PAGE_TYPES


def _is_about_the_archive(head: _Head) -> bool:
    """A resource that the program which made the archive adds about itself: its log, its arguments (Wget's ``metadata://``)."""
    return head.fields.get("warc-target-uri", "").lstrip("<").lower().startswith("metadata:")


def _type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _next_head(stream: ByteStream, stop: int | None) -> _Head | None:
    """The header at the stream's place, which stays there; None at the end."""
    if stop is not None and stream.position >= stop:
        return None
    _line_ends(stream)
    data = stream.read(_HEAD_BYTES)
    stream.unread(data)
    if not data:
        return None
    try:
        return _parse_head(data)
    except ValueError as error:
        what = f"not a WARC record ({error})"
        raise DataError(what, where=f"{stream.path}, byte offset {stream.position}", remedy="copy the file again") from None


def _line_ends(stream: ByteStream) -> bytes:
    """The line breaks that follow a record."""
    found = bytearray()
    while (byte := stream.read(1)) in (b"\r", b"\n"):
        found += byte
    stream.unread(byte)
    return bytes(found)


def _exactly(stream: ByteStream, size: int) -> bytes:
    start = stream.position
    data = stream.read(size)
    if len(data) < size:
        what = f"the last WARC record is cut off: {len(data):,} of {size:,} bytes"
        raise DataError(what, where=f"{stream.path}, byte offset {start}", remedy="copy the file again")
    return data


def _cut(position: int, group: list[bytes]) -> Cut:
    data = b"".join(group)
    return Cut(position, position + len(data), len(group), len(data), hashlib.sha256(data).hexdigest())


def _oversized(stream: ByteStream, position: int, head: _Head) -> Cut:
    """Pass over a record longer than the limit with bounded memory; the reader refuses the stretch by its size."""
    digest, missing = hashlib.sha256(), head.total
    while missing:
        data = _exactly(stream, min(_SKIP_BYTES, missing))
        digest.update(data)
        missing -= len(data)
    digest.update(_line_ends(stream))
    return Cut(position, stream.position, 1, stream.position - position, digest.hexdigest())


def _record(head: _Head, raw: bytes, content: bytes, limits: Limits) -> Record:
    read = _READERS.get(head.fields.get("warc-type", "").lower())
    if read is None or _is_about_the_archive(head):
        return Record(0, reason=_NOT_A_PAGE)
    return read(head, raw, content, limits)


def _read_conversion(head: _Head, _raw: bytes, content: bytes, limits: Limits) -> Record:
    """Text that was extracted before: UTF-8 by definition."""
    if len(content) > limits.record_bytes:
        return too_long(0, 0, len(content), limits)
    try:
        text, bad = decode(content, replaces=limits.replaces_bad_bytes)
    except UnicodeDecodeError as error:
        return Record(0, head.num_bytes + error.start, reason=UNDECODABLE, detail=f"not valid utf-8: {error.reason}")
    record = _text_record(head, text, "text/plain")
    record.replaced_at = bad if bad == NOT_REPLACED else head.num_bytes + bad
    return record


def _read_resource(head: _Head, _raw: bytes, content: bytes, limits: Limits) -> Record:
    """A page without the answer of a server around it."""
    return _page_record(head, content, head.fields.get("content-type", ""), None, limits)


def _read_response(head: _Head, raw: bytes, _content: bytes, limits: Limits) -> Record:
    """A page as a server sent it, transfer and content encodings undone."""
    try:
        from fastwarc.warc import ArchiveIterator
    except ImportError:
        raise ConfigError("reading pages of WARC files needs fastwarc", remedy="pip install 'llm-training[data]'") from None
    try:
        record: Any = next(iter(ArchiveIterator(io.BytesIO(raw), parse_http=True, auto_decode="all", stream_detect=False)), None)
        headers = record.http_headers if record is not None else None
        if record is None or headers is None or str(headers.status_code) != _HTTP_OK:
            return Record(0, reason=_NOT_A_PAGE)
        content_type, charset = record.http_content_type or "", record.http_charset
        content = record.reader.read(limits.record_bytes + 1)
    except (ValueError, OSError, EOFError) as error:
        return Record(0, reason="malformed page", detail=str(error)[:160])
    return _page_record(head, content, content_type, charset, limits)


def _page_record(head: _Head, content: bytes, content_type: str, charset: str | None, limits: Limits) -> Record:
    kind, parameters = _type_of(content_type), content_type.partition(";")[2]
    if kind not in _PAGE_TYPES:
        return Record(0, reason=_NOT_A_PAGE)
    if len(content) > limits.record_bytes:
        return too_long(0, 0, None, limits)
    named = re.search(r"charset=[\"']?([\w.:-]+)", parameters)
    text = _decode(content, charset or (named.group(1) if named else None), is_html=kind in _HTML_TYPES)
    if kind in _HTML_TYPES and not limits.keep_html:
        return _text_record(head, extract_page(text), "text/plain")
    return _text_record(head, text, "text/html" if kind in _HTML_TYPES else kind)


def _decode(content: bytes, charset: str | None, *, is_html: bool) -> str:
    """As the server says, else as the page says, else as its bytes look; never fails, as browsers never do."""
    try:
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    except ImportError:
        raise ConfigError("reading pages of WARC files needs resiliparse", remedy="pip install 'llm-training[data]'") from None
    try:
        return bytes_to_str(content, charset or detect_encoding(content, from_html_meta=is_html) or "utf-8", errors="replace")
    except LookupError:
        return bytes_to_str(content, "utf-8", errors="replace")


def _text_record(head: _Head, text: str, content_type: str) -> Record:
    """A record with its address, date and type; its id is the archive's own."""
    url, date = head.fields.get("warc-target-uri", "").strip("<>"), head.fields.get("warc-date", "")
    own_id = head.fields.get("warc-record-id", "").strip("<>") or None
    metadata = {"content_type": content_type} | ({"url": url} if url else {}) | ({"date": date} if date else {})
    return Record(0, text=text, id=own_id, metadata=metadata, reason="" if text.strip() else "empty text")


_READERS: dict[str, Callable[[_Head, bytes, bytes, Limits], Record]] = {
    "conversion": _read_conversion,
    "resource": _read_resource,
    "response": _read_response,
}
