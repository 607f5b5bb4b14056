"""Job: what a run recorded, as lines for people, live or afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llm_training.errors import ConfigError
from llm_training.monitoring.printable import printable
from llm_training.storage.append import read_jsonl
from llm_training.storage.oserrors import storage_errors
from llm_training.storage.runs import RUNS_DIRECTORY, RunLayout, list_runs

POLL_SECONDS: Final = 0.5
# A resumed run writes on after the end of an earlier session; this long nothing may come before the end is believed.
QUIET_SECONDS: Final = 2.0

Record = Mapping[str, Any]


def newest_run(root: Path = Path(RUNS_DIRECTORY)) -> str:
    """The run that recorded something last. Raises ConfigError when there is none."""
    runs = [path for _, path in list_runs(root) if RunLayout(path).metrics.is_file()]
    if not runs:
        raise ConfigError(f"there is no run under {root}/", remedy="name a run directory")
    with storage_errors("list runs", root):
        return str(max(runs, key=lambda path: RunLayout(path).metrics.stat().st_mtime_ns))


def locate_run(run: str) -> RunLayout:
    """The run of a directory, or of a name under ``runs/``. Raises ConfigError."""
    for path in (Path(run), Path(RUNS_DIRECTORY) / run):
        if path.is_dir() and RunLayout(path).metrics.is_file():
            return RunLayout(path)
    known = ", ".join(path.name for _, path in list_runs(Path(RUNS_DIRECTORY))[-5:])
    raise ConfigError(f"there is no run {run}", remedy=f"known runs: {known}" if known else "give a run directory")


def log_lines(run: str, *, follow: bool = False, last: int | None = None, as_json: bool = False) -> Iterator[str]:
    """The records of a run, one line each.

    Args:
        run: a run directory or name.
        follow: go on until the run ends.
        last: so many last records only; those that follow come in addition.
        as_json: the records as they are.

    Raises:
        ConfigError: no such run.
    """
    path = locate_run(run).metrics
    as_line: Callable[[Record], str] = json.dumps if as_json else log_line
    size = path.stat().st_size
    records = list(read_jsonl(path))
    yield from map(as_line, records[-last:] if last else records if last is None else [])
    if follow:
        yield from map(as_line, _records_after(path, size, has_ended=_has_ended(False, records)))


def _has_ended(before: bool, records: Iterable[Record]) -> bool:
    """Whether the run has ended after these records: samples and notices may follow its end, steps begin it anew."""
    for record in records:
        before = record.get("kind") == "finish" or (before and record.get("kind") != "step")
    return before


def _records_after(path: Path, offset: int, *, has_ended: bool) -> Iterator[Record]:
    """Whole lines that are appended from ``offset`` on, until the run has ended and stays quiet."""
    waiting = b""
    quiet_since = time.monotonic()
    while True:
        size = path.stat().st_size
        if size < offset:  # a resume cut records away: what it writes now is new
            offset, waiting = size, b""
        with storage_errors("read the log", path), path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        offset += len(data)
        *lines, waiting = (waiting + data).split(b"\n")
        for line in filter(None, lines):
            newest: Record = json.loads(line)
            has_ended = _has_ended(has_ended, [newest])
            yield newest
        quiet_since = time.monotonic() if data else quiet_since
        if has_ended and time.monotonic() - quiet_since >= QUIET_SECONDS:
            return
        time.sleep(POLL_SECONDS)


def log_line(record: Record) -> str:
    """One record for people."""
    kind = str(record.get("kind", "record"))
    described = _DESCRIPTIONS.get(kind, lambda found: json.dumps(dict(found)))(record)
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["time"])) if "time" in record else "-"
    return f"{clock}  {kind:<10}  {printable(described)}"


def _number(record: Record, name: str, form: str) -> str:
    value = record.get(name)
    if value is None:
        return str(record.get("nonfinite", {}).get(name, "-"))
    return format(value, form)


def _step(record: Record) -> str:
    return (
        f"{record['step']:,}/{_number(record, 'total_steps', ',')} loss {_number(record, 'loss', '.4f')} lr {_number(record, 'lr', '.3g')} "
        f"{_number(record, 'tokens_per_second', ',.0f')} tok/s" + (" skipped" if record.get("skipped") else "")
    )


def _evaluation(record: Record) -> str:
    return (
        f"step {record['step']:,} loss {_number(record, 'loss', '.4f')} perplexity {_number(record, 'perplexity', ',.2f')} "
        f"bits per byte {_number(record, 'bits_per_byte', '.4f')}" + (" best" if record.get("best") else "")
    )


_DESCRIPTIONS: Final[Mapping[str, Callable[[Record], str]]] = {
    "plan": lambda record: f"{record.get('run_name')}: {_number(record, 'total_steps', ',')} steps",
    "step": _step,
    "skip": lambda record: f"step {record['step']:,} skipped: {record.get('reason')}",
    "evaluation": _evaluation,
    "sample": lambda record: f"step {record['step']:,}: {str(record.get('text'))[:120]}",
    "checkpoint": lambda record: f"step {record['step']:,} {record.get('path')} {', '.join(record.get('labels', ()))}".rstrip(),
    "checkpoint_removed": lambda record: f"{record.get('path')}: {record.get('reason')}",
    "growth": lambda record: f"{record.get('old_sequences'):,} -> {record.get('new_sequences'):,} sequences",
    "epoch": lambda record: f"epoch {record.get('epoch')} at step {record.get('step'):,}",
    "notice": lambda record: str(record.get("message")),
    "finish": lambda record: f"{record.get('reason')} at step {record.get('step'):,}",
}
