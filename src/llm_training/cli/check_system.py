"""``llm-check-system``: what this machine offers for training, and what is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("check-system", check_system, arguments)


def check_system(*, json: bool = False) -> int:
    """Check what this machine offers: Python, torch, processor and GPU, memory, disk, compiler, optional parts.

    Example:
        llm-check-system

    Args:
        json: print the facts as JSON.
    """
    from llm_training.cli.console import print_json, print_table
    from llm_training.jobs.system import check_system as job

    report = job()
    if json:
        print_json(report)
    else:
        print_table(("", "what", "found", "what to do"), [(fact.mark, fact.name, fact.found, fact.remedy) for fact in report.facts])
    return 0 if report.is_able else 2


if __name__ == "__main__":
    sys.exit(main())
