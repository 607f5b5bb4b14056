"""Configuration fields as flags: taken out of the words before the command's own flags are parsed.

Every spelling that a configuration file accepts is a flag, with dashes or underscores: ``--batch-size 8``,
``--training.batch_size=8``, ``--d-model 512``, ``--gradient-checkpointing``, ``--no-plots``. A list flag takes one value
and may be repeated. What a value means is the loader's business; here it stays a word.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from llm_training.config.aliases import SWITCHES
from llm_training.config.fields import FieldFact, all_fields
from llm_training.config.names import UnknownNameError, renamed, resolve, spelled
from llm_training.errors import ConfigError

SWITCH_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "auto", "fp16", "bf16", "fp32"})


@dataclass
class SplitWords:
    """Configuration values in order, and the words left for the command."""

    values: list[tuple[str, str | tuple[str, ...]]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)


def split_fields(command: Callable[..., object], words: Sequence[str], takes_field: Callable[[str], bool] = lambda _: True) -> SplitWords:
    """Sort words into configuration fields (those that the command takes) and the command's own.

    Raises :class:`ConfigError` naming every wrong flag.
    """
    splitter = _Splitter(words, _own_flags(command), takes_field)
    splitter.split()
    if splitter.problems:
        raise ConfigError("unknown or incomplete flags", problems=splitter.problems)
    found = splitter.found
    found.values += [(name, tuple(values)) for name, values in splitter.lists.items()]
    return found


def _own_flags(command: Callable[..., object]) -> dict[str, bool]:
    """The command's own flags by name; whether each takes a value."""
    parameters = inspect.signature(command).parameters.values()
    return {p.name: "bool" not in str(p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY}


class _Splitter:
    """One pass over the words. ``at`` is the next word to look at."""

    def __init__(self, words: Sequence[str], own: Mapping[str, bool], takes_field: Callable[[str], bool]) -> None:
        self._words = words
        self._own = own
        self._takes_field = takes_field
        self._at = 0
        self.found = SplitWords()
        self.lists: dict[str, list[str]] = {}
        self.problems: list[str] = []

    def split(self) -> None:
        while self._at < len(self._words):
            word = self._words[self._at]
            name, equals, attached = word[2:].partition("=")
            if word == "--":
                self._keep(len(self._words) - self._at)
            elif not word.startswith("--"):
                self._keep(1)
            elif spelled(name) in self._own:  # with its value, so that the value is not taken for a source
                self._keep(2 if self._own[spelled(name)] and not equals else 1)
            else:
                self._at += 1
                self._field(name, attached if equals else None)

    def _keep(self, count: int) -> None:
        self.found.rest += self._words[self._at : self._at + count]
        self._at += count

    def _next(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def _field(self, name: str, attached: str | None) -> None:
        key = spelled(name)
        negated = key.removeprefix("no_")
        is_off = negated != key and not _is_known(key) and _is_known(negated) and _is_switch(negated)
        if not is_off and not _is_known(key):
            self.problems.append(_unknown_line(name, self._own))
        elif not self._takes_field(renamed(resolve(negated if is_off else key))):
            self.problems.append(f"--{name} is a field that this command does not use; at command line; see --help")
        elif is_off:
            self.found.values.append((negated, "false"))
        elif attached is not None:
            self._store(key, attached)
        elif _is_switch(key) and not self._is_value(key, self._next()):
            self.found.values.append((key, "true"))
        else:
            self._separate_value(name, key)

    def _is_value(self, key: str, word: str | None) -> bool:
        """Whether what follows a switch is its value. Where it may be more than on and off, a word that names no source is a wrong one."""
        if word is None or word.startswith("-"):
            return False
        if word.lower() in SWITCH_WORDS:
            return True
        fact = _fact(key)
        return fact is not None and bool(fact.choices) and not _may_be_source(word)

    def _separate_value(self, name: str, key: str) -> None:
        value = self._next()
        if value is None or value.startswith("--"):
            self.problems.append(f"--{name} needs a value; at command line")
            return
        self._at += 1
        self._store(key, value)
        after = self._next()
        if _is_list(key) and after is not None and not after.startswith("-"):
            self.problems.append(
                f"{after} follows --{name} {value}: another value of it, or a source?; at command line; "
                f"repeat --{name} for each value, and put sources first"
            )

    def _store(self, key: str, value: str) -> None:
        if _is_list(key):
            self.lists.setdefault(key, []).append(value)
        else:
            self.found.values.append((key, value))


def _is_known(key: str) -> bool:
    try:
        resolve(key)
    except UnknownNameError:
        return False
    return True


def _fact(key: str) -> FieldFact | None:
    """The field whose value this spelling takes unchanged, if there is one."""
    return all_fields().get(renamed(resolve(key)))


def _is_switch(key: str) -> bool:
    fact = _fact(key)
    return resolve(key) in SWITCHES or (fact is not None and (fact.kind == "bool" or "true" in fact.choices))


def _may_be_source(word: str) -> bool:
    return any(sign in word for sign in "/\\:.*?[#~") or os.path.lexists(word)


def _is_list(key: str) -> bool:
    fact = _fact(key)
    return fact is not None and fact.kind == "list"


def _unknown_line(name: str, own: Mapping[str, bool]) -> str:
    try:
        resolve(name)
    except UnknownNameError as error:
        if "could mean" in str(error) or "is a section" in str(error):
            return f"--{name}: {error}; at command line"
        near_own = get_close_matches(spelled(name)[:100], own, n=1, cutoff=0.75)
        nearest = near_own[0] if near_own else error.nearest
    hint = f"did you mean --{(nearest.partition('.')[2] or nearest).replace('_', '-')}?" if nearest else "see --help"
    return f"unknown flag --{name}; at command line; {hint}"
