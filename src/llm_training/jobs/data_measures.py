"""What can be measured on a document with the libraries at hand: quality, language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llm_training.cleaning import TextView, identify, quality_score
from llm_training.errors import ConfigError

UNCERTAIN = "uncertain"
_SURE = 0.5


@dataclass(frozen=True)
class Measures:
    """Measures that are there; ``missing`` says in one line each why another is not."""

    quality: Callable[[str], float] | None = None
    language: Callable[[str], str] | None = None
    missing: tuple[str, ...] = ()


def available_measures(*, with_quality: bool = True, with_language: bool = True) -> Measures:
    """The measures that are asked for and that this installation has."""
    language, missing = _language() if with_language else (None, "")
    return Measures(quality if with_quality else None, language, (missing,) if missing else ())


def quality(text: str) -> float:
    """The score of ``--min-quality``, 0 to 1."""
    return quality_score(TextView(text))


def _language() -> tuple[Callable[[str], str] | None, str]:
    try:
        identify("a language")
    except ConfigError as error:
        return None, f"Languages are not told apart: {error}."
    return _language_of, ""


def _language_of(text: str) -> str:
    """ISO 639-1, or ``uncertain``."""
    language, probability = identify(text)
    return language if probability >= _SURE else UNCERTAIN
