"""Training a byte-level BPE tokenizer on a bounded, repeatable sample of the documents.

The pre-tokenizer is Qwen2's unless another is named; llama.cpp and other runtimes know all of them by name. Which pieces of
text are sampled depends on their content only, so the order in which sources are read does not matter, and memory is
bounded by the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import orjson
import tokenizers
import xxhash
from tokenizers import models, pre_tokenizers, trainers

from llm_training.errors import ConfigError, DataError
from llm_training.tokenizer.byte_alphabet import NUM_BYTES, SEPARATOR, bpe_definition, byte_characters, byte_level
from llm_training.tokenizer.definition import define
from llm_training.tokenizer.long_words import MAX_TRAINING_WORD_CHARACTERS, cut_for_training
from llm_training.tokenizer.tokenizer import Tokenizer

# Contractions; a letter run with one leading mark; single digits; punctuation with its line breaks; white space.
QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The same with numbers in groups of up to three digits.
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# GPT-2's is built into the ByteLevel pre-tokenizer, and is named by it.
PATTERNS: Mapping[str, str | None] = {"qwen2": QWEN2_PATTERN, "llama3": LLAMA3_PATTERN, "gpt2": None}
DEFAULT_PATTERN = "qwen2"
MIN_VOCAB_SIZE = NUM_BYTES + 1
MAX_VOCAB_SIZE = 1 << 20
DEFAULT_MAX_TRAINING_BYTES = 16_000_000
PIECE_CHARACTERS = 1 << 14
_HASH_RANGE = 1 << 64

Progress = Callable[[float, float | None], None]
Notify = Callable[[str], None]


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    min_frequency: int = 2,
    max_training_bytes: int = DEFAULT_MAX_TRAINING_BYTES,
    allow_smaller: bool = False,
    pattern: str = DEFAULT_PATTERN,
    progress: Progress | None = None,
    notify: Notify | None = None,
) -> Tokenizer:
    """Train on ``texts``.

    Args:
        texts: documents; read once.
        vocab_size: entries, the 256 bytes and the separator included.
        min_frequency: occurrences that a pair needs to become a token.
        max_training_bytes: size of the sample, bytes; more text than this is sampled evenly.
        allow_smaller: take what a small corpus gives instead of refusing.
        pattern: how text is cut into words before pairs are merged: ``qwen2``, ``llama3`` or ``gpt2``.
        progress: called with (bytes of text read, None) now and then.
        notify: told, in one line, when words were too long to be learnt from whole.

    Raises:
        ConfigError: a vocabulary size out of range, or an unknown pattern.
        DataError: no text, or too little for this vocabulary; names the achievable size.
    """
    require_trainable(vocab_size, pattern)
    sample = sample_pieces(texts, max_training_bytes, progress)
    if not sample:
        raise DataError("there is no text to train a tokenizer on", remedy="check that the sources hold documents")
    merges = _train_merges(sample, vocab_size, min_frequency, pattern, notify)
    achieved = MIN_VOCAB_SIZE + len(merges)
    if achieved < vocab_size and not allow_smaller:
        raise DataError(
            f"the text is too small for a tokenizer of {vocab_size:,} entries: {achieved:,} can be made of it",
            remedy=f"set tokenizer.vocab_size to {achieved} or less, or give more text",
        )
    return Tokenizer(define(_assemble(merges, pattern), where="trained tokenizer"))


def require_trainable(vocab_size: int, pattern: str = DEFAULT_PATTERN) -> None:
    """Raise ConfigError for a vocabulary size out of range or an unknown pattern: before any text is read."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise ConfigError(
            f"tokenizer.vocab_size is {vocab_size:,}, the range is {MIN_VOCAB_SIZE} (256 bytes and the separator) to {MAX_VOCAB_SIZE:,}",
            remedy="4,096 suits a few megabytes of text, 32,768 some gigabytes",
        )
    if pattern not in PATTERNS:
        raise ConfigError(f"there is no pre-tokenizer pattern {pattern!r}", remedy=f"the patterns are {', '.join(PATTERNS)}")


def sample_pieces(texts: Iterable[str], max_bytes: int, progress: Progress | None = None) -> list[str]:
    """Pieces of the texts, about ``max_bytes`` at most, chosen evenly by the hash of their content.

    All pieces are kept until they exceed the bound; then the half with the higher hashes goes, and so on.
    """
    kept: list[tuple[int, int, str]] = []
    kept_bytes, read_bytes, limit = 0, 0, _HASH_RANGE
    for piece in _pieces(texts):
        data = piece.encode(errors="replace")
        read_bytes += len(data)
        if progress is not None:
            progress(read_bytes, None)
        key = xxhash.xxh3_64_intdigest(data)
        if key >= limit:
            continue
        kept.append((key, len(data), piece))
        kept_bytes += len(data)
        while kept_bytes > max_bytes and len(kept) > 1:
            limit //= 2
            kept = [entry for entry in kept if entry[0] < limit] or kept[:1]
            kept_bytes = sum(size for _, size, _ in kept)
    return [piece for _, _, piece in kept]


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Texts cut at line breaks into about ``PIECE_CHARACTERS``, so that one long book does not fill the sample."""
    for text in texts:
        start = 0
        while len(text) - start > PIECE_CHARACTERS:
            cut = text.rfind("\n", start, start + PIECE_CHARACTERS) + 1
            stop = cut if cut > start else start + PIECE_CHARACTERS
            yield text[start:stop]
            start = stop
        if start < len(text):
            yield text[start:]


def _train_merges(sample: list[str], vocab_size: int, min_frequency: int, pattern: str, notify: Notify | None) -> list[list[str]]:
    native = tokenizers.Tokenizer(models.BPE())
    native.pre_tokenizer = _native_pre_tokenizer(PATTERNS[pattern])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # the separator is added afterwards
        min_frequency=min_frequency,
        initial_alphabet=list(byte_characters()),
        show_progress=False,
    )
    num_cut = 0

    def parts() -> Iterator[str]:
        nonlocal num_cut
        for piece in sample:
            cut = list(cut_for_training(piece))
            num_cut += len(cut) - 1
            yield from cut

    native.train_from_iterator(parts(), trainer)
    if num_cut and notify is not None:
        longest = f"{MAX_TRAINING_WORD_CHARACTERS} characters"
        notify(f"{num_cut:,} stretches of text without white space are longer than {longest}; the tokenizer learnt from their parts")
    return orjson.loads(native.to_str())["model"]["merges"]


def _native_pre_tokenizer(regex: str | None) -> pre_tokenizers.PreTokenizer:
    if regex is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    split = pre_tokenizers.Split(tokenizers.Regex(regex), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _assemble(merges: list[list[str]], pattern: str) -> dict[str, object]:
    """Ids: bytes 0 to 255 in their own order, then merges in the order they were learnt, then the separator."""
    vocab = {character: byte for byte, character in enumerate(byte_characters())}
    for first, second in merges:
        vocab.setdefault(first + second, len(vocab))
    regex = PATTERNS[pattern]
    if regex is None:
        return bpe_definition(vocab, merges, byte_level(use_regex=True), len(vocab), SEPARATOR)
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, byte_level(use_regex=False)]}
    return bpe_definition(vocab, merges, pre_tokenizer, len(vocab), SEPARATOR)
