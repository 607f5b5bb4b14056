"""Plain text and Python source: one file is one document, and a large one is cut into contiguous parts.

Parts end at a line break where the part has one, else between two UTF-8 characters. Text is kept byte for byte, line
ends included; a byte-order mark of UTF-8 at the start is not text and goes.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import tokenize
from collections.abc import Callable, Iterator

from llm_training.corpus.sources.decoding import NOT_REPLACED, decode, first_bad_byte
from llm_training.corpus.sources.record import UNDECODABLE, Cut, LimitedFormat, Limits, Record
from llm_training.corpus.streams import ByteStream

EncodingOf = Callable[[bytes], str]


def utf8(_head: bytes) -> str:
    """Text files are UTF-8."""
    return "utf-8"


def python_encoding(head: bytes) -> str:
    """The encoding of Python source by PEP 263: a byte-order mark, a comment in the first two lines, else UTF-8.

    Raises:
        SyntaxError: the comment names no encoding, or the first lines are not in it.
    """
    encoding = tokenize.detect_encoding(io.BytesIO(head).readline)[0]
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _is_unknown(error: SyntaxError) -> bool:
    """Whether the comment names no encoding that there is, rather than the first lines not being in theirs."""
    return str(error.msg).startswith("unknown encoding")


def line_boundary(data: bytes) -> int:
    """Where a part may end: after the last line break, else before the last UTF-8 character."""
    cut = data.rfind(b"\n") + 1
    if cut:
        return cut
    for back in range(1, min(4, len(data))):
        if data[-back] & 0xC0 != 0x80:  # the start of a character, perhaps an incomplete one
            return len(data) - back
    return len(data)


def _reason(error: Exception) -> str:
    """What a codec says, without what it could not write."""
    return error.reason if isinstance(error, UnicodeEncodeError) else str(error).partition(";")[0]


class TextFormat(LimitedFormat):
    """One document in one file."""

    is_cuttable = True
    head_bytes = 1 << 12

    def __init__(self, name: str, encoding_of: EncodingOf) -> None:
        self.name = name
        self._encoding_of = encoding_of

    def cuts(self, stream: ByteStream, start: int, stop: int | None, limits: Limits) -> Iterator[Cut]:
        """See :class:`Format`."""
        stream.seek(start)
        position = start
        while data := stream.read(limits.stretch_bytes if stop is None else min(limits.stretch_bytes, stop - position)):
            is_last = position + len(data) == stop or (stop is None and stream.is_at_end())
            if not is_last:
                boundary = self.boundary(data)
                stream.unread(data[boundary:])
                data = data[:boundary]
            yield Cut(position, position + len(data), 1, len(data), hashlib.sha256(data).hexdigest(), not is_last)
            position += len(data)

    def boundary(self, data: bytes) -> int:
        """Where a stretch of these bytes may end; at least 1."""
        return line_boundary(data)

    def tail_boundary(self, data: bytes) -> int:
        """Where the part that trains may end, when these bytes lead up to the last tenth."""
        return line_boundary(data)

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """See :class:`Format`."""
        try:
            encoding = self._encoding_of(head or data[: 1 << 16])
        except SyntaxError as error:
            if _is_unknown(error) or not limits.replaces_bad_bytes:
                offset = 0 if _is_unknown(error) else first_bad_byte(data)
                yield Record(first, offset=offset, reason=UNDECODABLE, detail=str(error.msg))
                return
            encoding = "utf-8"
        body = data.removeprefix(codecs.BOM_UTF8) if not head else data
        mark_bytes = len(data) - len(body)
        try:
            text, bad = decode(body, replaces=limits.replaces_bad_bytes, encoding=encoding)
            if encoding != "utf-8":
                text.encode()  # some codecs make halves of surrogate pairs
        except UnicodeDecodeError as error:
            yield Record(first, offset=error.start + mark_bytes, reason=UNDECODABLE, detail=f"not valid {encoding}: {error.reason}")
            return
        except (LookupError, ValueError) as error:
            yield Record(first, reason=UNDECODABLE, detail=f"{encoding} gives no text: {_reason(error)}")
            return
        replaced_at = bad if bad == NOT_REPLACED else bad + mark_bytes
        yield Record(first, text=text, reason="" if text.strip() else "empty text", replaced_at=replaced_at)
