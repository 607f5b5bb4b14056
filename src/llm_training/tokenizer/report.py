"""How well a tokenizer fits a text: bytes per token and tokens per word, in all and by source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from llm_training.tokenizer.tokenizer import Tokenizer

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

    def __str__(self) -> str:
        return f"{self.bytes_per_token:.3f} bytes per token, {self.tokens_per_word:.3f} tokens per word"

    def add(self, text: str, num_tokens: int) -> None:
        """Count one document."""
        self.num_documents += 1
        self.num_bytes += len(text.encode())
        self.num_words += len(text.split())
        self.num_tokens += num_tokens


@dataclass(frozen=True)
class TokenizerReport:
    """What ``llm-train-tokenizer`` prints. ``seconds`` is the training time, ``by_source`` the held-out text by source."""

    vocab_size: int
    fingerprint: str
    backend: str
    seconds: float
    held_out: Fertility
    by_source: Mapping[str, Fertility]

    def lines(self) -> Sequence[str]:
        """The report for a reader."""
        head = [
            f"entries           {self.vocab_size:,}",
            f"training          {self.seconds:.1f} s",
            f"held-out text     {self.held_out.num_bytes:,} bytes in {self.held_out.num_documents:,} documents",
            f"bytes per token   {self.held_out.bytes_per_token:.3f}",
            f"tokens per word   {self.held_out.tokens_per_word:.3f}",
            f"encoder           {self.backend}",
            f"fingerprint       {self.fingerprint[:16]}",
        ]
        if len(self.by_source) < 2:
            return head
        rows = [f"  {name}: {part}" for name, part in self.by_source.items()]
        return [*head, "by source", *rows]

    def to_json(self) -> dict[str, object]:
        """The report as plain values."""
        plain = asdict(self)
        plain["held_out"] |= {"bytes_per_token": self.held_out.bytes_per_token, "tokens_per_word": self.held_out.tokens_per_word}
        return plain


def measure_tokenizer(tokenizer: Tokenizer, documents: Iterable[tuple[str, str]], *, seconds: float = 0.0) -> TokenizerReport:
    """Encode (source, text) pairs in batches of bounded size and count.

    Args:
        tokenizer: the one to measure.
        documents: held-out text with the name of its source.
        seconds: how long training took, for the report.
    """
    total, by_source = Fertility(), dict[str, Fertility]()
    for batch in _batches(documents):
        _, offsets = tokenizer.encode_documents([text for _, text in batch])
        for (source, text), num_tokens in zip(batch, (offsets[1:] - offsets[:-1]).tolist(), strict=True):
            total.add(text, num_tokens)
            by_source.setdefault(source, Fertility()).add(text, num_tokens)
    return TokenizerReport(tokenizer.vocab_size, tokenizer.fingerprint, tokenizer.backend, seconds, total, by_source)


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
