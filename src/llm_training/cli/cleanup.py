"""``llm-cleanup``: old checkpoints, removed by rule. Shows what it would do until ``--yes``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("cleanup", cleanup, arguments)


def cleanup(
    *,
    checkpoint_dir: str,
    keep_best: int = 1,
    keep_last: int = 1,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Remove old checkpoints of a run. The best, the newest and one in use always stay. Without --yes nothing is removed.

    Example:
        llm-cleanup --checkpoint-dir runs/my_run/checkpoints --keep-best 3 --keep-last 2

    Args:
        checkpoint_dir: a run directory, or the checkpoints directory in it.
        keep_best: checkpoints with the lowest validation loss that stay.
        keep_last: newest checkpoints that stay.
        yes: really remove.
        json: print what was or would be removed as JSON.
    """
    from llm_training.cli.console import print_json, print_table
    from llm_training.jobs.cleanup import cleanup as job

    result = job(checkpoint_dir, keep_best=keep_best, keep_last=keep_last, is_dry_run=not yes)
    if json:
        print_json(result)
        return 0
    rows = [(entry.name, entry.size_text, entry.loss_text, entry.verdict) for entry in result.entries]
    print_table(("checkpoint", "size", "validation loss", "verdict"), rows, right=frozenset({1, 2}))
    print(result.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
