"""``llm-plot``: the curves of one run, or of several in one picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("plot", plot, arguments)


def plot(*runs: str, output: str | None = None, json: bool = False) -> int:
    """Draw loss, learning rate, throughput, memory and progress of runs.

    Example:
        llm-plot runs/my_run --output loss.png

    Args:
        runs: run directories, names of runs under runs/, metrics.jsonl files or JSON run logs; the newest run when none is given.
        output: picture to write (.png, .svg, .pdf); empty is plots/training.png in the run, comparison.png for several.
        json: print the path as JSON.
    """
    from llm_training.cli.console import print_json
    from llm_training.jobs.logs import newest_run
    from llm_training.jobs.plot import plot as job

    path = job(runs or [newest_run()], output)
    if json:
        print_json({"output": path})
    else:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
