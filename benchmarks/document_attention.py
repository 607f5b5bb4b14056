"""Attention limited to the document: what it costs a step and what it brings, against rows whose documents see each other.

Two corpora: OpenStax sections (about 3,000 tokens each, so most rows hold one document) and the same text with each paragraph as
a document of its own (about 100 tokens, many in a row). Speed: the default model as ``llm-train`` runs it, on packed rows of 256,
512 and 2,048 tokens. Worth: bits per byte on held-out paragraphs after the same 300 steps of a small model. The two take turns in
both. Start it with GOMP_SPINCOUNT=10000, as ``llm-train`` sets for itself, when the machine is shared. What
``cache.document_attention: auto`` does on a CPU follows from these figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Figure, Result, alternate, missing, ratio_of_medians, run_benchmark, significant, summarize
from benchmarks.session import TimedSession, default_load
from benchmarks.text import build_cache, find_data
from benchmarks.train_throughput import REFERENCE_PEAK_FLOPS
from llm_training.cache.pins import pin_all
from llm_training.cache.reader import PackedDataset
from llm_training.cache.store import ChunkStore
from llm_training.cache.view import build_view
from llm_training.config.load import load_config
from llm_training.jobs.train import train
from llm_training.runtime.allocator import keep_large_blocks, prefer_huge_pages
from llm_training.runtime.device import choose_device, choose_precision
from llm_training.training.step import MicroBatch

DESCRIPTION = "document-limited attention against attention across documents: tokens/s of the default model, bits per byte of a small one"
LENGTHS = (256, 512, 2048)
# Sections fill rows on their own: within documents and across them are then nearly the same.
TRAINED = (("paragraphs", 256), ("paragraphs", 2048))
STEP_TOKENS = 4096
STEPS = 300
SHORTEST_PARAGRAPH = 80
MODES = {"across": "false", "documents": "true"}
SMALL_MODEL: dict[str, Any] = {
    "model.hidden_size": 64,
    "model.num_layers": 3,
    "model.num_attention_heads": 2,
    "tokenizer.vocab_size": 1024,
    "training.global_batch_tokens": STEP_TOKENS // 2,
    "resources.threads": 1,
    "training.compile": "false",
    "training.eval_steps": 100_000,
    "training.save_steps": 100_000,
    "evaluation.max_tokens": 4_096,
    "evaluation.final_max_tokens": 30_000,
    "evaluation.num_samples": 0,
    "monitoring.plots": False,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark takes."""
    parser.add_argument("--part", choices=("both", "speed", "loss"), default="both", help="measure this part alone")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way, each with its own seed")
    parser.add_argument("--lengths", type=int, nargs="+", help="rows of these lengths alone, tokens")


def measure(options: argparse.Namespace) -> Result:
    """Speed first, while the machine is as it was found; then the losses."""
    data = find_data()
    assert data is not None
    prefer_huge_pages()
    keep_large_blocks()
    result = Result()
    with tempfile.TemporaryDirectory(prefix="bench-documents-") as name:
        folder = Path(name)
        corpora = write_corpora(data / "openstax", folder / "text", is_quick=options.quick)
        lengths = options.lengths or (LENGTHS[:1] if options.quick else LENGTHS)
        if options.part in ("both", "speed"):
            gpt2 = data / "gpt2" / "tokenizer.json"
            stores = {
                corpus: build_cache([path], gpt2, folder / corpus, sequence_length=LENGTHS[0], workers=1).store
                for corpus, path in corpora.items()
            }
            result.details["speed"] = {str(length): _speed(result, stores, folder, length, quick=options.quick) for length in lengths}
        for corpus, length in TRAINED:
            if options.part in ("both", "loss") and length in lengths:
                result.details[f"loss, {corpus}, {length}"] = _loss(result, corpora[corpus], corpus, length, folder, options)
    return result


def write_corpora(source: Path, target: Path, *, is_quick: bool) -> dict[str, Path]:
    """``sections`` and ``paragraphs``, each a folder with train.jsonl and valid.jsonl."""
    for name in ("sections", "paragraphs"):
        (target / name).mkdir(parents=True)
        for split, pattern in (("train", "train-00000*" if is_quick else "train-*"), ("valid", "valid*")):
            with (target / name / f"{split}.jsonl").open("w") as out:
                for text in _texts(source, pattern):
                    pieces = [text] if name == "sections" else [piece for piece in text.split("\n\n") if len(piece) >= SHORTEST_PARAGRAPH]
                    out.writelines(json.dumps({"text": piece}) + "\n" for piece in pieces)
    return {name: target / name for name in ("sections", "paragraphs")}


def _texts(source: Path, pattern: str) -> Iterator[str]:
    for path in sorted(source.glob(f"{pattern}.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            yield from (json.loads(line)["text"] for line in lines)


def _speed(result: Result, stores: dict[str, ChunkStore], folder: Path, length: int, *, quick: bool) -> dict[str, Any]:
    """Tokens/s of the default model on real rows, both ways in turn, compiled as a long run is."""
    load = default_load(REFERENCE_PEAK_FLOPS)
    spec = dataclasses.replace(load.spec, max_seq_len=length)
    load = dataclasses.replace(load, spec=spec, rows=STEP_TOKENS // length, micro_rows=STEP_TOKENS // length, compiles=not quick)
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    batches = {corpus: packed_batches(folder / corpus, store, length, spec.vocab_size) for corpus, store in stores.items()}
    sessions = {
        mode: TimedSession(load, device, precision, batches=_in_mode(batches["sections"], mode)) for mode in MODES
    }  # each compiles once; the rows change under it
    steps = max(2, round((1.0 if quick else 2.0) / sessions["across"].seconds_per_step(3)))

    def timed(mode: str, corpus: str) -> float:
        sessions[mode].batches = _in_mode(batches[corpus], mode)
        return load.tokens / sessions[mode].seconds_per_step(steps)

    variants = {f"{mode}, {corpus}": (lambda m=mode, c=corpus: timed(m, c)) for corpus in stores for mode in MODES}
    samples = alternate(variants, 2 if quick else 5)
    for corpus in stores:
        across = statistics.median(samples[f"across, {corpus}"])
        documents = statistics.mean(_documents_a_row(part) for step in batches[corpus] for part in step)
        result.figures += [
            Figure(what=f"{corpus}, rows of {length}: across documents", value=across, unit="tok/s"),
            Figure(
                what=f"{corpus}, rows of {length}: speed within documents ({documents:.1f} a row)",
                value=ratio_of_medians(samples, f"documents, {corpus}", f"across, {corpus}"),
                unit="x",
            ),
        ]
    remarks = {mode: session.remarks for mode, session in sessions.items()}
    for session in sessions.values():
        session.close()
    return {**{name: summarize(values) for name, values in samples.items()}, "precision": precision.name, "remarks": remarks}


def packed_batches(directory: Path, store: ChunkStore, length: int, vocab_size: int) -> list[list[MicroBatch]]:
    """Eight steps of best_fit rows, GPT-2 ids folded into the small vocabulary: what they say does not matter to a clock."""
    view = build_view(directory, store, length)
    dataset = PackedDataset(store, view, pin_all(view), with_segments=True)
    rows = np.random.default_rng(0).permutation(len(dataset))
    steps = []
    for first in range(0, 8 * STEP_TOKENS // length, STEP_TOKENS // length):
        batch = dataset.rows(rows[first : first + STEP_TOKENS // length])
        labels = np.where(batch.labels < 0, batch.labels, batch.labels % vocab_size)
        steps.append([MicroBatch(*(torch.from_numpy(array) for array in (batch.input_ids % vocab_size, labels, batch.segment_ids)))])
    return steps


def _documents_a_row(part: MicroBatch) -> float:
    assert part.segment_ids is not None
    return float((part.segment_ids.amax(dim=1) + 1).float().mean())


def _in_mode(steps: Sequence[Sequence[MicroBatch]], mode: str) -> list[Sequence[MicroBatch]]:
    if mode == "documents":
        return [list(step) for step in steps]
    return [[MicroBatch(part.input_ids, part.labels) for part in step] for step in steps]


def _loss(result: Result, source: Path, corpus: str, length: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Bits per byte and training seconds of each seed, both ways in turn."""
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for seed in range(1, 2 if options.quick else options.seeds + 1):
        for mode, wanted in MODES.items():
            values = {
                **SMALL_MODEL,
                "data.sources": [str(source / "train.jsonl")],
                "data.validation_sources": [str(source / "valid.jsonl")],
                "cache.dir": str(folder / "cache"),
                "cache.sequence_length": length,
                "cache.document_attention": wanted,
                "training.max_steps": 20 if options.quick else STEPS,
                "training.seed": seed,
                "training.output_dir": str(folder / f"run-{corpus}-{length}-{mode}-{seed}"),
            }
            began = time.perf_counter()
            figures = train(load_config(overrides=values).config).figures
            seconds = time.perf_counter() - began
            found[mode].append({"bits_per_byte": figures["bits_per_byte"], "seconds": significant(seconds)})
            print(f"  {corpus}, rows of {length}, {mode}, seed {seed}: {figures['bits_per_byte']:.4f} bits per byte", flush=True)
    bits = {mode: [run["bits_per_byte"] for run in runs] for mode, runs in found.items()}
    differences = [one - other for one, other in zip(bits["documents"], bits["across"], strict=True)]
    result.figures += [
        Figure(what=f"{corpus}, rows of {length}: bits per byte across documents", value=statistics.mean(bits["across"]), unit="bits"),
        Figure(what=f"{corpus}, rows of {length}: within documents, less that", value=statistics.mean(differences), unit="bits"),
    ]
    return {**found, "differences": [significant(value, 3) for value in differences]}


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to train on", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax and gpt2"))
    sys.exit(run_benchmark("document_attention", measure, DESCRIPTION, add_options=add_options))
