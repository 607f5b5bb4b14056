"""The steps that look at one document alone, in order: what changes its text, then what judges it, then masking.

Everything here is a pure function of text and settings, so it gives the same whatever process runs it. What needs
other documents (duplicates, contamination, splits) is in `duplicates`, `near_duplicates` and `contamination`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from llm_training.cleaning.c4 import C4Quality
from llm_training.cleaning.fineweb import FineWebQuality
from llm_training.cleaning.gopher import STOP_WORDS, GopherQuality, GopherRepetition
from llm_training.cleaning.html import is_html
from llm_training.cleaning.language import judge_language, known_languages
from llm_training.cleaning.normalise import normalise
from llm_training.cleaning.outcome import Outcome, TextView, Verdict, judged_part
from llm_training.cleaning.pii import mask
from llm_training.cleaning.score import judge_score, quality_score
from llm_training.cleaning.stop_words import stop_words_of
from llm_training.errors import ConfigError
from llm_training.pages import extract_page

# Raised when the same settings come to judge a text otherwise: caches of cleaned text belong to it.
RULES_VERSION: Final = 2
LENGTH: Final = "length"
# The change of a page that was reduced to its content.
EXTRACTED: Final = "html extracted"
# Names of the steps in the order in which they run.
STEPS: Final = ("normalise", "html", "language", "gopher", "repetition", "c4", "fineweb", "pii")


@dataclass(frozen=True)
class CleaningSettings:
    """Which steps run, and their bounds.

    The bounds of the published rules are the published ones but for six, eased because they dropped good text in measurements
    (docs/data.md has the figures): C4 asks for 2 sentences instead of 5 and for no mark at the end of lines (as FineWeb), and takes
    one `{` in 1,000 words; Gopher asks for letters in 60 % of words instead of 80 % and takes books of more than 100,000 words;
    FineWeb asks for 10 % of lines with a mark instead of 12 %, or for none at all, and takes paragraphs for lines (see `wrapping`).

    Attributes:
        steps: those of `STEPS` that run.
        languages: codes of the languages kept (ISO 639-1).
        min_language_probability: below it the language counts as unknown.
        min_length: shortest text kept, characters.
        min_quality: lowest score kept; 0 keeps all. The score is always computed when a step judges quality.
    """

    steps: tuple[str, ...] = STEPS
    languages: tuple[str, ...] = ("en",)
    min_language_probability: float = 0.65
    min_length: int = 10
    min_quality: float = 0.0
    gopher: GopherQuality = field(default_factory=lambda: GopherQuality(min_alphabetic_word_fraction=0.6, max_words=0))
    repetition: GopherRepetition = field(default_factory=GopherRepetition)
    c4: C4Quality = field(default_factory=lambda: C4Quality(needs_terminal=False, min_sentences=2, max_curly_brackets_per_word=0.001))
    fineweb: FineWebQuality = field(
        default_factory=lambda: FineWebQuality(min_punctuated_line_fraction=0.1, excludes_zero=True, judges_paragraphs=True)
    )


class Cleaner:
    """Cleans texts one by one.

    Raises:
        ConfigError: an unknown step or language, or a library that a step needs is missing.
    """

    def __init__(self, settings: CleaningSettings) -> None:
        self.settings = settings
        unknown = [step for step in settings.steps if step not in STEPS]
        if unknown:
            raise ConfigError(f"there is no cleaning step {unknown[0]}", remedy=f"known: {', '.join(STEPS)}")
        if "language" in settings.steps:
            strange = sorted(set(settings.languages) - known_languages())
            if strange:
                raise ConfigError(f"language {strange[0]} is not known", remedy=f"known: {', '.join(sorted(known_languages()))}")
        is_default = settings.gopher.stop_words == STOP_WORDS
        self._stop_words = stop_words_of(settings.languages) if is_default else settings.gopher.stop_words
        rules: dict[str, Callable[[TextView], Verdict | None]] = {
            "language": self._judge_language,
            "gopher": replace(settings.gopher, stop_words=self._stop_words).judge,
            "repetition": settings.repetition.judge,
            "c4": settings.c4.judge,
            "fineweb": settings.fineweb.judge,
        }
        self.rules = {step: rules[step] for step in STEPS if step in rules and step in settings.steps}
        self._languages = frozenset(settings.languages)

    def clean(self, text: str, *, is_prose: bool = True, tests: Callable[[TextView], Verdict | None] | None = None) -> Outcome:
        """Run the steps on a text.

        Args:
            text: the text.
            is_prose: False (source code) leaves out extraction and the rules of running text.
            tests: says whether a text holds one of tests; asked before masking, which would hide that.
        """
        text, changes = self.transform(text, is_prose=is_prose)
        view = TextView(text)
        part = judged_part(text)
        verdict, score = self.judge(view if part is text else TextView(part), is_prose=is_prose)
        if verdict is None and tests is not None:
            verdict = tests(view)
        if verdict is None and "pii" in self.settings.steps:
            text, masked = mask(text)
            changes |= masked
        return Outcome(text, verdict, score, changes)

    def transform(self, text: str, *, is_prose: bool = True) -> tuple[str, dict[str, int]]:
        """The steps before judgement: normalise, extract."""
        changes: dict[str, int] = {}
        if "normalise" in self.settings.steps:
            text, changes = normalise(text)
        if is_prose and "html" in self.settings.steps and is_html(text):
            text = extract_page(text)
            changes[EXTRACTED] = 1
        return text, changes

    def judge(self, view: TextView, *, is_prose: bool = True) -> tuple[Verdict | None, float | None]:
        """The first verdict, and the score where it was reached."""
        length = len(view.text.strip())
        if length < max(1, self.settings.min_length):
            return Verdict(LENGTH, "too_short", f"{length} characters, at least {max(1, self.settings.min_length)}"), None
        if not is_prose:
            return None, None
        for rule in self.rules.values():
            verdict = rule(view)
            if verdict is not None:
                return verdict, None
        if not self.rules and not self.settings.min_quality:
            return None, None
        score = quality_score(view, self._stop_words)
        return judge_score(score, self.settings.min_quality), score

    def _judge_language(self, view: TextView) -> Verdict | None:
        return judge_language(view.text, self._languages, self.settings.min_language_probability)
