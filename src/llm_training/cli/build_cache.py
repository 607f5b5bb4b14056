"""``llm-build-cache``: the packed token cache that training reads; build on, fill gaps, rebuild, verify."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

from llm_training.cli import door
from llm_training.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("build-cache", build_cache, arguments, takes_fields=True)


def build_cache(
    values: Sequence[tuple[str, str | tuple[str, ...]]],
    /,
    *sources: str,
    input: list[str] | None = None,
    tokenizer: str | None = None,
    dataset_name: str | None = None,
    mode: Literal["normal", "inverse"] = "normal",
    force_rebuild: bool = False,
    verify: bool = False,
    chunks: int | None = None,
    publish: str | None = None,
    config: list[str] | None = None,
    json: bool = False,
) -> int:
    """Tokenise texts into the cache that training reads. Run again, it builds on from where it stopped.

    Example:
        llm-build-cache my_texts/ --tokenizer tokenizer --sequence-length 512

    Args:
        values: fields given as flags, taken out of the words beforehand.
        sources: files, folders, globs or URIs of text; the same as --input.
        input: a file, folder, glob or URI of text.
        tokenizer: tokenizer.json, a directory, a Hub name, or bytes; empty trains one on the texts.
        dataset_name: name of the dataset in the cache; empty takes it from the sources.
        mode: normal builds on; inverse scans for missing or damaged chunks and builds just those.
        force_rebuild: build everything anew beside the old cache, then swap.
        verify: check sizes and hashes of every chunk, build nothing; without a source, of every dataset in the cache.
        chunks: build at most so many chunks now and leave the others for the next build; empty builds all.
        publish: send the finished dataset to a remote folder, as s3://bucket/prefix, for --cache.dir of training runs.
        config: a file, a name in config/, or a shipped preset; may be repeated, later ones win.
        json: print the result as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_json, watched
    from llm_training.config.given import DEFAULT
    from llm_training.config.load import load_config
    from llm_training.jobs import cache
    from llm_training.jobs.cache_check import check_cache
    from llm_training.storage.remote import is_remote

    _refuse_contradictions({"--verify": verify, "--force-rebuild": force_rebuild, "--mode inverse": mode == "inverse"})
    given = (*(input or ()), *sources)
    own: list[tuple[str, str | tuple[str, ...]]] = [("data.sources", given)] if given else []
    own += [(name, value) for name, value in (("tokenizer.path", tokenizer), ("cache.name", dataset_name)) if value is not None]
    loaded = load_config(config or (), os.environ, [*values, *own])
    settings = loaded.config.monitoring
    is_unnamed = loaded.origin("data.sources") == DEFAULT
    if is_unnamed and mode == "inverse":
        what = "--mode inverse does not know which cache to repair"
        raise ConfigError(what, remedy="name its source, tokenizer and row length (stdlib: is the default source)")
    is_about_all = verify and is_unnamed and not is_remote(loaded.config.cache.dir)
    with watched(settings.console, to_stderr=json, log_level=settings.log_level) as bus:
        if is_about_all:
            result = check_cache(loaded.config.cache.dir, bus)
        else:
            result = cache.build(
                loaded.config, mode=mode, force_rebuild=force_rebuild, verify=verify, max_chunks=chunks, publish=publish, bus=bus
            )
    if json:
        print_json(result)
    else:
        print("\n".join(result.lines()))
    return 0


def _refuse_contradictions(is_given: Mapping[str, bool]) -> None:
    given = [flag for flag, holds in is_given.items() if holds]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} cannot go with {given[1]}", remedy="give one of them")


if __name__ == "__main__":
    sys.exit(main())
