"""``llm-prepare-data``: texts into train and validation files with a tokenizer beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("prepare-data", prepare_data, arguments)


def prepare_data(
    *sources: str,
    input: list[str] | None = None,
    output: str = "prepared_data",
    format: Literal["jsonl"] = "jsonl",
    vocab_size: int | None = None,
    max_length: int | None = None,
    vocab: str | None = None,
    merges: str | None = None,
    tokenizer: str | None = None,
    create_stats: bool = False,
    validation_fraction: float = 0.05,
    text_field: str = "text",
    skip_bad: bool = False,
    json: bool = False,
) -> int:
    """Prepare texts for training: split them by a stable hash, and train a tokenizer or encode with a given one.

    Example:
        llm-prepare-data --input my_texts/ --output prepared_data --vocab-size 16000

    Args:
        sources: files, folders, globs or URIs of text; the same as --input.
        input: a file, folder, glob or URI of text.
        output: folder for train.json, validation.json, the tokenizer, stats.json and manifest.json.
        format: of the documents; jsonl is one JSON object per line.
        vocab_size: entries of the tokenizer to train; empty picks one for the amount of text.
        max_length: cut documents into pieces of at most so many tokens; empty leaves them whole.
        vocab: vocab.json of an existing tokenizer; with --merges. Token ids are then written too (train.ids).
        merges: merges.txt of that tokenizer.
        tokenizer: an existing tokenizer instead: tokenizer.json, a directory, a Hub name, or bytes.
        create_stats: count tokens, words and lengths of every document into stats.json.
        validation_fraction: share of documents held out, fraction; files named train, validation and test keep their own split.
        text_field: key of the text in JSON documents.
        skip_bad: skip and count undecodable or malformed documents instead of stopping.
        json: print the result as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_facts, print_json, watched
    from llm_training.jobs import prepare

    tokenizer_files = prepare.chosen_tokenizer(vocab=vocab, merges=merges, tokenizer=tokenizer)
    with watched(to_stderr=json) as bus:
        result = prepare.prepare(
            [*(input or ()), *sources],
            output,
            vocab_size=vocab_size,
            max_length=max_length,
            tokenizer_files=tokenizer_files,
            create_stats=create_stats,
            format=format,
            validation_fraction=validation_fraction,
            text_field=text_field,
            skip_bad=skip_bad,
            bus=bus,
        )
    if json:
        print_json(result)
    else:
        print_facts(result.facts())
        print(f"\nNext: llm-train {Path(output, 'train.json')} --val-data-path {Path(output, 'validation.json')} --tokenizer.path {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
