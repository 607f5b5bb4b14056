"""Write the generated texts: help of every command, docs/configuration.md, and the measured figures in other pages.

Figures come from ``benchmarks/results``; they stand between two comments in the page, so that no page can say another one.
``--check`` only names texts that are stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_training.cli.commands import COMMANDS
from llm_training.cli.door import HELP_DIRECTORY
from llm_training.cli.help_text import make_help
from llm_training.config.document import document

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_SHARES = ("padding_percent", "cut_documents_percent", "dropped_tokens_percent")


def texts() -> Iterator[tuple[Path, str]]:
    """Every generated file with its content."""
    for word in COMMANDS:
        yield HELP_DIRECTORY / f"{word}.txt", make_help(word)
    yield ROOT / "docs" / "configuration.md", document()
    yield from (
        (path, filled(path.read_text(encoding="utf-8"), region, table))
        for path, region, table in (
            (ROOT / "docs" / "performance.md", "figures", all_figures()),
            (ROOT / "docs" / "cache-format.md", "packing", packing_tables()),
        )
    )


def filled(page: str, region: str, content: str) -> str:
    """The page with the content between the comments that mark a region."""
    begin, end = f"<!-- {region}, from benchmarks/results -->", f"<!-- end of {region} -->"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", page, count=1, flags=re.DOTALL)


def all_figures() -> str:
    """Every committed figure, a table for each benchmark."""
    parts = []
    for path in sorted(RESULTS.glob("*.json")):
        result: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        machine = result["machine"]
        told = f"{machine['date'][:10]}, {machine['usable_cores']} cores, load {machine['load_average_1min']:.1f} before"
        rows = [[figure["what"], f"{_number(figure['value'])} {figure['unit']}", _bar(figure)] for figure in result["figures"]]
        parts.append(f"### {path.stem}\n\n{result['description']} ({told})\n\n{_table(['figure', 'value', 'bar'], rows)}")
    return "\n\n".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _bar(figure: Mapping[str, Any]) -> str:
    if figure["bar"] is None:
        return ""
    return f"{figure['bar_is']} {figure['bar']:,g}: {'met' if figure['passes'] else 'missed'}"


def packing_tables() -> str:
    """Padding, cut documents and dropped tokens by strategy; size and read speed by compression."""
    details = json.loads((RESULTS / "packing.json").read_text(encoding="utf-8"))["details"]
    lengths = sorted({int(name.split(", ")[1]) for name in details["packing"]})
    rows = []
    for strategy in dict.fromkeys(name.split(", ")[0] for name in details["packing"]):
        found = [details["packing"][f"{strategy}, {length}"] for length in lengths]
        rows.append([f"`{strategy}`", *(" / ".join(f"{one[name]:g}" for name in _SHARES) for one in found)])
    packing = _table(["padding / documents cut / tokens dropped, %", *(f"rows of {length:,}" for length in lengths)], rows)
    speeds = {name: one["million_tokens_per_second"]["median"] for name, one in details["storing"].items()}
    storing = [[name, f"{one['bytes_per_token']:g}", f"{speeds[name]:.0f}"] for name, one in details["storing"].items()]
    return f"{packing}\n\n{_table(['layout', 'bytes per token', 'read, M tokens/s'], storing)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


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
