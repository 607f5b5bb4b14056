"""``llm-prepare-data``: texts cleaned into train and validation files with a tokenizer beside them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from llm_training.cli import door
from llm_training.errors import ConfigError

_SHOWN_PLACES = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("prepare-data", prepare_data, arguments, takes_fields=True)


def prepare_data(
    values: Sequence[tuple[str, str | tuple[str, ...]]],
    /,
    *sources: str,
    input: list[str] | None = None,
    output: str = "prepared_data",
    format: Literal["jsonl", "parquet"] = "jsonl",
    deduplicate: bool | None = None,
    keep_dropped: str | None = None,
    allow_leaks: bool = False,
    skip_bad: bool = False,
    workers: int = 0,
    vocab_size: int | None = None,
    max_length: int | None = None,
    vocab: str | None = None,
    merges: str | None = None,
    tokenizer: str | None = None,
    create_stats: bool = False,
    config: list[str] | None = None,
    json: bool = False,
) -> int:
    """Clean texts, split them by a stable hash, and train a tokenizer or encode with a given one. Every document left out is counted.

    Example:
        llm-prepare-data --input my_texts/ --output prepared_data --vocab-size 16000

    Args:
        values: fields given as flags, taken out of the words beforehand.
        sources: files, folders, globs or URIs of text; the same as --input.
        input: a file, folder, glob or URI of text.
        output: folder for train.json, validation.json, the tokenizer, stats.json and manifest.json.
        format: of the documents; jsonl is one JSON object per line, parquet is in shards.
        deduplicate: remove duplicates and near-duplicates; empty follows --cleaning, which by default does.
        keep_dropped: folder for a file with every document that went, and why.
        allow_leaks: go on when the same text stands in training and held-out documents.
        skip_bad: skip and count undecodable or malformed documents instead of stopping; off unless asked for here or by --config.
        workers: processes that clean; 0 takes what the amount of text is worth, at most one a core; on a Ray cluster one a CPU.
        vocab_size: entries of the tokenizer to train; empty picks one for the amount of text.
        max_length: cut documents into pieces of at most so many tokens; empty leaves them whole.
        vocab: vocab.json of an existing tokenizer; with --merges. Token ids are then written too (train.ids).
        merges: merges.txt of that tokenizer.
        tokenizer: an existing tokenizer instead: tokenizer.json, a directory, a Hub name, or bytes.
        create_stats: count tokens, words and lengths of every document into stats.json.
        config: a file, a name in config/, or a shipped preset; may be repeated, later ones win. The section data is used.
        json: print the result as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_facts, print_json, print_table, watched
    from llm_training.config.given import DEFAULT
    from llm_training.config.load import load_config
    from llm_training.jobs import prepare
    from llm_training.jobs.clean_corpus import configured_cleaning
    from llm_training.jobs.prepare_sources import sources_without_weights
    from llm_training.monitoring.printable import printable

    tokenizer_files = prepare.chosen_tokenizer(vocab=vocab, merges=merges, tokenizer=tokenizer)
    given = (*(input or ()), *sources)
    loaded = load_config(config or (), os.environ, [*values, *([("data.sources", given)] if given else [])])
    data, monitoring = loaded.config.data, loaded.config.monitoring
    if data.num_samples is not None:
        raise ConfigError("data.num_samples is not for llm-prepare-data", remedy="give it to llm-train or llm-build-cache")
    is_given = data.dataset_name is not None or loaded.origin("data.sources") != DEFAULT
    with watched(monitoring.console, to_stderr=json, log_level=monitoring.log_level) as bus:
        result = prepare.prepare(
            sources_without_weights(data) if is_given else (),
            output,
            vocab_size=vocab_size,
            max_length=max_length,
            tokenizer_files=tokenizer_files,
            create_stats=create_stats,
            format=format,
            validation_fraction=data.validation_fraction,
            validation_sources=data.validation_sources,
            text_field=data.text_field,
            skip_bad=skip_bad or (data.skip_bad and loaded.origin("data.skip_bad") != DEFAULT),
            replace_bad_bytes=data.replace_bad_bytes,
            max_bad_fraction=data.max_bad_fraction,
            max_document_bytes=data.max_document_bytes,
            cleaning=configured_cleaning(data, deduplicate=deduplicate),
            keep_dropped=keep_dropped,
            allow_leaks=allow_leaks,
            workers=workers,
            engine=data.engine,
            bus=bus,
        )
    if json:
        print_json(result)
        return 0
    if result.dropped:
        print_table(["step", "reason", "documents", "share"], result.reasons(), right=frozenset({2, 3}))
    for reason, place in result.bad[:_SHOWN_PLACES]:
        print(f"left out: {reason} at {printable(place)}")
    if len(result.bad) > _SHOWN_PLACES:
        print(f"and {len(result.bad) - _SHOWN_PLACES:,} more, listed in {Path(output, 'stats.json')}")
    print()
    print_facts(result.facts())
    print(f"\nNext: {printable(_next_command(output, format))}{_same_limit(data.max_document_bytes)}")
    return 0


def _same_limit(max_document_bytes: int) -> str:
    """The flag without which training would leave out what was prepared with a higher limit."""
    from llm_training.config.data import DataConfig

    is_higher = max_document_bytes > DataConfig().max_document_bytes
    return f" --max-document-bytes {max_document_bytes}" if is_higher else ""


def _next_command(output: str, format: str) -> str:
    if format == "parquet":
        return shlex.join(["llm-train", output, "--tokenizer.path", output])
    train, validation = (str(Path(output, f"{split}.json")) for split in ("train", "validation"))
    return shlex.join(["llm-train", train, "--val-data-path", validation, "--tokenizer.path", output])


if __name__ == "__main__":
    sys.exit(main())
