"""Write the generated texts: the help of every command and docs/configuration.md. ``--check`` only names those that are stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from llm_training.cli.commands import COMMANDS
from llm_training.cli.door import HELP_DIRECTORY
from llm_training.cli.help_text import make_help
from llm_training.config.document import document

ROOT = Path(__file__).resolve().parent.parent


def texts() -> Iterator[tuple[Path, str]]:
    """Every generated file with its content."""
    for word in COMMANDS:
        yield HELP_DIRECTORY / f"{word}.txt", make_help(word)
    yield ROOT / "docs" / "configuration.md", document()


def stale() -> list[str]:
    """Paths of generated files whose content is not what would be written now."""
    return [str(path) for path, text in texts() if not path.is_file() or path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        old = stale()
        sys.exit(f"stale: {', '.join(old)}; run: make docs" if old else 0)
    for path, text in texts():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
