"""Text files of token ids, one per line or separated by spaces: documents that are already encoded.

This kind is declared (``token-ids:PATH``), never guessed: ``.tokens`` files of WikiText are words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llm_training.corpus.sources.record import Limits, Record
from llm_training.corpus.sources.text import TextFormat, utf8

_NOT_IDS = re.compile(rb"[^0-9\s]")
_MAX_ID = 2**32 - 1


def _last_space(data: bytes) -> int:
    """Index after the last character that is no digit."""
    return len(data.rstrip(b"0123456789"))


class TokenIdFormat(TextFormat):
    """One document of ids in one file."""

    def __init__(self) -> None:
        super().__init__("token-ids", utf8)

    def boundary(self, data: bytes) -> int:
        """After the last white space, so that no id is divided."""
        return max(data.rfind(b"\n"), data.rfind(b" ")) + 1 or _last_space(data) or len(data)

    def tail_boundary(self, data: bytes) -> int:
        """After the last line break, else the last white space; 0 where there is none: a single id is not divided."""
        return data.rfind(b"\n") + 1 or max(data.rfind(b" ") + 1, _last_space(data))

    def records(self, data: bytes, first: int, head: bytes, limits: Limits) -> Iterator[Record]:
        """See :class:`Format`."""
        found = _NOT_IDS.search(data)
        if found is not None:
            yield Record(first, offset=found.start(), reason="not token ids", detail=f"expected digits, met {found.group()!r}")
            return
        ids = tuple(map(int, data.split()))
        if ids and max(ids) > _MAX_ID:
            yield Record(first, reason="not token ids", detail=f"the id {max(ids)} does not fit into 32 bits")
            return
        yield Record(first, token_ids=ids, reason="" if ids else "empty text")
