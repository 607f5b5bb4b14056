"""The door of ``python -m llm_training COMMAND``."""

from __future__ import annotations

import importlib
import sys

from llm_training.cli.commands import COMMANDS, overview


def main(arguments: list[str]) -> int:
    """Hand the words to the command named first; a list of the commands without one."""
    word = arguments[0].removeprefix("llm-").replace("_", "-") if arguments else "--help"
    if word in COMMANDS:
        return importlib.import_module(COMMANDS[word].module).main(arguments[1:])
    is_help = word in ("--help", "-h", "help")
    if not is_help:
        sys.stderr.write(f"error[E02]: unknown command {word[:60]!r}; see the list below\n")
    (sys.stdout if is_help else sys.stderr).write(overview() + "\n")
    return 0 if is_help else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
