"""What can be measured on documents with the libraries at hand: quality, language, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llm_training.cleaning import TextView, identify, quality_score
from llm_training.cleaning.shingles import band_keys
from llm_training.errors import ConfigError
from llm_training.jobs.near_repeats import NearRepeats
from llm_training.report.languages import UNCERTAIN

_SURE = 0.5


@dataclass(frozen=True)
class Measures:
    """Measures that are there; ``missing`` says in one line each why another is not."""

    quality: Callable[[str], float] | None = None
    language: Callable[[str], str] | None = None
    near_repeats: NearRepeats | None = None
    missing: tuple[str, ...] = ()


def available_measures(
    *, with_quality: bool = True, with_language: bool = True, with_near_repeats: bool = True, is_sampled: bool = False
) -> Measures:
    """The measures that are asked for and that this installation has.

    Near-duplicates are looked for only when all documents are measured (``is_sampled`` is false): a sample would miss most pairs.
    """
    language, no_language = _language() if with_language else (None, "")
    near, no_near = _near_repeats(is_sampled) if with_near_repeats else (None, "")
    return Measures(quality if with_quality else None, language, near, tuple(line for line in (no_language, no_near) if line))


def quality(text: str) -> float:
    """The score of ``--min-quality``, 0 to 1."""
    return quality_score(TextView(text))


def _language() -> tuple[Callable[[str], str] | None, str]:
    try:
        identify("a language")
    except ConfigError as error:
        return None, f"Languages are not told apart: {error}."
    return _language_of, ""


def _near_repeats(is_sampled: bool) -> tuple[NearRepeats | None, str]:
    if is_sampled:
        return None, "Near-duplicates are not looked for: the text is larger than --measured-bytes."
    try:
        band_keys([])
    except ConfigError as error:
        return None, f"Near-duplicates are not looked for: {error}."
    return NearRepeats(), ""


def _language_of(text: str) -> str:
    """ISO 639-1, or ``uncertain``."""
    language, probability = identify(text)
    return language if probability >= _SURE else UNCERTAIN
