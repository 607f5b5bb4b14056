"""YAML into settings with line numbers.

Composed from the parser's events by a loop of our own rather than by a YAML loader: no object is ever constructed, tags
are refused, aliases share a node instead of copying it (so an alias bomb stays as small as its text), nesting is bounded
before it can recurse, duplicate keys are seen, and plain words keep their spelling until the field they are for is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import yaml

from llm_training.config.given import MAX_FLAT_ENTRIES, Nested, Scalar, Text, Value, shown
from llm_training.errors import ConfigError

MAX_DEPTH: Final = 20
MAX_ALIASES: Final = 100

_PARSER: Final = cast(Any, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
_parse: Final = cast("Callable[..., Iterator[Any]]", yaml.parse)  # pyright: ignore[reportUnknownMemberType]


@dataclass
class Setting:
    """One ``key: value`` of a file. A mapping has its settings in ``inner`` instead of a value."""

    key: str
    value: Value
    line: int
    inner: list[Setting] | None = None


@dataclass
class _Map:
    line: int
    pairs: list[tuple[str, _Node, int]] = field(default_factory=list[tuple[str, "_Node", int]])
    key: tuple[str, int] | None = None
    seen: dict[str, int] = field(default_factory=dict[str, int])


@dataclass
class _Sequence:
    line: int
    items: list[_Node] = field(default_factory=list["_Node"])


_Node = _Map | _Sequence | Scalar


def read_yaml(text: str, source: str) -> list[Setting]:
    """The settings of one document. Raises :class:`ConfigError` with line and column for text that is not a plain mapping."""
    try:
        root = _Composer(source).compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"not valid YAML ({_reason(error)})", where=place, remedy=_remedy(text, mark)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML ({shown(str(error), quote=False, limit=120)})", where=source) from None
    if root is None or root == "":
        return []
    if not isinstance(root, _Map):
        raise ConfigError("a configuration is a mapping of names to values, not " + _kind(root), where=f"{source}:1")
    return [Setting(key, _value(node), line, _inner(node)) for key, node, line in root.pairs]


def _reason(error: yaml.MarkedYAMLError) -> str:
    return shown(error.problem or error.context or "syntax", quote=False, limit=120)


def _remedy(text: str, mark: yaml.Mark | None) -> str:
    """The C parser does not say which character it stumbled over; a tab is the one that nobody sees."""
    lines = text.splitlines()
    is_tab = mark is not None and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t"
    return "indent with spaces, not tabs" if is_tab else ""


def _kind(node: _Node) -> str:
    return "a mapping" if isinstance(node, _Map) else "a list" if isinstance(node, _Sequence) else "a single value"


def _inner(node: _Node) -> list[Setting] | None:
    return [Setting(key, _value(inner), line) for key, inner, line in node.pairs] if isinstance(node, _Map) else None


def _value(node: _Node) -> Value:
    if isinstance(node, _Map):
        return Nested()
    if isinstance(node, _Sequence):
        return tuple(_nested(item) if isinstance(item, (_Map, _Sequence)) else item for item in node.items)
    return node


def _nested(node: _Map | _Sequence) -> Nested:
    pairs = [(key, inner) for key, inner, _ in node.pairs] if isinstance(node, _Map) and len(node.pairs) <= MAX_FLAT_ENTRIES else []
    flat = [(key, inner) for key, inner in pairs if not isinstance(inner, (_Map, _Sequence))]
    return Nested(_kind(node), tuple(flat) if len(flat) == len(pairs) else ())


class _Composer:
    """Builds the nodes of one document from parse events, with an explicit stack."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._stack: list[_Map | _Sequence] = []
        self._anchors: dict[str, _Node] = {}
        self._root: _Node = None
        self._num_aliases = 0
        self._num_documents = 0

    def compose(self, text: str) -> _Node:
        for event in _parse(text, Loader=_PARSER):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.ScalarEvent):
                self._take(self._scalar(event, line), event.anchor, line)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._refuse_tag(event, line)
                node = _Map(line) if isinstance(event, yaml.MappingStartEvent) else _Sequence(line)
                self._take(node, event.anchor, line)
                self._stack.append(node)
                if len(self._stack) > MAX_DEPTH:
                    raise self._error(f"nested deeper than {MAX_DEPTH} levels", line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._stack.pop()
            elif isinstance(event, yaml.AliasEvent):
                self._take(self._alias(event, line), None, line)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._num_documents += 1
                if self._num_documents > 1:
                    raise self._error("a second document (---) in one file", line)
        return self._root

    def _take(self, node: _Node, anchor: str | None, line: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        if isinstance(parent, _Sequence):
            parent.items.append(node)
        elif parent.key is None:
            parent.key = (self._key(node, parent, line), line)
        else:
            parent.pairs.append((parent.key[0], node, parent.key[1]))
            parent.key = None

    def _key(self, node: _Node, parent: _Map, line: int) -> str:
        if not isinstance(node, str) or not node:
            raise self._error("a name is needed before the colon, not " + (shown(node) if node is None else _kind(node)), line)
        if node == "<<":
            raise self._error("merge keys (<<) are not accepted; write the settings out", line)
        if node in parent.seen:
            raise self._error(f"{shown(node, quote=False)} is given twice, first on line {parent.seen[node]}", line)
        parent.seen[node] = line
        return node

    def _scalar(self, event: Any, line: int) -> Scalar:
        self._refuse_tag(event, line)
        text = cast(str, event.value)
        if not event.implicit[0]:
            return text
        return None if text in ("", "~", "null", "Null", "NULL") and not self._is_key() else Text(text)

    def _is_key(self) -> bool:
        parent = self._stack[-1] if self._stack else None
        return isinstance(parent, _Map) and parent.key is None

    def _alias(self, event: Any, line: int) -> _Node:
        self._num_aliases += 1
        if self._num_aliases > MAX_ALIASES:
            raise self._error(f"more than {MAX_ALIASES} aliases", line)
        if event.anchor not in self._anchors:
            raise self._error(f"alias *{shown(event.anchor, quote=False)} has no anchor", line)
        return self._anchors[event.anchor]

    def _refuse_tag(self, event: Any, line: int) -> None:
        if event.tag is not None and not (event.tag == "!" and isinstance(event, yaml.ScalarEvent)):
            raise self._error(f"the tag {shown(event.tag, quote=False)} is not accepted; write a plain value", line)

    def _error(self, what: str, line: int) -> ConfigError:
        return ConfigError(what, where=f"{self._source}:{line}")
