"""Help made beforehand from the commands' own signatures and docstrings, and the configuration's fields.

Printing a file costs a start of Python; generating it on demand would import the whole configuration and a formatter.
A test compares the files with what this makes.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Final

from llm_training.cli.commands import COMMANDS
from llm_training.config.document import flag_lines

# What a value of a parameter is called; by name, else by type.
_VALUE_WORDS: Final = {"int": "INT", "float": "FLOAT", "str": "TEXT"}
_SECTION: Final = re.compile(r"^(Example|Args):\s*$", re.MULTILINE)


def make_help(word: str) -> str:
    """The help text of one command."""
    command: Callable[..., object] = getattr(importlib.import_module(COMMANDS[word].module), word.replace("-", "_"))
    summary, example, described = _read(inspect.getdoc(command) or "")
    parameters = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.POSITIONAL_ONLY]
    takes_fields = any(p.kind is p.POSITIONAL_ONLY for p in inspect.signature(command).parameters.values())
    positional = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    usage = " ".join([f"llm-{word}", *(f"[{_singular(p.name)} ...]" for p in positional), "[FLAGS]"])
    lines = [f"Usage: {usage}", "", summary, "", "Example:", *(f"    {line}" for line in example), ""]
    for p in positional:
        lines += [_singular(p.name), f"        {described[p.name]}", ""]
    lines.append("Flags (dashes and underscores alike):")
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY:
            lines += [f"    {_flag(p)}", f"        {described[p.name]}{_default(p)}"]
    lines += ["    --debug", "        show tracebacks", "    --help, --version"]
    if takes_fields:
        lines += [
            "",
            "Configuration fields (docs/configuration.md; also with section, --data.text-field body; --no-NAME turns a switch off):",
            *flag_lines(COMMANDS[word].takes_field),
        ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _read(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Summary, example lines, and the line about each parameter, from a docstring."""
    parts = _SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    example = [line.strip() for line in sections.get("Example", "").strip().splitlines()]
    described: dict[str, str] = {}
    name = ""
    for line in sections.get("Args", "").splitlines():
        found = re.match(r"^    (\w+): (.*)$", line)
        if found:
            name = found[1]
            described[name] = found[2]
        elif name and line.strip():
            described[name] += " " + line.strip()
    return " ".join(parts[0].split()), example, described


def _singular(name: str) -> str:
    return name.removesuffix("s").upper()


def _flag(parameter: inspect.Parameter) -> str:
    annotation = str(parameter.annotation)
    flag = "--" + parameter.name.replace("_", "-")
    if "bool" in annotation:
        return flag
    choices = re.findall(r"'([^']+)'", annotation) or re.findall(r'"([^"]+)"', annotation)
    word = "|".join(choices) or next((word for kind, word in _VALUE_WORDS.items() if kind in annotation), "VALUE")
    return f"{flag} {word}" + (" (may be repeated)" if "list" in annotation else "")


def _default(parameter: inspect.Parameter) -> str:
    is_shown = parameter.default not in (None, False, "", parameter.empty)
    return f" [default {parameter.default}]" if is_shown else " [required]" if parameter.default is parameter.empty else ""
