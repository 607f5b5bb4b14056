"""From raw text to a packed cache: OpenStax and Gutenberg with the GPT-2 tokenizer, 512 tokens a row.

Beside it, in the same run and in turn, the usual way to a file of tokens (`usual_way.py`). One process is what the program
chooses for text of this size on two cores: its encoder and its writer already use both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Result, alternate, missing, ratio_of_medians, run_benchmark, seconds_of, summarize
from benchmarks.machine import REPOSITORY
from benchmarks.text import Built, build_cache, find_data, unpack

DESCRIPTION = "MB of text a second from JSON Lines to packed rows of 512, against datasets.map and a memmap; bytes per token on the disk"
LIMIT_SECONDS = 120


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

        text_mb = build(1) and builds[-1].result.text_bytes / 1e6
        variants = {
            "1 process": lambda: build(1),
            "2 processes": lambda: build(2),
            "usual way": lambda: text_mb / _usual_seconds(plain, tokenizer, folder / "usual"),
        }
        samples = alternate(variants, 1 if options.quick else 3, warm_up=0, limit_seconds=LIMIT_SECONDS)
        packed = [] if options.quick else [build(1, data / "openstax")]
        lz4 = builds[0]
        build(1, compression="zstd")
        ratio = ratio_of_medians(samples, "1 process", "usual way")
        figures = [
            Figure(
                what="text to packed cache on two cores", value=statistics.median(samples["1 process"]), unit="MB/s", bar=30.0, aim=80.0
            ),
            Figure(what="against the usual way, two processes", value=ratio, unit="x", bar=6.0, aim=20.0),
            Figure(what="the usual way: datasets.map, memmap", value=statistics.median(samples["usual way"]), unit="MB/s"),
            Figure(what="text to packed cache, 2 processes", value=statistics.median(samples["2 processes"]), unit="MB/s"),
            Figure(what="cache on the disk, LZ4", value=_bytes_per_token(lz4), unit="bytes/token", bar=1.75, is_ceiling=True),
            Figure(
                what="cache on the disk, zstd", value=_bytes_per_token(builds[-1]), unit="bytes/token", bar=1.46, aim=1.35, is_ceiling=True
            ),
        ]
        figures += [Figure(what="OpenStax from .jsonl.gz", value=value, unit="MB/s") for value in packed]
        details: dict[str, Any] = {key: summarize(values) for key, values in samples.items()}
        details |= {"text_mb": lz4.result.text_bytes / 1e6, "tokens": lz4.result.num_tokens, "rows": lz4.view.stats.num_rows}
        return Result(figures=figures, details=details)


def _usual_seconds(text: Path, tokenizer: Path, target: Path) -> float:
    """Seconds of the usual way, its imports left out as ours are; the folder is emptied afterwards."""
    words = [sys.executable, "-m", "benchmarks.usual_way", str(text), str(tokenizer), str(target)]
    done = subprocess.run(words, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    shutil.rmtree(target)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _bytes_per_token(built: Built) -> float:
    """All files of store and view over all tokens, plans and metadata included."""
    folders = (built.store.directory, built.view.directory)
    num_bytes = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return num_bytes / built.result.num_tokens


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to tokenise", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("tokenize_and_pack", measure, DESCRIPTION, has_ceiling=False))
