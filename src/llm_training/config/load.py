"""The one loader: every layer becomes names with values and origins, the last one given wins, and pydantic checks once.

Order of the layers: defaults, ``config/default.yaml`` when present, each ``--config`` file, the environment, the command
line, runtime overrides. Everything wrong is reported in one :class:`ConfigError`, a line for each field. There is no
catch-all here: what may be wrong is named where it is read, and a test throws 20,000 mutations at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from llm_training.config.aliases import Meaning, RefusedError
from llm_training.config.environment import read_environment
from llm_training.config.fields import all_fields
from llm_training.config.files import DEFAULT_FILE, find_config, read_file
from llm_training.config.given import DEFAULT, Given, Origin, Text, Value
from llm_training.config.interpret import interpret
from llm_training.config.names import UnknownNameError, meaning, resolve
from llm_training.config.problems import from_validation
from llm_training.config.root import Config
from llm_training.errors import ConfigError


@dataclass(frozen=True)
class Loaded:
    """A checked configuration and where each value that is not a default came from, by dotted name."""

    config: Config
    origins: Mapping[str, Origin]

    def origin(self, name: str) -> Origin:
        """Origin of a field by its dotted name."""
        return self.origins.get(name, DEFAULT)


@dataclass
class _Merged:
    """What all layers say so far: the winning value of each field, as pydantic is to check it."""

    values: dict[str, object] = field(default_factory=dict[str, object])
    written: dict[str, Value] = field(default_factory=dict[str, Value])
    origins: dict[str, Origin] = field(default_factory=dict[str, Origin])
    problems: list[str] = field(default_factory=list[str])


def load_config(
    files: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    cli: Sequence[tuple[str, Value]] = (),
    overrides: Mapping[str, Value] | None = None,
) -> Loaded:
    """Merge all layers and check the result.

    Args:
        files: what ``--config`` was given, in order: paths, names in ``config/`` or shipped presets.
        environ: the environment; None reads nothing from it.
        cli: names and values of the command line in order. A plain ``str`` value is an unquoted word.
        overrides: values set by the running program; these win.

    Raises:
        ConfigError: with a line for every problem found.
    """
    merged = _Merged()
    for path in _file_layers(files):
        _merge_source(merged, read_file(path))
    given, problems = read_environment(environ or {})
    merged.problems += problems
    _merge_source(merged, given)
    _merge_source(merged, [Given(name, _word(value), Origin(f"command line --{name.replace('_', '-')}")) for name, value in cli])
    _merge_source(merged, [Given(name, value, Origin("override")) for name, value in (overrides or {}).items()])
    return Loaded(_check(merged), merged.origins)


def _file_layers(files: Sequence[str]) -> list[Path]:
    paths = [find_config(name) for name in files]
    default_is_named = any(path.resolve() == DEFAULT_FILE.resolve() for path in paths)
    return [DEFAULT_FILE, *paths] if DEFAULT_FILE.is_file() and not default_is_named else paths


def _word(value: Value) -> Value:
    if isinstance(value, str):
        return Text(value)
    return tuple(Text(item) if isinstance(item, str) else item for item in value) if isinstance(value, Sequence) else value


def _merge_source(merged: _Merged, given: Sequence[Given]) -> None:
    """Lay one source over what is there. Within a source a field has one spelling."""
    chosen: dict[str, tuple[Given, Meaning]] = {}
    for item in given:
        try:
            means = meaning(resolve(item.name), item.value)
        except UnknownNameError as error:
            merged.problems.append(_unknown_line(error, item))
            continue
        except RefusedError as error:
            merged.problems.append(f"{item.name} {error}; at {item.origin}")
            continue
        if means.target is None:
            continue
        before = chosen.get(means.target)
        if before is not None and before[1].weight == means.weight and not _says_the_same(before, (item, means)):
            first = before[0]
            merged.problems.append(
                f"{means.target} is given twice, as {first.name} at {first.origin} and as {item.name} at {item.origin}; give one"
            )
        if before is None or means.weight >= before[1].weight:
            chosen[means.target] = (item, means)
    for target, (item, means) in chosen.items():
        _set(merged, target, item, means.value)


def _says_the_same(first: tuple[Given, Meaning], second: tuple[Given, Meaning]) -> bool:
    """Two settings of different words that lead to one value do not contradict; two names for one value are a slip."""
    translated = any(means.value is not item.value for item, means in (first, second))
    return translated and first[1].value == second[1].value


def _unknown_line(error: UnknownNameError, item: Given) -> str:
    what, question, hint = str(error).partition("; did you mean ")
    return f"{what}; at {item.origin}{question}{hint}"


def _set(merged: _Merged, target: str, item: Given, value: Value) -> None:
    """Keep the value, or its problem: one that a later layer replaces is no problem."""
    merged.written[target] = value
    merged.origins[target] = item.origin
    try:
        merged.values[target] = interpret(all_fields()[target], value)
    except RefusedError as error:
        merged.values[target] = error


def _check(merged: _Merged) -> Config:
    problems = list(merged.problems)
    sound: dict[str, object] = {}
    for name, value in merged.values.items():
        if isinstance(value, RefusedError):
            problems.append(f"{name} {value}; at {merged.origins[name]}")
        else:
            sound[name] = value
    try:
        config = Config.model_validate(_sections(sound))
    except ValidationError as error:
        found, bad_names = from_validation(error, merged.written, merged.origins)
        problems += found
        if bad_names:
            problems += _cross_problems({name: value for name, value in sound.items() if name not in bad_names}, merged)
    else:
        if not problems:
            return config
    raise ConfigError("wrong configuration", problems=problems)


def _cross_problems(sound: Mapping[str, object], merged: _Merged) -> list[str]:
    """Checks across fields wait for every field to be right; without the wrong ones they can be told in the same pass."""
    try:
        Config.model_validate(_sections(sound))
    except ValidationError as error:
        return from_validation(error, merged.written, merged.origins)[0]
    return []


def _sections(values: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = cast(Any, value)
    return sections
