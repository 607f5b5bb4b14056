"""Counts and lengths of prepared documents, and the cutting of long ones. Pure."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_SHARES = {"p10": 0.1, "median": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass
class SplitStatistics:
    """Sums over one split, and with ``with_lengths`` the distribution of document lengths in words and tokens."""

    with_lengths: bool
    num_documents: int = 0
    num_bytes: int = 0
    num_characters: int = 0
    num_words: int = 0
    tokens: array[int] = field(default_factory=lambda: array("q"))
    words: array[int] = field(default_factory=lambda: array("q"))

    def add(self, text: str, num_tokens: int | None) -> None:
        """Count one document; ``num_tokens`` is None when it was not encoded."""
        self.num_documents += 1
        self.num_bytes += len(text.encode())
        self.num_characters += len(text)
        if self.with_lengths:
            self.words.append(len(text.split()))
        if num_tokens is not None:
            self.tokens.append(num_tokens)

    def as_json(self) -> dict[str, Any]:
        """Plain values; lengths as a summary."""
        found: dict[str, Any] = {"num_documents": self.num_documents, "num_bytes": self.num_bytes, "num_characters": self.num_characters}
        if self.tokens:
            total = sum(self.tokens)
            found |= {"num_tokens": total, "bytes_per_token": round(self.num_bytes / total, 4) if total else None}
        if self.with_lengths:
            found |= {"num_words": sum(self.words), "words_per_document": summary(self.words), "tokens_per_document": summary(self.tokens)}
        return found


def summary(values: Sequence[int]) -> dict[str, float]:
    """Least, greatest, mean and quantiles (nearest rank)."""
    if not values:
        return {}
    ordered = sorted(values)
    quantiles = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in _SHARES.items()}
    return {"min": ordered[0], **quantiles, "max": ordered[-1], "mean": round(statistics.fmean(ordered), 2)}


def cut_to_length(text: str, max_tokens: int, encode: Callable[[str], Sequence[int]]) -> list[str]:
    """Pieces of at most ``max_tokens`` tokens each that joined are the text; cut after white space where there is some.

    A single character of more tokens than that stays one piece.
    """
    num_tokens = len(encode(text))
    if num_tokens <= max_tokens:
        return [text]
    per_token = len(text) / num_tokens
    pieces: list[str] = []
    start = 0
    while start < len(text):
        piece = _fitting(text[start : start + max(1, int(max_tokens * per_token))], max_tokens, encode)
        if start + len(piece) < len(text):
            piece = _to_white_space(piece)
        pieces.append(piece)
        start += len(piece)
    return pieces


def _fitting(piece: str, max_tokens: int, encode: Callable[[str], Sequence[int]]) -> str:
    while len(piece) > 1 and (count := len(encode(piece))) > max_tokens:
        piece = piece[: max(1, min(len(piece) - 1, int(len(piece) * max_tokens / count)))]
    return piece


def _to_white_space(piece: str) -> str:
    """Up to the last white space in the second half; a shorter piece never has many more tokens, a longer one would."""
    for end in range(len(piece), len(piece) // 2, -1):
        if piece[end - 1].isspace():
            return piece[:end]
    return piece
