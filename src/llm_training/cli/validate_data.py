"""``llm-validate-data``: checks of data before training on it; exit code 3 with the reasons when it fails."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("validate-data", validate_data, arguments)


def validate_data(
    *sources: str,
    data_dir: str | None = None,
    checks: str = "schema,quality,distribution,duplicates,leakage",
    output: str | None = None,
    max_bad_fraction: float = 0.0,
    max_repeated_id_fraction: float = 0.0,
    max_duplicate_fraction: float = 0.01,
    max_near_duplicate_fraction: float = 0.05,
    max_leaked_documents: int = 0,
    max_near_leaked_fraction: float = 0.05,
    min_words: int = 5,
    max_short_fraction: float = 0.05,
    max_document_share: float = 0.5,
    max_split_shift: float = 0.3,
    min_quality: float = 0.5,
    max_low_quality_fraction: float = 0.1,
    max_garbled_fraction: float = 0.01,
    measured_bytes: int = 50_000_000,
    text_field: str = "text",
    json: bool = False,
) -> int:
    """Check data before training on it. Exit code 3, with the reasons, when a limit is exceeded.

    Example:
        llm-validate-data --data-dir prepared_data --checks quality,distribution,duplicates

    Args:
        sources: files, folders, globs or URIs of text; the same as --data-dir.
        data_dir: a folder of data, such as one that llm-prepare-data wrote.
        checks: names separated by commas; schema, quality, distribution, duplicates, leakage.
        output: JSON file for the findings; written whether the data is valid or not.
        max_bad_fraction: schema; records that cannot be read, fraction of all records.
        max_repeated_id_fraction: schema; documents whose id came before, fraction.
        max_duplicate_fraction: duplicates; documents that repeat another but for white space, fraction.
        max_near_duplicate_fraction: duplicates; documents that nearly repeat another (Jaccard 0.8 of runs of five words), fraction.
        max_leaked_documents: leakage; held-out documents that are also training documents, count.
        max_near_leaked_fraction: leakage; held-out documents that nearly repeat a training document, fraction of the held-out ones.
        min_words: distribution; fewer words make a document short.
        max_short_fraction: distribution; short documents, fraction.
        max_document_share: distribution; the largest document, fraction of all text (from 20 documents on).
        max_split_shift: distribution; greatest difference of the shares of documents up to a length between train and a held-out split
            (Kolmogorov-Smirnov, 0 to 1; from 100 documents in each on).
        min_quality: quality; a lower score, 0 to 1, is low quality.
        max_low_quality_fraction: quality; documents of low quality, fraction.
        max_garbled_fraction: quality; documents with control characters or undecodable places, fraction.
        measured_bytes: bytes of text on which quality is measured (of more, a stable sample) and near-duplicates are looked
            for (of more, not).
        text_field: key of the text in JSON documents.
        json: print the findings as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_json, print_table, watched
    from llm_training.jobs.data_checks import Thresholds
    from llm_training.jobs.validate_data import validate_data as job
    from llm_training.monitoring.printable import printable

    with watched(to_stderr=json) as bus:
        result = job(
            [*([data_dir] if data_dir else ()), *sources],
            checks=checks,
            thresholds=Thresholds(
                max_bad_fraction=max_bad_fraction,
                max_repeated_id_fraction=max_repeated_id_fraction,
                max_duplicate_fraction=max_duplicate_fraction,
                max_near_duplicate_fraction=max_near_duplicate_fraction,
                max_leaked_documents=max_leaked_documents,
                max_near_leaked_fraction=max_near_leaked_fraction,
                min_words=min_words,
                max_short_fraction=max_short_fraction,
                max_document_share=max_document_share,
                max_split_shift=max_split_shift,
                min_quality=min_quality,
                max_low_quality_fraction=max_low_quality_fraction,
                max_garbled_fraction=max_garbled_fraction,
            ),
            output=output,
            measured_bytes=measured_bytes,
            text_field=text_field,
            bus=bus,
        )
    if json:
        print_json(result.to_json())
    else:
        print_table(("check", "measure", "found", "allowed", "verdict"), result.rows(), right=frozenset({2, 3}))
        print("\n".join(["", *map(printable, result.remarks())]))
    result.require_valid()
    return 0


if __name__ == "__main__":
    sys.exit(main())
