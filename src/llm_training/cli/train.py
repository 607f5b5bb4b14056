"""``llm-train``: from raw text to a trained, evaluated, sampled model. Also the door behind ``python -m llm_training.main``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from llm_training.cli import door
from llm_training.cli.commands import COMMANDS
from llm_training.errors import ConfigError

# Words that may stand first in place of a source, as other trainers have sub-commands.
SUB_COMMANDS: Final = frozenset({"train", "evaluate"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``llm-train`` on the words of the process, or on the given ones; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] == "evaluate":
        return importlib.import_module(COMMANDS["evaluate"].module).main(words[1:])
    return door.run("train", train, words[1:] if words and words[0] == "train" else words, takes_fields=True)


def main_job(arguments: Sequence[str] = ()) -> int:
    """The main job from Python: ``from llm_training import main; main()``. Takes words as ``llm-train`` does; returns the exit code."""
    return main(list(arguments))


def train(
    values: Sequence[tuple[str, str | tuple[str, ...]]],
    /,
    *sources: str,
    config: list[str] | None = None,
    dry_run: bool = False,
    print_config: bool = False,
    json: bool = False,
) -> int:
    """Train a model on text: prepare, tokenise, pack, train, evaluate, write samples. The same command again resumes.

    Example:
        llm-train my_texts/ --time-budget-minutes 30

    Args:
        values: fields given as flags, taken out of the words beforehand.
        sources: files, folders, globs or URIs of text; the Python library's own source files when none is given.
        config: a file, a name in config/, or a shipped preset; may be repeated, later ones win.
        dry_run: show the plan and stop.
        print_config: print every field with its value and where it was set, and stop.
        json: print the result as JSON; progress goes to standard error.
    """
    from llm_training.config.load import load_config
    from llm_training.config.show import describe

    loaded = load_config(config or (), os.environ, [*values, *_source_values(sources)])
    if print_config:
        print(describe(loaded), end="")
        return 0
    from llm_training.cli.console import is_first_rank, print_json, watched
    from llm_training.jobs import train as job

    settings = loaded.config.monitoring
    with watched(settings.console, logging_steps=loaded.config.training.logging_steps, to_stderr=json, log_level=settings.log_level) as bus:
        result = job.train(loaded.config, bus=bus, dry_run=dry_run, origins=loaded.origins)
    if json and is_first_rank():
        print_json(result)
    return 0


def _source_values(sources: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    if sources and sources[0] in COMMANDS:
        word = sources[0]
        raise ConfigError(f"{word} is a command, not a source", remedy=f"run llm-{word}, or write ./{word} for a folder of that name")
    return [("data.sources", tuple(sources))] if sources else []


if __name__ == "__main__":
    sys.exit(main())
