"""C4's rules (Raffel et al. 2020, jmlr.org/papers/v21/20-074): lines that go, and pages with too little left.

Verdicts, reasons and the remaining text are those of datatrove's C4QualityFilter, given the same sentences. The list of
bad words of the paper is left out, as there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from llm_training.cleaning.outcome import TextView, Verdict
from llm_training.cleaning.words import count_sentences

STEP: Final = "c4"
_CITATION: Final = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_TERMINAL: Final = (".", "?", "!", '"', "'")
_POLICY: Final = re.compile("terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies")


@dataclass(frozen=True)
class C4Quality:
    """Bounds; -1 switches one off. ``needs_terminal`` drops lines without a mark at their end (FineWeb does not).

    ``max_curly_brackets_per_word``: 0 as published; above it a book is not judged by one bracket.
    """

    needs_terminal: bool = True
    min_sentences: int = 5
    min_words_per_line: int = 3
    max_word_length: int = 1000
    max_curly_brackets_per_word: float = 0.0

    def judge(self, view: TextView) -> Verdict | None:
        """The first rule that the text breaks."""
        return self.filter(view.text)[1]

    def filter(self, text: str) -> tuple[str, Verdict | None]:
        """The lines that remain, and the verdict on the page."""
        sentences = curly_brackets = 0
        kept: list[str] = []
        for raw in text.splitlines():
            line = raw.strip()
            if not self._is_line(line):
                continue
            if "[" in line:
                line = _CITATION.sub("", line)
            if self.needs_terminal and (not line.endswith(_TERMINAL) or line.endswith("...")):
                continue
            if self.min_words_per_line > 0 and not _has_words(raw, self.min_words_per_line):
                continue
            lowered = line.lower()
            if "lorem ipsum" in lowered:
                return text, Verdict(STEP, "lorem_ipsum")
            if "javascript" in lowered:
                continue
            if "{" in line:
                curly_brackets += line.count("{")
                if self._are_too_many(curly_brackets, text):
                    return text, Verdict(STEP, "curly_bracket")
            if _POLICY.search(lowered):
                continue
            if sentences < self.min_sentences:
                sentences += count_sentences(line, self.min_sentences)
            kept.append(line)
        if sentences < self.min_sentences:
            return text, Verdict(STEP, "too_few_sentences", f"{sentences}, at least {self.min_sentences}")
        return "\n".join(kept).strip(), None

    def _are_too_many(self, curly_brackets: int, text: str) -> bool:
        rate = self.max_curly_brackets_per_word
        return rate == 0 or (rate > 0 and curly_brackets > rate * len(text.split()))

    def _is_line(self, line: str) -> bool:
        if self.max_word_length == -1 or len(line) <= self.max_word_length:
            return True
        return all(len(word) <= self.max_word_length for word in line.split())


def _has_words(line: str, count: int) -> bool:
    return len(line.split(None, count)) >= count
