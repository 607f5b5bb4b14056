"""How well a tokenizer fits a text: bytes per token and tokens per word, in all and by source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from llm_training.tokenizer.tokenizer import Tokenizer

MAX_SOURCES = 40
OTHER_SOURCES = "(others)"
_BATCH_CHARACTERS = 1 << 22


@dataclass
class Fertility:
    """Sizes of one text. A word is what white space separates."""

    num_documents: int = 0
    num_bytes: int = 0
    num_words: int = 0
    num_tokens: int = 0

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 text per token; 0 without tokens."""
        return self.num_bytes / self.num_tokens if self.num_tokens else 0.0

    @property
    def tokens_per_word(self) -> float:
        """Tokens per white-space separated word; 0 without words."""
        return self.num_tokens / self.num_words if self.num_words else 0.0

    def row(self) -> tuple[str, ...]:
        """The cells of a table: documents, bytes, words, tokens and the two ratios."""
        counts = (self.num_documents, self.num_bytes, self.num_words, self.num_tokens)
        return (*(f"{count:,}" for count in counts), f"{self.bytes_per_token:.3f}", f"{self.tokens_per_word:.3f}")

    def to_json(self) -> dict[str, float]:
        """Counts and ratios."""
        return asdict(self) | {"bytes_per_token": round(self.bytes_per_token, 4), "tokens_per_word": round(self.tokens_per_word, 4)}

    def add(self, text: str, num_tokens: int) -> None:
        """Count one document."""
        self.num_documents += 1
        self.num_bytes += len(text.encode())
        self.num_words += len(text.split())
        self.num_tokens += num_tokens


@dataclass(frozen=True)
class TokenizerReport:
    """What ``llm-train-tokenizer`` prints, and writes beside the tokenizer.

    Attributes:
        seconds: training time.
        used_entries: different ids that the held-out text needed.
        held_out: sums over the held-out text; ``by_source`` the same by source, the largest first.
    """

    columns: ClassVar = ("source", "documents", "bytes", "words", "tokens", "bytes per token", "tokens per word")
    vocab_size: int
    fingerprint: str
    backend: str
    seconds: float
    used_entries: int
    held_out: Fertility
    by_source: Mapping[str, Fertility]

    def facts(self) -> dict[str, str]:
        """Names and values for a reader."""
        used = f", {self.used_entries:,} of them used by the held-out text" if self.held_out.num_tokens else ""
        return {
            "Entries": f"{self.vocab_size:,}{used}",
            "Training": f"{self.seconds:.1f} s",
            "Held-out text": f"{self.held_out.num_bytes:,} bytes in {self.held_out.num_documents:,} documents",
            "Bytes per token": f"{self.held_out.bytes_per_token:.3f}",
            "Tokens per word": f"{self.held_out.tokens_per_word:.3f}",
            "Encoder": self.backend,
            "Fingerprint": self.fingerprint[:16],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """A row of `columns` for each source, and one for all when there are several."""
        parts = [*self.by_source.items(), *([("all", self.held_out)] if len(self.by_source) > 1 else [])]
        return [(name, *part.row()) for name, part in parts]

    def to_json(self) -> dict[str, object]:
        """The report as plain values."""
        plain = asdict(self)
        plain["held_out"] = self.held_out.to_json()
        plain["by_source"] = {name: part.to_json() for name, part in self.by_source.items()}
        return plain


def measure_tokenizer(tokenizer: Tokenizer, documents: Iterable[tuple[str, str]], *, seconds: float = 0.0) -> TokenizerReport:
    """Encode (source, text) pairs in batches of bounded size and count.

    Args:
        tokenizer: the one to measure.
        documents: held-out text with the name of its source; from `MAX_SOURCES` names on, the others are counted together.
        seconds: how long training took, for the report.
    """
    total, by_source = Fertility(), dict[str, Fertility]()
    is_used = np.zeros(tokenizer.vocab_size, dtype=bool)
    for batch in _batches(documents):
        ids, offsets = tokenizer.encode_documents([text for _, text in batch])
        is_used[ids] = True
        for (source, text), num_tokens in zip(batch, (offsets[1:] - offsets[:-1]).tolist(), strict=True):
            total.add(text, num_tokens)
            name = source if source in by_source or len(by_source) < MAX_SOURCES else OTHER_SOURCES
            by_source.setdefault(name, Fertility()).add(text, num_tokens)
    ranked = dict(sorted(by_source.items(), key=lambda entry: (-entry[1].num_bytes, entry[0])))
    return TokenizerReport(tokenizer.vocab_size, tokenizer.fingerprint, tokenizer.backend, seconds, int(is_used.sum()), total, ranked)


def _batches(documents: Iterable[tuple[str, str]]) -> Iterable[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document[1])
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
