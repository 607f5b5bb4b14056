"""``llm-logs``: what a run recorded, as lines; live with ``--follow``; the documents of a step with ``--data``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door
from llm_training.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("logs", logs, arguments)


def logs(
    *runs: str,
    training_id: str | None = None,
    follow: bool = False,
    data: int | None = None,
    lines: int | None = None,
    json: bool = False,
) -> int:
    """Show what a run recorded.

    Example:
        llm-logs --training-id 6.9M_stdlib_256_run_1 --follow

    Args:
        runs: a run directory, or the name of a run under runs/; the newest run when none is given.
        training_id: the same as the run.
        follow: go on showing what is recorded until the run ends.
        data: show the documents that made this step instead.
        lines: show so many last records only.
        json: print the records as they are, one JSON object per line.
    """
    from llm_training.jobs import logs as job

    named = (*(() if training_id is None else (training_id,)), *runs)
    if len(named) > 1:
        raise ConfigError(f"{len(named)} runs are named, one can be shown at a time", remedy="name one; llm-plot compares several")
    run = named[0] if named else job.newest_run()
    if data is not None:
        return _show_documents(run, data, as_json=json)
    try:
        for line in job.log_lines(run, follow=follow, last=lines, as_json=json):
            print(line, flush=follow)
    except KeyboardInterrupt:
        if not follow:
            raise
    return 0


def _show_documents(run: str, step: int, *, as_json: bool) -> int:
    from llm_training.cli.console import print_json, print_table
    from llm_training.jobs.provenance import documents_of_step

    columns = ("row", "document", "source", "record", "first token", "tokens")
    rows = documents_of_step(run, step)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows, right=frozenset({0, 3, 4, 5}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
