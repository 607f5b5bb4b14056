"""The environment's layer: ``LLM_TRAINING__SECTION__FIELD`` (double underscores), and ``LOG_LEVEL`` as everyone spells it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from llm_training.config.given import Given, Origin, Text, shown
from llm_training.config.names import UnknownNameError, flat_spellings, nearest_name, resolve

PREFIX: Final = "LLM_TRAINING__"
# Variables of the program that are not configuration: test corpora, and named crash points.
OTHER_VARIABLES: Final = frozenset({"LLM_TRAINING_TEST_DATA", "LLM_TRAINING_FAULT"})
_LEVELS: Final = {"TRACE": "DEBUG", "NOTSET": "DEBUG", "WARN": "WARNING", "CRITICAL": "ERROR", "FATAL": "ERROR"}


def read_environment(environ: Mapping[str, str]) -> tuple[list[Given], list[str]]:
    """The settings in ``environ``, and a line for each variable that looks like ours and is none."""
    given: list[Given] = []
    problems: list[str] = []
    if environ.get("LOG_LEVEL") and variable_name("monitoring.log_level") not in environ:
        level = environ["LOG_LEVEL"].upper()
        given.append(Given("monitoring.log_level", Text(_LEVELS.get(level, level)), Origin("environment LOG_LEVEL")))
    for variable, value in sorted(environ.items()):
        if not variable.upper().startswith("LLM_TRAINING_") or variable.upper() in OTHER_VARIABLES:
            continue
        name = variable[len(PREFIX) :].lower().replace("__", ".")
        try:
            if not variable.upper().startswith(PREFIX) or not name:
                raise UnknownNameError("unknown variable")
            resolve(name)
        except UnknownNameError as error:
            guess = error.nearest or _guess(variable)
            nearest = guess and f"; did you mean {variable_name(guess)}?"
            is_ambiguous = "could mean" in str(error)
            what = f"{variable_name(name)}: {error}" if is_ambiguous else f"unknown variable {shown(variable, quote=False)}{nearest}"
            problems.append(f"{what}; at environment")
        else:
            given.append(Given(name, Text(value), Origin(f"environment {variable}")))
    return given, problems


def variable_name(dotted: str) -> str:
    """``training.batch_size`` as a variable."""
    return PREFIX + dotted.replace(".", "__").upper()


def _guess(variable: str) -> str:
    """The field that a variable with single underscores was meant for: ``LLM_TRAINING_BATCHSIZE``."""
    words = variable[len("LLM_TRAINING_") :].lower().strip("_").replace("__", "_")
    sectioned = {name.replace(".", "_"): name for names in flat_spellings().values() for name in names}
    best = get_close_matches(words[:100], sectioned, n=1, cutoff=0.85)
    return sectioned[best[0]] if best else nearest_name(words)
