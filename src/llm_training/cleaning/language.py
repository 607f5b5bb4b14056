"""Which language a text is in, by py3langid, whose model comes with its package.

The model reads byte by byte in Python, so a long text is judged by short pieces of its start, middle and end, and by longer
ones only when those left a doubt.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from llm_training.cleaning.outcome import Verdict
from llm_training.errors import ConfigError

STEP: Final = "language"
_NUM_PIECES: Final = 3
_FIRST_CHARACTERS: Final = 120
_MORE_CHARACTERS: Final = 500
_SURE: Final = 0.99


def sample(text: str, characters: int) -> str:
    """Up to three pieces of a text of so many characters each, from its start, middle and end."""
    if len(text) <= _NUM_PIECES * characters:
        return text
    step = (len(text) - characters) // (_NUM_PIECES - 1)
    return " ".join(text[start : start + characters] for start in (0, step, len(text) - characters))


def identify(text: str) -> tuple[str, float]:
    """The most probable language (ISO 639-1) and its probability. Raises ConfigError when py3langid is not installed."""
    language, probability = _identifier().classify(sample(text, _FIRST_CHARACTERS))
    if probability < _SURE and len(text) > _NUM_PIECES * _FIRST_CHARACTERS:
        language, probability = _identifier().classify(sample(text, _MORE_CHARACTERS))
    return str(language), float(probability)


def known_languages() -> frozenset[str]:
    """Codes that the model knows. Raises ConfigError when py3langid is not installed."""
    return frozenset(_identifier().labels)


def judge_language(text: str, wanted: frozenset[str], min_probability: float) -> Verdict | None:
    """A verdict when the text is not in one of the wanted languages, or that is too uncertain."""
    language, probability = identify(text)
    if language not in wanted:
        return Verdict(STEP, "other_language", f"{language} with probability {probability:.2f}")
    if probability < min_probability:
        return Verdict(STEP, "uncertain_language", f"{language} with probability {probability:.2f}, at least {min_probability}")
    return None


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("telling languages apart needs py3langid", remedy="pip install 'llm-training[data]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
