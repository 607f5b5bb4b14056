"""JSON and TOML into settings with line numbers. Neither standard parser tells lines, so JSON is walked here (values by the
standard scanner, nesting bounded) and TOML is parsed by the standard library and its lines found by a scan for ``key =``."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from llm_training.config.given import MAX_FLAT_ENTRIES, Nested, Value, shown
from llm_training.config.yaml_text import Setting
from llm_training.errors import ConfigError

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()
_TOML_TABLE: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_TOML_KEY: Final = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=""")


def read_json(text: str, source: str) -> list[Setting]:
    """The settings of a JSON object. Raises :class:`ConfigError` with the line of what is wrong."""
    return _JsonReader(text, source).read()


class _JsonReader:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._line_position = 0
        self._line = 1

    def read(self) -> list[Setting]:
        start = self._skip(0)
        if not self._text[start:]:
            return []
        if self._text[start] != "{":
            raise self._error("a configuration is an object of names and values", start)
        settings, end = self._object(start, self._section)
        if self._skip(end) != len(self._text):
            raise self._error("text after the end of the object", self._skip(end))
        return settings

    def _object(self, start: int, read_value: Callable[[str, int, int], tuple[Setting, int]]) -> tuple[list[Setting], int]:
        settings: list[Setting] = []
        seen: set[str] = set()
        at = self._skip(start + 1)
        while self._peek(at) != "}":
            if self._peek(at) != '"':
                raise self._error("a name in double quotes is needed", at)
            line = self._line_of(at)
            key, after = self._scan(at)
            if key in seen:
                raise self._error(f"{shown(key, quote=False)} is given twice", at)
            seen.add(key)
            at = self._skip(after)
            if self._peek(at) != ":":
                raise self._error("a colon is needed after the name", at)
            setting, after = read_value(key, line, self._skip(at + 1))
            settings.append(setting)
            at = self._skip(after)
            if self._peek(at) == ",":
                at = self._skip(at + 1)
                if self._peek(at) == "}":
                    raise self._error("a comma before the closing brace", at)
            elif self._peek(at) != "}":
                raise self._error("a comma or a closing brace is needed", at)
        return settings, at + 1

    def _section(self, key: str, line: int, at: int) -> tuple[Setting, int]:
        if self._peek(at) != "{":
            return self._value(key, line, at)
        inner, end = self._object(at, self._value)
        return Setting(key, Nested(), line, inner), end

    def _value(self, key: str, line: int, at: int) -> tuple[Setting, int]:
        value, end = self._scan(at)
        return Setting(key, plain(value), line), end

    def _scan(self, at: int) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            raise self._error(f"not valid JSON ({error.msg})", error.pos) from None
        except ValueError:  # an integer of more digits than Python converts
            raise self._error("a number of too many digits", at) from None
        except RecursionError:
            raise self._error("nested too deeply", at) from None

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _peek(self, at: int) -> str:
        return self._text[at : at + 1]

    def _line_of(self, at: int) -> int:
        """Positions are asked for in rising order, so that a file is counted once."""
        self._line += self._text.count("\n", self._line_position, at)
        self._line_position = at
        return self._line

    def _error(self, what: str, at: int) -> ConfigError:
        line = self._text.count("\n", 0, at) + 1
        return ConfigError(what, where=f"{self._source}:{line}:{at - self._text.rfind(chr(10), 0, at)}")


def read_toml(text: str, source: str) -> list[Setting]:
    """The settings of a TOML document. Raises :class:`ConfigError` with the line of what is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML ({shown(str(error), quote=False, limit=120)})", where=source) from None
    except ValueError:  # an integer of more digits than Python converts
        raise ConfigError("not valid TOML (a number of too many digits)", where=source) from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=source) from None
    lines = _toml_lines(text)
    settings: list[Setting] = []
    for key, value in document.items():
        if isinstance(value, dict):
            inner = [Setting(k, plain(v), lines.get(f"{key}.{k}", lines.get(key, 1))) for k, v in cast("dict[str, Any]", value).items()]
            settings.append(Setting(key, Nested(), lines.get(key, 1), inner))
        else:
            settings.append(Setting(key, plain(value), lines.get(key, 1)))
    return settings


def _toml_lines(text: str) -> Mapping[str, int]:
    """Line of each ``[table]`` and ``table.key``; the first of equal ones (a string over several lines may hold a false one)."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TOML_TABLE.match(line):
            table = header[1]
            lines.setdefault(table, number)
        elif key := _TOML_KEY.match(line):
            lines.setdefault(f"{table}.{key[1]}" if table else key[1], number)
    return lines


def plain(value: object) -> Value:
    """A parsed value as :mod:`given` has it: scalars as they are, one level of list, the rest as a fact."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Sequence):
        items = cast("Sequence[object]", value)
        return tuple(item if item is None or isinstance(item, (str, int, float)) else _nested(item) for item in items)
    return _nested(value)


def _nested(value: object) -> Nested:
    if isinstance(value, Mapping) and len(cast("Mapping[str, object]", value)) <= MAX_FLAT_ENTRIES:
        pairs = list(cast("Mapping[str, object]", value).items())
        flat = [(key, item) for key, item in pairs if item is None or isinstance(item, (str, int, float))]
        return Nested("a mapping", tuple(flat) if len(flat) == len(pairs) else ())
    return Nested("a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}")
