"""An output folder: not a source, and gone again when a failure leaves nothing in it."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_training.errors import ConfigError
from llm_training.storage.home import expanded


def refuse_source_as_output(sources: Sequence[str], output: Path) -> None:
    """Raise ConfigError when the output folder is one of the sources: what is written would be text of the next reading."""
    folder = os.path.realpath(output)
    for source in sources:
        if os.path.realpath(expanded(source)) == folder:
            raise ConfigError(f"the source {source} is the output folder", where="--output", remedy="choose another --output")


@contextmanager
def removed_when_empty(folder: Path) -> Generator[None]:
    """On a failure of the block, remove the folder and its parents, those that were not there before and hold nothing."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that holds something ends it
            for path in made:
                path.rmdir()
        raise
