"""``llm-analyze-data``: one HTML page about data, with charts and samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("analyze-data", analyze_data, arguments)


def analyze_data(
    *sources: str,
    data_file: list[str] | None = None,
    data_dir: str | None = None,
    output: str = "stats/analysis.html",
    tokenizer: str | None = None,
    group_by: str | None = None,
    keep_dropped: str | None = None,
    title: str | None = None,
    samples: int = 8,
    measured_bytes: int = 50_000_000,
    seed: int = 0,
    text_field: str = "text",
    json: bool = False,
) -> int:
    """Write one HTML page about data: lengths, quality, languages, copies, bytes per token, frequent words, samples.

    Example:
        llm-analyze-data --data-file prepared_data/train.json --output stats/analysis.html

    Args:
        sources: files, folders, globs or URIs of text; the same as --data-file.
        data_file: a file, folder, glob or URI of text.
        data_dir: a folder of data, such as one that llm-prepare-data wrote.
        output: the page to write; it needs no other file and fetches nothing.
        tokenizer: count tokens with it: tokenizer.json, a directory, a Hub name, or bytes; empty takes that of prepared data.
        group_by: field of the records by which text is compared; empty compares files.
        keep_dropped: folder of dropped documents that llm-prepare-data kept; they are shown with their reasons.
        title: heading of the page; empty takes the name of the data.
        samples: documents shown, drawn evenly.
        measured_bytes: text on which quality, language and frequent words are measured at most, bytes; a stable sample when there is more.
        seed: of the samples.
        text_field: key of the text in JSON documents.
        json: print what is on the page as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_facts, print_json, watched
    from llm_training.jobs.analyze_data import analyze_data as job

    with watched(to_stderr=json) as bus:
        result = job(
            [*(data_file or ()), *([data_dir] if data_dir else ()), *sources],
            output,
            tokenizer=tokenizer,
            group_by=group_by,
            dropped_folder=keep_dropped,
            title=title,
            num_samples=samples,
            measured_bytes=measured_bytes,
            seed=seed,
            text_field=text_field,
            bus=bus,
        )
    if json:
        print_json({"output": result.output, **result.statistics})
    else:
        print_facts(result.facts())
    return 0


if __name__ == "__main__":
    sys.exit(main())
