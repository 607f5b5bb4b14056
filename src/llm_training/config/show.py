"""The resolved configuration as text: YAML with the origin of every value beside it, usable as a file and reading back equal."""

from __future__ import annotations

import json
import re
from typing import Final, cast

from llm_training.config.fields import all_fields
from llm_training.config.load import Loaded
from llm_training.config.root import Config

# Words that any YAML reader takes as text; everything else is quoted.
_SAFE_WORD: Final = re.compile(r"[A-Za-z./_][A-Za-z0-9./_-]*:?")
_TAKEN_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})


def describe(loaded: Loaded) -> str:
    """Every field with its value and, as a comment, where the value came from."""
    lines: list[str] = ["# The resolved configuration. Beside each value: where it was set."]
    for section in Config.model_fields:
        facts = [fact for fact in all_fields().values() if fact.section == section]
        if not facts:
            continue
        lines.append(f"{section}:")
        for fact in facts:
            value = getattr(getattr(loaded.config, section), fact.key)
            lines.append(f"  {fact.key}: {yaml_value(value)}  # {loaded.origin(fact.name)}")
    return "\n".join(lines) + "\n"


def as_values(config: Config) -> dict[str, dict[str, object]]:
    """The configuration as plain nested values, for JSON and for ``config.yaml`` of a run."""
    return {section: values for section, values in config.model_dump(mode="json").items() if values}


def plain_yaml(config: Config) -> str:
    """The configuration as YAML without comments: what a run keeps as ``config.yaml``."""
    lines: list[str] = []
    for section, values in as_values(config).items():
        lines.append(f"{section}:")
        lines += [f"  {key}: {yaml_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def yaml_value(value: object) -> str:
    """One value in YAML that 1.1 and 1.2 readers take alike: floats with a point, texts quoted unless plainly words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list):
        return (
            "[" + ", ".join(yaml_value(item) if not isinstance(item, str) else _quoted(item) for item in cast("list[object]", value)) + "]"
        )
    text = str(value)
    is_word = _SAFE_WORD.fullmatch(text) and text.lower() not in _TAKEN_WORDS and not text.endswith(":")
    return text if is_word or isinstance(value, int) else _quoted(text)


def _float(value: float) -> str:
    text = repr(value)
    mantissa, exponent_mark, exponent = text.partition("e")
    return f"{mantissa}.0e{exponent}" if exponent_mark and "." not in mantissa else text


def _quoted(text: str) -> str:
    """Double quotes with the escapes that JSON and YAML share; astral characters stay themselves (YAML refuses halves of pairs)."""
    return "".join(c if c.isprintable() else _escape(c) for c in json.dumps(text, ensure_ascii=False))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
