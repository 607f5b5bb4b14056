"""From raw text to a packed cache: OpenStax and Gutenberg with the GPT-2 tokenizer, 512 tokens a row."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Result, alternate, missing, run_benchmark, seconds_of, summarize
from benchmarks.text import Built, build_cache, find_data, unpack

DESCRIPTION = "MB of text a second from JSON Lines to packed rows of 512, 1 and 2 workers in turn; bytes per token on the disk"


def measure(options: argparse.Namespace) -> Result:
    """Alternate one and two workers, each into a fresh directory; then the other compression and gzip input once."""
    data = find_data()
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as name:
        folder = Path(name)
        plain = unpack(data, folder / "text", is_quick=options.quick)
        tokenizer = data / "gpt2" / "tokenizer.json"
        builds: list[Built] = []

        def build(workers: int, source: Path = plain, compression: str = "lz4") -> float:
            """MB/s of one build."""
            target = folder / f"cache-{len(builds)}"
            seconds = seconds_of(
                lambda: builds.append(
                    build_cache([source], tokenizer, target, sequence_length=512, workers=workers, compression=compression)
                )
            )
            return builds[-1].result.text_bytes / 1e6 / seconds

        samples = alternate({"1 worker": lambda: build(1), "2 workers": lambda: build(2)}, 1 if options.quick else 3)
        packed = [] if options.quick else [build(2, data / "openstax")]
        lz4 = builds[-1 - len(packed)]
        build(1, compression="zstd")
        figures = [
            Figure(what="text to packed cache, 2 workers", value=statistics.median(samples["2 workers"]), unit="MB/s", bar=30.0, aim=80.0),
            Figure(what="text to packed cache, 1 worker", value=statistics.median(samples["1 worker"]), unit="MB/s"),
            Figure(what="cache on the disk, LZ4", value=_bytes_per_token(lz4), unit="bytes/token", bar=1.75, is_ceiling=True),
            Figure(
                what="cache on the disk, zstd", value=_bytes_per_token(builds[-1]), unit="bytes/token", bar=1.46, aim=1.35, is_ceiling=True
            ),
        ]
        figures += [Figure(what="OpenStax from .jsonl.gz, 2 workers", value=value, unit="MB/s") for value in packed]
        details: dict[str, Any] = {key: summarize(values) for key, values in samples.items()}
        details |= {"text_mb": lz4.result.text_bytes / 1e6, "tokens": lz4.result.num_tokens, "rows": lz4.view.stats.num_rows}
        return Result(figures=figures, details=details)


def _bytes_per_token(built: Built) -> float:
    """All files of store and view over all tokens, plans and metadata included."""
    folders = (built.store.directory, built.view.directory)
    num_bytes = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return num_bytes / built.result.num_tokens


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to tokenise", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("tokenize_and_pack", measure, DESCRIPTION, has_ceiling=False))
