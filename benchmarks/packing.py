"""What packing wastes and what storing costs: GPT-2 tokens of OpenStax and Gutenberg (80 MB of text).

For each packing strategy at 512 and 2,048 tokens a row: the share of padding, of documents that no row holds whole (and of those
among them that a row could hold), and of tokens left out. For each compression: bytes per token over all files of the store, and
tokens/s read, hashes checked, against the same tokens as an int64 tensor in a ``.pt`` file and as raw uint16.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Figure, Result, alternate, missing, run_benchmark, seconds_of, significant, summarize
from benchmarks.text import Built, build_cache, find_data, unpack
from llm_training.cache.arrow_file import COMPRESSIONS
from llm_training.cache.packing import STRATEGIES
from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.cache.view import build_view

DESCRIPTION = "padding and cut documents by strategy and row length; bytes per token and read speed by compression"
LENGTHS = (512, 2048)
BARS = {"lz4": (1.75, None), "zstd": (1.46, 1.35)}
PADDING_BAR_PERCENT = 2.0


def measure(options: argparse.Namespace) -> Result:
    """Build the cache with each compression; plan rows over the first; read them all in turn."""
    data = find_data()
    assert data is not None
    result = Result()
    with tempfile.TemporaryDirectory(prefix="bench-packing-") as name:
        folder = Path(name)
        text = unpack(data, folder / "text", is_quick=options.quick)
        tokenizer = data / "gpt2" / "tokenizer.json"
        built = {
            compression: build_cache(
                [text], tokenizer, folder / compression, sequence_length=LENGTHS[0], workers=1, compression=compression
            )
            for compression in COMPRESSIONS
        }
        first = next(iter(COMPRESSIONS))
        result.details["packing"] = _packing(result, folder / first, built[first].store)
        result.details["storing"] = _storing(result, folder, built, repetitions=1 if options.quick else 7)
        result.details["tokens"] = built[first].result.num_tokens
        result.details["documents"] = built[first].store.totals()[TRAIN]["num_documents"]
    return result


def _packing(result: Result, cache: Path, store: ChunkStore) -> dict[str, Any]:
    """Shares in percent of every strategy and length, and the seconds that planning took."""
    found: dict[str, Any] = {}
    lengths = np.concatenate([np.diff(store.read(TRAIN, number).document_offsets) for number in store.records[TRAIN]])
    for length in LENGTHS:
        num_longer = int(np.count_nonzero(lengths > length))
        for strategy in STRATEGIES:
            start = time.perf_counter()
            stats = build_view(cache, store, length, strategy).stats
            dropped = stats.num_dropped_tokens / max(1, stats.num_dropped_tokens + stats.num_tokens)
            found[f"{strategy}, {length}"] = {
                "rows": stats.num_rows,
                "padding_percent": significant(100 * stats.padding_fraction, 3),
                "cut_documents_percent": significant(100 * stats.cut_fraction, 3),
                "fitting_documents_cut_percent": significant(
                    100 * (stats.num_cut_documents - num_longer) / max(1, stats.num_documents - num_longer), 3
                ),
                "dropped_tokens_percent": significant(100 * dropped, 3),
                "seconds": significant(time.perf_counter() - start, 3),
            }
            is_judged = (strategy, length) == ("best_fit", 2048)
            result.figures.append(
                Figure(
                    what=f"{strategy}, rows of {length}: padding",
                    value=100 * stats.padding_fraction,
                    unit="%",
                    bar=PADDING_BAR_PERCENT if is_judged else None,
                    is_ceiling=is_judged,
                )
            )
    return found


def _storing(result: Result, folder: Path, built: dict[str, Built], *, repetitions: int) -> dict[str, Any]:
    """Bytes per token, and million tokens/s, of each compression and of the two plain layouts."""
    store = next(iter(built.values())).store
    tokens = np.concatenate([store.read(TRAIN, number).tokens for number in sorted(store.records[TRAIN])])
    pickle, raw = folder / "tokens.pt", folder / "tokens.uint16"
    torch.save(torch.from_numpy(tokens.astype(np.int64)), pickle)
    tokens.tofile(raw)
    sizes = {f"Arrow, {name}": _files_bytes(one.store.directory) for name, one in built.items()}
    sizes |= {"int64 in .pt": pickle.stat().st_size, "raw uint16": raw.stat().st_size}
    readers: dict[str, Callable[[], object]] = {f"Arrow, {name}": (lambda s=one.store: _read_all(s)) for name, one in built.items()}
    readers |= {"int64 in .pt": lambda: torch.load(pickle, weights_only=True), "raw uint16": lambda: np.fromfile(raw, np.uint16)}
    samples = alternate({name: lambda read=read: len(tokens) / seconds_of(read) / 1e6 for name, read in readers.items()}, repetitions)
    found: dict[str, Any] = {}
    for name, num_bytes in sizes.items():
        bar, aim = BARS.get(name.removeprefix("Arrow, "), (None, None))
        speed = statistics.median(samples[name])
        result.figures += [
            Figure(what=f"{name}: on the disk", value=num_bytes / len(tokens), unit="bytes/token", bar=bar, aim=aim, is_ceiling=True),
            Figure(what=f"{name}: read from a warm disk cache", value=speed, unit="M tok/s"),
        ]
        found[name] = {"bytes_per_token": significant(num_bytes / len(tokens), 4), "million_tokens_per_second": summarize(samples[name])}
    return found


def _files_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _read_all(store: ChunkStore) -> None:
    for number in store.records[TRAIN]:
        store.read(TRAIN, number)


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to pack", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("packing", measure, DESCRIPTION, has_ceiling=False))
