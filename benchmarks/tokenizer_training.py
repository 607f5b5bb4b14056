"""Training a byte-level BPE of 32,768 entries on all of OpenStax and Gutenberg: seconds, and bytes per token on held-out text."""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.harness import Figure, Result, missing, run_benchmark
from benchmarks.text import SETTINGS, find_data, unpack
from llm_training.corpus import SliceReader, make_plan, open_corpus
from llm_training.tokenizer import load_tokenizer
from llm_training.tokenizer.train import DEFAULT_MAX_TRAINING_BYTES, train_tokenizer

DESCRIPTION = "seconds to train a BPE of 32,768 entries on the 80 MB of text, reading included; bytes per token on held-out text"
VOCAB_SIZE = 32_768
ALL_BYTES = 1 << 30


def measure(options: argparse.Namespace) -> Result:
    """Train once on everything, and once on the sample that runs take by default."""
    data = find_data()
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="bench-bpe-") as name:
        text = unpack(data, Path(name) / "text", is_quick=options.quick)
        vocab_size = 4_096 if options.quick else VOCAB_SIZE
        held_out = list(_held_out(data))
        figures: list[Figure] = []
        for what, max_bytes in (("all of the text", ALL_BYTES), ("the default sample of it", DEFAULT_MAX_TRAINING_BYTES)):
            start = time.perf_counter()
            trained = train_tokenizer(_texts(text), vocab_size, max_training_bytes=max_bytes)
            seconds = time.perf_counter() - start
            bar = 60.0 if max_bytes == ALL_BYTES and not options.quick else None
            figures.append(Figure(what=f"BPE of {vocab_size:,} on {what}", value=seconds, unit="s", bar=bar, is_ceiling=True))
            figures.append(Figure(what="bytes per token, held out", value=_bytes_per_token(trained, held_out), unit="bytes/token"))
        gpt2 = load_tokenizer(data / "gpt2" / "tokenizer.json")
        figures.append(Figure(what="bytes per token, held out, GPT-2's", value=_bytes_per_token(gpt2, held_out), unit="bytes/token"))
    return Result(figures=figures, details={"held_out_mb": sum(len(text.encode()) for text in held_out) / 1e6})


def _texts(folder: Path) -> Iterator[str]:
    corpus = open_corpus([str(folder)], SETTINGS)
    reader = SliceReader(corpus, make_plan(corpus))
    yield from (document.text for document in reader.documents())
    reader.close()


def _held_out(data: Path) -> Iterator[str]:
    for path in sorted((*data.glob("openstax/valid*.jsonl.gz"), *data.glob("gutenberg/valid*.jsonl.gz"))):
        with gzip.open(path) as lines:
            yield from (orjson.loads(line)["text"] for line in lines)


def _bytes_per_token(tokenizer, texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / len(tokenizer.encode_documents(texts)[0])


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to train on", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("tokenizer_training", measure, DESCRIPTION, has_ceiling=False))
