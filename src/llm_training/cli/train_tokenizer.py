"""``llm-train-tokenizer``: a byte-level BPE tokenizer from texts, with a report of how well it fits held-out text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Literal

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("train-tokenizer", train_tokenizer, arguments)


def train_tokenizer(
    *sources: str,
    input: list[str] | None = None,
    output: str = "tokenizer",
    vocab_size: int = 16_384,
    min_frequency: int = 2,
    max_training_bytes: int = 16_000_000,
    pattern: Literal["qwen2", "llama3", "gpt2"] = "qwen2",
    text_field: str = "text",
    skip_bad: bool = False,
    json: bool = False,
) -> int:
    """Train a byte-level BPE tokenizer and report how it fits held-out text.

    Example:
        llm-train-tokenizer my_texts/ --output tokenizer --vocab-size 16384

    Args:
        sources: files, folders, globs or URIs of text; the same as --input.
        input: a file, folder, glob or URI of text.
        output: folder for tokenizer.json, the files that transformers reads beside it, tokenizer_report.json and manifest.json.
        vocab_size: entries of the tokenizer, the 256 bytes and the separator included.
        min_frequency: occurrences that a pair needs to be merged.
        max_training_bytes: text it is trained on at most, bytes; a stable sample when there is more.
        pattern: how text is cut into words before pairs are merged; that of the named models, known to llama.cpp.
        text_field: key of the text in JSON documents.
        skip_bad: skip and count undecodable or malformed documents instead of stopping.
        json: print the report as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_facts, print_json, print_table, watched
    from llm_training.jobs.tokenizer import train_tokenizer_job
    from llm_training.monitoring.printable import printable

    with watched(to_stderr=json) as bus:
        result = train_tokenizer_job(
            [*(input or ()), *sources],
            output,
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            max_training_bytes=max_training_bytes,
            pattern=pattern,
            text_field=text_field,
            skip_bad=skip_bad,
            bus=bus,
        )
    if json:
        print_json({"output": result.output, **result.report.to_json()})
    else:
        print_facts(result.report.facts())
        print()
        print_table(result.report.columns, result.report.rows(), right=frozenset(range(1, 7)))
        print(f"\nNext: {printable(shlex.join(['llm-train', *(input or ()), *sources, '--tokenizer.path', output]))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
