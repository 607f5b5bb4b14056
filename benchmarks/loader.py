"""Reading a packed cache: tokens per second in order and shuffled, and the share of a training step spent waiting for data."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Figure, Result, alternate, missing, ratio_of_medians, run_benchmark, summarize
from benchmarks.session import RATES, TimedSession, default_load
from benchmarks.text import build_cache, find_data, unpack
from benchmarks.train_throughput import REFERENCE_PEAK_FLOPS
from llm_training.cache.loader import BatchLoader
from llm_training.cache.order import Order, shuffle_shape
from llm_training.cache.pins import pin_all
from llm_training.cache.reader import PackedDataset
from llm_training.runtime.allocator import keep_large_blocks
from llm_training.runtime.device import choose_device, choose_precision
from llm_training.training.step import MicroBatch

DESCRIPTION = "tokens/s from the packed cache in order and shuffled, in turn, and the data wait of real training steps"


def measure(options: argparse.Namespace) -> Result:
    """Build a cache, read it both ways, then train on it and sum up the waiting."""
    data = find_data()
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="bench-loader-") as name:
        folder = Path(name)
        load = default_load(REFERENCE_PEAK_FLOPS)
        length = load.spec.max_seq_len
        text = unpack(data, folder / "text", is_quick=options.quick)
        built = build_cache([text], data / "gpt2" / "tokenizer.json", folder / "cache", sequence_length=length, workers=2)
        pin = pin_all(built.view)
        order = Order(seed=0, num_rows=pin.num_rows, shape=shuffle_shape(length))
        num_steps = min(200 if options.quick else 2_000, pin.num_rows // load.rows)

        def in_order() -> float:
            dataset = PackedDataset(built.store, built.view, pin)
            return _tokens_per_second(
                lambda step: dataset.rows(np.arange(step * load.rows, (step + 1) * load.rows)), num_steps, load.tokens
            )

        def shuffled() -> float:
            with BatchLoader(PackedDataset(built.store, built.view, pin), order, global_batch=load.rows) as loader:
                return _tokens_per_second(loader.fetch, num_steps, load.tokens)

        samples = alternate({"in order": in_order, "shuffled": shuffled}, 2 if options.quick else 5)
        with BatchLoader(PackedDataset(built.store, built.view, pin), order, global_batch=load.rows) as loader:
            share = _wait_share(loader, 5 if options.quick else 60)
    return Result(
        figures=[
            Figure(what="data wait of the default model's steps", value=100 * share, unit="% of the time", bar=1.0, is_ceiling=True),
            Figure(what="rows in order", value=statistics.median(samples["in order"]) / 1e6, unit="M tok/s", bar=20.0),
            Figure(what="rows shuffled, through the loader", value=statistics.median(samples["shuffled"]) / 1e6, unit="M tok/s", bar=10.0),
            Figure(what="shuffled over in order", value=ratio_of_medians(samples, "shuffled", "in order"), unit="x"),
        ],
        details={**{key: summarize(values) for key, values in samples.items()}, "steps": num_steps, "rows": pin.num_rows},
    )


def _tokens_per_second(fetch, num_steps: int, tokens: int) -> float:
    start = time.perf_counter()
    for step in range(num_steps):
        fetch(step)
    return num_steps * tokens / (time.perf_counter() - start)


def _wait_share(loader: BatchLoader, num_steps: int) -> float:
    """Share of the seconds of ``num_steps`` real steps that ``fetch`` took; the first fetch starts the thread and is left out."""
    keep_large_blocks()
    device = choose_device("auto")
    session = TimedSession(default_load(REFERENCE_PEAK_FLOPS), device, choose_precision("auto", device))
    vocabulary = session.load.spec.vocab_size
    loader.fetch(0)
    loader.wait_seconds = 0.0
    start = time.perf_counter()
    for step in range(1, num_steps + 1):
        batch = loader.fetch(step)
        # GPT-2 ids folded into the small vocabulary of the default model: what they say does not matter here.
        inputs, labels = torch.from_numpy(batch.input_ids % vocabulary), torch.from_numpy(np.maximum(batch.labels, 0) % vocabulary)
        session.stepper.run(step, [MicroBatch(inputs, labels)], RATES)
    return loader.wait_seconds / (time.perf_counter() - start)


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to read", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("loader", measure, DESCRIPTION, has_ceiling=False))
