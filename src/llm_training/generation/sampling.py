"""From logits to the next token, as a pure function of (seed, row, position).

One uniform number per token, taken from a hash, picks the token by its place in the cumulative distribution. So a row's text depends
neither on the other rows of its batch, nor on the device, nor on any generator's state.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_training.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the smallest set of most likely tokens whose probability reaches p; 1 for all.
        seed: any integer; same seed, same text.

    Raises:
        ConfigError: a value out of bounds, all of them at once.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            problems.append(f"temperature is {self.temperature}; it must be a finite number of at least 0")
        if self.top_k < 0:
            problems.append(f"top_k is {self.top_k}; it must be at least 0 (0 means all)")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if problems:
            raise ConfigError("bad sampling settings", problems=problems)


def uniform(seed: int, row: int, position: int) -> float:
    """A number in [0, 1) that depends on these three alone."""
    digest = hashlib.sha256(f"{seed}/{row}/{position}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2**64 * (1 - 2**-53)


def next_tokens(logits: Tensor, settings: SamplingSettings, *, rows: Sequence[int], positions: Sequence[int]) -> list[int]:
    """One token for each row of logits [B, V].

    Args:
        logits: of the last token of each row.
        settings: how to draw.
        rows: number of each row in the caller's list of prompts, whatever batch it is in.
        positions: how many tokens the row has generated so far.
    """
    if settings.temperature == 0:
        return [int(token) for token in logits.argmax(dim=-1).tolist()]
    scores, order = _kept(logits.detach().float().cpu(), settings)
    probabilities = (scores.double() / settings.temperature).softmax(dim=-1)
    if settings.top_p < 1:
        # A token stays while the mass before it is below p, so that the first always stays.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= settings.top_p, 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    draws = [uniform(settings.seed, row, position) for row, position in zip(rows, positions, strict=True)]
    thresholds = torch.tensor(draws, dtype=torch.float64)[:, None] * cumulative[:, -1:]
    places = torch.searchsorted(cumulative, thresholds, right=True).clamp_max(cumulative.shape[1] - 1)
    return [int(token) for token in order.gather(1, places).squeeze(1).tolist()]


def _kept(logits: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """Scores in falling order and the token of each; equal scores by token id, so that the order is the same everywhere."""
    if 0 < settings.top_k < logits.shape[-1]:
        found = logits.topk(settings.top_k, dim=-1)
        floor = found.values[:, -1:]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    ordered = logits.sort(dim=-1, descending=True, stable=True)
    return ordered.values, ordered.indices
