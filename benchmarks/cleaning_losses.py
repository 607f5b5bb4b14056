"""Good text that the cleaning rules drop: passages labelled clean, whole books and textbook sections, with published and own bounds.

Published bounds are those of the papers, on the text as it is; own are the defaults, on paragraphs as lines.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.harness import Figure, Result, missing, run_benchmark
from benchmarks.text import find_data
from llm_training.cleaning import C4Quality, Cleaner, CleaningSettings, FineWebQuality, GopherQuality, TextView, normalise

DESCRIPTION = "good text that the cleaning rules drop, with published and with own bounds"
PUBLISHED = CleaningSettings(gopher=GopherQuality(), c4=C4Quality(), fineweb=FineWebQuality())
LOST_BAR_PERCENT = 1.0


def measure(options: argparse.Namespace) -> Result:
    """Judge every text both ways."""
    data = find_data()
    assert data is not None
    result = Result()
    published, own = Cleaner(PUBLISHED), Cleaner(CleaningSettings())
    corpora = {
        "passages labelled clean": labelled(data / "messy"),
        "books": texts_in(data / "gutenberg"),
        "textbook sections": texts_in(data / "openstax"),
    }
    for name, texts in corpora.items():
        total = 0
        lost: dict[str, Counter[str]] = {"published": Counter(), "own": Counter()}
        for text in itertools.islice(texts, 20 if options.quick else None):
            total += 1
            verdict, _ = published.judge(TextView(normalise(text)[0]))
            lost["published"].update([verdict.reason] if verdict is not None else [])
            reason = own.clean(text).reason
            lost["own"].update([reason] if reason is not None else [])
        shares = {bounds: 100 * reasons.total() / total for bounds, reasons in lost.items()}
        bar = LOST_BAR_PERCENT if name.startswith("passages") else None
        result.figures += [
            Figure(what=f"{name} dropped, published bounds", value=shares["published"], unit=f"% of {total:,}"),
            Figure(what=f"{name} dropped, own bounds", value=shares["own"], unit=f"% of {total:,}", bar=bar, is_ceiling=True),
        ]
        result.details[name] = {"documents": total, **{bounds: dict(reasons.most_common()) for bounds, reasons in lost.items()}}
    return result


def labelled(folder: Path) -> Iterator[str]:
    """Passages that their label calls clean."""
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    clean = {label["id"] for label in labels if label["category"] == "clean_en"}
    with gzip.open(folder / "messy.jsonl.gz", "rb") as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # some lines are broken on purpose
                row = json.loads(line)
                if row["id"] in clean:
                    yield row["text"]


def texts_in(folder: Path) -> Iterator[str]:
    """All texts of a corpus."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            yield from (json.loads(line)["text"] for line in lines)


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to judge", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and messy"))
    sys.exit(run_benchmark("cleaning_losses", measure, DESCRIPTION, has_ceiling=False))
