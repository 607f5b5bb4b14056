"""Figures of a model on held-out documents.

Loss is nats per text token, separators excluded. Bits per byte is nats / ln 2 / bytes of the scored text, so models with
different tokenizers can be compared. Accuracy is next-token top-1; F1 is macro over the tokens that occur. The model is
left in the mode it was found in, and no random generator is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from llm_training.errors import DataError
from llm_training.evaluation.windows import IGNORED, Documents, Windows, batches, plan_windows, spread, spread_by_source, window_order
from llm_training.runtime.compiler import eagerly
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.world import World


@dataclass(frozen=True)
class HeldOutFigures:
    """``loss_nats`` per token with its standard error over batches of windows; ``f1`` macro; ``num_bytes`` of scored text.

    ``by_source`` has loss_nats, bits_per_byte and num_tokens of each source where the documents are of several.
    """

    loss_nats: float
    loss_standard_error: float
    perplexity: float
    bits_per_byte: float | None
    accuracy: float
    f1: float | None
    num_tokens: int
    num_bytes: int
    window: int
    stride: int
    by_source: Mapping[str, Mapping[str, float | int | None]] = field(default_factory=dict)

    @property
    def loss_by_source(self) -> dict[str, float | None]:
        """Nats per token of each source."""
        return {name: figures["loss_nats"] for name, figures in self.by_source.items()}

    def as_json(self) -> dict[str, object]:
        """Legal JSON: what is not finite becomes null."""
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(self).items()}


class _Tally:
    """Sums over windows, in fp64."""

    def __init__(self, vocab_size: int, *, with_f1: bool) -> None:
        self.nats: list[float] = []
        self.tokens: list[int] = []
        self.correct = 0
        self.bytes: list[int] = []
        self.was_cut_short = False
        self.counts = np.zeros((3, vocab_size), dtype=np.int64) if with_f1 else None  # true positives, predicted, actual

    def add(self, losses: Tensor, predicted: Tensor, labels: Tensor, token_bytes: Tensor | None) -> None:
        counted = labels != IGNORED
        self.nats += losses.double().sum(dim=1).tolist()
        self.tokens += counted.sum(dim=1).tolist()
        actual, guessed = labels[counted], predicted[counted]
        is_right = actual == guessed
        self.correct += int(is_right.sum())
        if token_bytes is not None:
            self.bytes += (token_bytes[labels.clamp(min=0)] * counted).sum(dim=1).tolist()
        if self.counts is not None:
            size = self.counts.shape[1]
            for row, ids in enumerate((actual[is_right], guessed, actual)):
                self.counts[row] += np.bincount(ids.numpy(), minlength=size)[:size]

    def macro_f1(self) -> float | None:
        if self.counts is None:
            return None
        positives, predicted, actual = self.counts
        occurs = actual > 0
        return float((2 * positives[occurs] / np.maximum(1, predicted[occurs] + actual[occurs])).mean())

    def standard_error(self) -> float:
        """Of the mean loss, treating windows as independent draws weighted by their tokens."""
        if len(self.nats) < 2:
            return math.nan
        nats, tokens = np.array(self.nats), np.array(self.tokens)
        residual = nats - tokens * nats.sum() / tokens.sum()
        return float(math.sqrt(len(nats) / (len(nats) - 1) * (residual**2).sum()) / tokens.sum())


@torch.no_grad()
def evaluate_documents(
    model: nn.Module,
    documents: Documents,
    *,
    separator_id: int,
    token_bytes: np.ndarray | None,
    window: int,
    stride: int,
    batch_size: int,
    device: Device,
    precision: Precision,
    max_tokens: int | None = None,
    with_f1: bool = False,
    world: World | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> HeldOutFigures | None:
    """Score documents; None when ``should_stop`` cut the pass short, since a part of the windows stands for nothing.

    Args:
        model: maps ids [B, T] to logits [B, T, V].
        token_bytes: text bytes of each token id, [V]; None leaves bits per byte out.
        window, stride: tokens; see windows.py.
        max_tokens: score about that many tokens, spread evenly over the text.
        world: ranks share the windows and sum their figures.
        progress: called with windows done and windows in all.
        should_stop: asked before every batch; True ends the pass.

    Raises:
        DataError: there is nothing to score.
    """
    world = world or World()
    windows = plan_windows(documents.lengths, window=window, stride=stride)
    windows = spread(windows, max_tokens) if documents.sources is None else spread_by_source(windows, documents.sources, max_tokens)
    mine = windows.take(np.arange(world.rank, len(windows), world.size))
    tally = _run(model, documents, mine, separator_id, token_bytes, batch_size, device, precision, with_f1, progress, should_stop)
    if tally.was_cut_short:
        return None
    nats, tokens, correct, num_bytes = world.sum(sum(tally.nats), float(sum(tally.tokens)), float(tally.correct), float(sum(tally.bytes)))
    if not tokens:
        raise DataError("there is no held-out text to score", remedy="give validation text, or raise data.validation_fraction")
    loss = nats / tokens
    return HeldOutFigures(
        loss_nats=loss,
        loss_standard_error=tally.standard_error(),
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=nats / math.log(2) / num_bytes if num_bytes else None,
        accuracy=correct / tokens,
        f1=tally.macro_f1() if world.size == 1 else None,
        num_tokens=int(tokens),
        num_bytes=int(num_bytes),
        window=window,
        stride=stride,
        by_source={} if documents.sources is None else _by_source(tally, mine, documents, world),
    )


def _by_source(tally: _Tally, windows: Windows, documents: Documents, world: World) -> dict[str, dict[str, float | int | None]]:
    """Figures of each source that has text, over all ranks; ``windows`` are those of this rank, as they were scored."""
    assert documents.sources is not None
    of_window, num_sources = documents.sources[windows.document[window_order(windows)]], len(documents.source_names)
    sums = [
        np.bincount(of_window, weights=np.array(values, dtype=np.float64), minlength=num_sources) if len(values) else np.zeros(num_sources)
        for values in (tally.nats, tally.tokens, tally.bytes)
    ]
    nats, tokens, num_bytes = np.array(world.sum(*np.concatenate(sums).tolist())).reshape(3, num_sources).tolist()
    return {
        name: {
            "loss_nats": nats[source] / tokens[source] if math.isfinite(nats[source]) else None,
            "bits_per_byte": nats[source] / math.log(2) / num_bytes[source] if num_bytes[source] and math.isfinite(nats[source]) else None,
            "num_tokens": int(tokens[source]),
        }
        for source, name in enumerate(documents.source_names)
        if tokens[source]
    }


def _run(
    model: nn.Module,
    documents: Documents,
    windows: Windows,
    separator_id: int,
    token_bytes: np.ndarray | None,
    batch_size: int,
    device: Device,
    precision: Precision,
    with_f1: bool,
    progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> _Tally:
    was_training = model.training
    model.eval()
    bytes_of = None if token_bytes is None else torch.from_numpy(np.ascontiguousarray(token_bytes).astype(np.int64))
    tally, done = _Tally(0, with_f1=False), 0
    try:
        for inputs, labels in batches(documents, windows, separator_id=separator_id, batch_size=batch_size):
            if should_stop is not None and should_stop():
                tally.was_cut_short = True
                break
            targets = torch.from_numpy(labels)
            with eagerly(), precision.autocast(device):
                logits = model(torch.from_numpy(inputs).to(device.torch))
            if with_f1 and tally.counts is None:
                tally = _Tally(logits.size(-1), with_f1=True)
            losses, predicted = _score(logits, targets.to(device.torch))
            tally.add(losses.cpu(), predicted.cpu(), targets, bytes_of)
            done += len(inputs)
            if progress is not None:
                progress(done, len(windows))
    finally:
        model.train(was_training)
    return tally


def _score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Nats [B, T] (0 where not counted) and the likeliest ids [B, T]; one row at a time bounds the fp32 copy of the logits."""
    losses = torch.stack(
        [
            nn.functional.cross_entropy(row.float(), label, ignore_index=IGNORED, reduction="none")
            for row, label in zip(logits, labels, strict=True)
        ]
    )
    return losses, logits.argmax(dim=-1)
