"""datatrove's filters with our words, to compare verdicts with; and the texts that they are compared on."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_training.cleaning import C4Quality, FineWebQuality, GopherQuality, GopherRepetition, TextView
from llm_training.cleaning.words import sentence_spans, split_words


def reference_pairs() -> list[tuple[Any, Any]]:
    """datatrove's filter and ours, with the published bounds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
        from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        """An instance is taken as it is; a language's name would load spaCy."""

        def word_tokenize(self, text: str) -> list[str]:
            return split_words(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text[start:stop] for start, stop in sentence_spans(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return sentence_spans(text)

    words: Any = Words("en")
    return [
        (GopherQualityFilter(language=words), GopherQuality()),
        (GopherRepetitionFilter(language=words), GopherRepetition()),
        (C4QualityFilter(language=words), C4Quality()),
        (C4QualityFilter(language=words, filter_no_terminal_punct=False), C4Quality(needs_terminal=False)),
        (FineWebQualityFilter(language=words), FineWebQuality()),
        (FineWebQualityFilter(language=words, line_punct_exclude_zero=True), FineWebQuality(excludes_zero=True)),
    ]


def verdicts(theirs: Any, text: str) -> tuple[str | None, str]:
    """datatrove's reason (None keeps) and the text that it leaves."""
    from datatrove.data import Document

    document = Document(text=text, id="0")
    result = theirs.filter(document)
    return (result[1] if isinstance(result, tuple) else None), document.text


def differences(texts: Iterator[str]) -> tuple[int, list[str]]:
    """How many verdicts were compared, and the unequal ones in words."""
    pairs = reference_pairs()
    compared, found = 0, []
    for text in texts:
        view = TextView(text)
        for theirs, ours in pairs:
            reason, left = verdicts(theirs, text)
            own = ours.judge(view)
            compared += 1
            if (own and own.reason) != reason:
                found.append(f"{type(ours).__name__}: {own} instead of {reason}: {text[:60]!r}")
            elif isinstance(ours, C4Quality) and reason is None and ours.filter(text)[0] != left:
                found.append(f"C4 leaves another text: {text[:60]!r}")
    return compared, found


def texts_of(path: Path, *, every: int = 1, longest: int = 1 << 30) -> Iterator[str]:
    """Texts of a JSON Lines file, gzipped; lines that hold none are passed over."""
    with gzip.open(path, "rb") as lines:
        for number, line in enumerate(lines):
            if number % every:
                continue
            try:
                text = json.loads(line)["text"]
                text.encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if text.split() and len(text) <= longest:
                yield text
