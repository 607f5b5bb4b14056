"""What a command shows while it works and at its end: the console on the event bus, tables, JSON for scripts."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import PurePath

from llm_training.events import EventBus


def is_first_rank() -> bool:
    """False in the other processes of a launcher such as torchrun: they print nothing."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def watched(mode: str = "auto", *, logging_steps: int = 10, to_stderr: bool = False, log_level: str = "INFO") -> Iterator[EventBus]:
    """A bus with the console on it, and messages of ``log_level`` and above on standard error.

    Nothing is shown for ``off``, and on ranks other than the first.
    """
    from llm_training.monitoring.console import Console

    bus = EventBus()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=log_level)
    if mode == "off" or not is_first_rank():
        yield bus
        return
    with Console(sys.stderr if to_stderr else sys.stdout, mode=mode, logging_steps=logging_steps) as console:
        bus.subscribe(console)
        yield bus


def print_json(value: object) -> None:
    """A result for scripts: one JSON document on standard output."""
    print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, (set, frozenset, tuple)) else str(value)


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values, aligned; what data may have put into them is made printable."""
    from llm_training.monitoring.printable import printable

    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{name:<{width}}  {printable(str(value))}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: frozenset[int] = frozenset()) -> None:
    """A table: drawn in a terminal, tab-separated elsewhere so that ``cut`` and ``awk`` can read it; cells are made printable."""
    from llm_training.monitoring.printable import printable

    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(printable(str(cell)) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console().print(table)
