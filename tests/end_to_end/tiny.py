"""A run small enough to be repeated hundreds of times, and a recorder of everything that a step does."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from llm_training.config.load import load_config
from llm_training.config.root import Config
from llm_training.training.step import MicroBatch, StepOutcome, Stepper

TEXT = "the a model learns from text and data while tokens flow through layers of small numbers that add up"
WORDS = TEXT.split()


def write_corpus(folder: Path, *, documents: int = 60, seed: int = 7) -> Path:
    """Documents of random words, some short, some longer than a row."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(documents):
        words = [rng.choice(WORDS) for _ in range(rng.choice([8, 30, 90, 250]))]
        (folder / f"doc-{index:03}.txt").write_text(" ".join(words) + "\n")
    return folder


def tiny_config(folder: Path, source: Path, **changes: Any) -> Config:
    """40 steps of a model with two layers of width 16; run and cache under ``folder``."""
    values: dict[str, Any] = {
        "data.sources": [str(source)],
        "cache.dir": str(folder / "cache"),
        "cache.sequence_length": 32,
        "tokenizer.vocab_size": 300,
        "model.hidden_size": 16,
        "model.num_layers": 2,
        "model.num_attention_heads": 2,
        "training.output_dir": str(folder / "run"),
        "training.max_steps": 40,
        "training.batch_size": 4,
        "training.gradient_accumulation_steps": 2,
        "training.precision": "fp32",
        "training.save_steps": 10,
        "training.eval_steps": 20,
        "evaluation.num_samples": 0,
        "evaluation.max_tokens": 256,
        "evaluation.final_max_tokens": 256,
        "monitoring.plots": False,
        "resources.threads": 1,
    }
    return load_config(overrides=values | changes).config


def digest(*tensors: torch.Tensor) -> str:
    """sha256 of the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


class Chain:
    """What every step did: tokens in order, rates, loss, weights after it; keyed by the step completed."""

    def __init__(self) -> None:
        self.links: dict[int, tuple[Any, ...]] = {}


@contextmanager
def recorded_steps() -> Iterator[Chain]:
    """Record every step that runs inside the block."""
    chain = Chain()
    original = Stepper.run

    def run(self: Stepper, step: int, micro_batches: list[MicroBatch], rates: dict[str, float]) -> StepOutcome:
        outcome = original(self, step, micro_batches, rates)
        tokens = digest(*(batch.input_ids for batch in micro_batches), *(batch.labels for batch in micro_batches))
        weights = digest(*(parameter for parameter in self.loss_module.parameters()))
        chain.links[step + 1] = (tokens, tuple(sorted(rates.items())), outcome.loss_nats, weights)
        return outcome

    with mock.patch.object(Stepper, "run", run):
        yield chain
