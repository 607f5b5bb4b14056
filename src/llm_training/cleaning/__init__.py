"""Cleaning: rules on texts as pure functions. None reads a file or knows where a text came from."""

from llm_training.cleaning.c4 import C4Quality
from llm_training.cleaning.cleaner import EXTRACTED, RULES_VERSION, STEPS, Cleaner, CleaningSettings
from llm_training.cleaning.fineweb import FineWebQuality
from llm_training.cleaning.gopher import GopherQuality, GopherRepetition
from llm_training.cleaning.language import identify
from llm_training.cleaning.normalise import normalise
from llm_training.cleaning.outcome import Outcome, TextView, Verdict
from llm_training.cleaning.pii import mask
from llm_training.cleaning.score import quality_score

__all__ = [
    "EXTRACTED", "RULES_VERSION", "STEPS", "C4Quality", "Cleaner", "CleaningSettings", "FineWebQuality", "GopherQuality",
    "GopherRepetition", "Outcome", "TextView", "Verdict", "identify", "mask", "normalise", "quality_score",
]  # fmt: skip
