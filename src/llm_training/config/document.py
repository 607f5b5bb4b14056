"""The table of all fields for docs/configuration.md and the list of them for ``--help``, both from the section classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from llm_training.config.aliases import FIXED, FLAT_OWNERS, RENAMES, SECTION_ONLY, TRANSLATIONS
from llm_training.config.fields import FieldFact, all_fields, section_names
from llm_training.config.names import flat_spellings
from llm_training.config.root import Config
from llm_training.config.show import yaml_value

_INTRODUCTION: Final = """\
# Configuration

Every field of a run, with its type, bounds and default. This page is generated from the section classes by
`python scripts/make_texts.py`; a test compares it.

A value is taken from the last of these that gives one:

1. the default,
2. `config/default.yaml`, when there is one in the working directory,
3. each `--config FILE` in order: a path (YAML, JSON or TOML), a name in `config/`, or a shipped preset,
4. the environment: `LLM_TRAINING__SECTION__FIELD`, for example `LLM_TRAINING__TRAINING__BATCH_SIZE=8`,
5. the command line: `--batch-size 8`, or with its section `--training.batch-size 8`,
6. an override by the running program.

`llm-train --print-config` prints the result as a file, with the origin of each value. Files may have sections or be flat
(a flat name must mean one field only); dashes and underscores are alike. Wrong values are all reported at once, each with
its place, and the exit code is 2.
"""


def document() -> str:
    """The whole page, in Markdown."""
    parts = [_INTRODUCTION]
    parts += [_section(name) for name in section_names() if _facts(name)]
    parts += [_translations(), _fixed()]
    return "\n".join(parts)


def flag_lines(takes_field: Callable[[str], bool], width: int = 100) -> list[str]:
    """One entry for each field that is taken, as ``--help`` lists them: flag, type and default, description."""
    lines: list[str] = []
    for section in section_names():
        facts = [fact for fact in _facts(section) if takes_field(fact.name)]
        lines += ["", f"  {section}"] if facts else []
        for fact in facts:
            lines.append(f"    {_flag(fact)} {_type_and_bound(fact)}".rstrip())
            lines += [f"        {line}" for line in _wrap(f"{fact.description} [{_default(fact)}]", width - 8)]
    return lines


def _facts(section: str) -> list[FieldFact]:
    return [fact for fact in all_fields().values() if fact.section == section]


def _flag(fact: FieldFact) -> str:
    """Flat where that is enough."""
    is_flat = fact.key not in SECTION_ONLY and flat_spellings().get(fact.key) == (fact.name,)
    return "--" + (fact.key if is_flat else fact.name).replace("_", "-")


def _type_and_bound(fact: FieldFact) -> str:
    kind = (
        "|".join(fact.choices)
        if fact.choices
        else {"list": "TEXT ...", "str": "TEXT", "int": "INT", "float": "FLOAT", "bool": ""}[fact.kind]
    )
    return f"{kind} ({fact.bound})" if fact.bound and not fact.choices else kind


def _default(fact: FieldFact) -> str:
    return "empty" if fact.default is None or fact.default == [] else f"default {yaml_value(fact.default)}"


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _section(name: str) -> str:
    section_class = cast(Any, Config.model_fields[name].annotation)
    rows = [
        [f"`{fact.key}`", fact.type_text, fact.bound if not fact.choices else "", _shown_default(fact), _others(fact), fact.description]
        for fact in _facts(name)
    ]
    return f"\n## {name}\n\n{section_class.__doc__}\n\n" + _table(["field", "type", "bounds", "default", "also accepted", "meaning"], rows)


def _shown_default(fact: FieldFact) -> str:
    return "" if fact.default is None else f"`{yaml_value(fact.default)}`"


def _others(fact: FieldFact) -> str:
    return ", ".join(f"`{other}`" for other in RENAMES.get(fact.name, ()))


def _translations() -> str:
    shown = sorted({name for name in TRANSLATIONS if name not in all_fields()})
    lines = [f"- `{name}`" for name in shown]
    head = "\n## Translated names\n\nThese say the same in other words, and set the field they stand for:\n\n"
    owners = (
        "\n\nFlat names that several sections have mean: "
        + ", ".join(f"`{flat}` is `{owner}`" for flat, owner in FLAT_OWNERS.items())
        + ".\n"
    )
    return head + "\n".join(lines) + owners


def _fixed() -> str:
    lines = [f"- `{name}`" for name in sorted(FIXED)]
    head = "\n## Names without a choice\n\nAccepted with the one value that is true of this program, refused with the reason otherwise:\n\n"
    return head + "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
