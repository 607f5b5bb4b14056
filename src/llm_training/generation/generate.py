"""Text from a model, token by token, with a key/value cache.

A model reads at most ``max_seq_len`` tokens. When a row outgrows that, its last half is read again as a new beginning (one re-read for
each half context, not for each token), which is what ``context="slide"`` means; ``"stop"`` ends the row instead. Where a row's window
begins depends on its own length alone, so its text does not depend on the batch it is in. Prompts of different lengths share a batch
without padding on the left: see ``kv_cache``.

The caller sets the mode (``model.eval()``) and autocast; this file changes neither, and needs no tokenizer: stop strings work through a
decode function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm_training.errors import ConfigError
from llm_training.generation.sampling import SamplingSettings, next_tokens
from llm_training.model.kv_cache import KVCache
from llm_training.model.layers import compute_dtype
from llm_training.model.transformer import Transformer

Decode = Callable[[Sequence[int]], str]
CONTEXT_MODES = ("slide", "stop")


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """When a row ends before ``max_new_tokens``.

    Attributes:
        token_ids: any of these ends the row and is not part of the text.
        strings: any of these in the decoded new text ends the row; needs ``decode``.
        decode: new token ids to text.
    """

    token_ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    decode: Decode | None = None

    def __post_init__(self) -> None:
        if self.strings and self.decode is None:
            raise ConfigError("stop strings need a decode function", remedy="pass decode=tokenizer.decode")
        if "" in self.strings:
            raise ConfigError("a stop string is empty", remedy="leave it out")


@dataclass
class Row:
    """One prompt on its way: ``ids`` holds the prompt and what was generated."""

    number: int
    ids: list[int]
    num_prompt: int
    finish_reason: str = ""

    @property
    def new_ids(self) -> list[int]:
        """What was generated so far."""
        return self.ids[self.num_prompt :]


@dataclass(frozen=True)
class Result:
    """Generated ids of one prompt and why it ended: ``length``, ``stop`` or ``context``."""

    token_ids: list[int]
    finish_reason: str


@dataclass(frozen=True)
class Step:
    """One new token of one row, as it is made; ``finish_reason`` is set on the row's last event, whose token may be None."""

    row: int
    token_id: int | None
    finish_reason: str = field(default="")


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingSettings | None = None,
    stop: StopRules | None = None,
    context: str = "slide",
) -> list[Result]:
    """Continue every prompt; see ``stream`` for the arguments. Results are in the prompts' order."""
    tokens: list[list[int]] = [[] for _ in prompts]
    reasons = [""] * len(prompts)
    for step in stream(model, prompts, max_new_tokens=max_new_tokens, sampling=sampling, stop=stop, context=context):
        if step.token_id is not None:
            tokens[step.row].append(step.token_id)
        reasons[step.row] = step.finish_reason or reasons[step.row]
    return [Result(ids, reason) for ids, reason in zip(tokens, reasons, strict=True)]


def stream(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingSettings | None = None,
    stop: StopRules | None = None,
    context: str = "slide",
) -> Iterator[Step]:
    """Yield every new token as it is made.

    Args:
        model: the transformer, in eval mode.
        prompts: token ids of each prompt, at least one each.
        max_new_tokens: most tokens generated for each prompt.
        sampling: how tokens are drawn; the default samples at temperature 0.8.
        stop: what ends a row early.
        context: at ``max_seq_len``, ``slide`` goes on with the last half, ``stop`` ends the row.

    Raises:
        ConfigError: an empty prompt, an id outside the vocabulary, a count below 1, an unknown context mode.
    """
    _check(model, prompts, max_new_tokens, context)
    sampling, stop = sampling or SamplingSettings(), stop or StopRules()
    rows = [Row(number, list(ids), len(ids)) for number, ids in enumerate(prompts)]
    session = _Session(model, context, max_new_tokens)
    with torch.no_grad():
        active = rows
        while active:
            logits, active, ended = session.advance(active)
            yield from (Step(row.number, None, row.finish_reason) for row in ended)
            positions = [len(row.new_ids) for row in active]
            tokens = next_tokens(logits, sampling, rows=[row.number for row in active], positions=positions) if active else []
            for row, token in zip(active, tokens, strict=True):
                yield _accept(row, token, stop, max_new_tokens)
            active = [row for row in active if not row.finish_reason]


def _accept(row: Row, token: int, stop: StopRules, max_new_tokens: int) -> Step:
    """Append a token to its row and say whether the row goes on."""
    if token in stop.token_ids:
        row.finish_reason = "stop"
        return Step(row.number, None, "stop")
    row.ids.append(token)
    if stop.strings and stop.decode is not None:
        text = stop.decode(row.new_ids)
        if any(string in text for string in stop.strings):
            row.finish_reason = "stop"
    if not row.finish_reason and len(row.new_ids) >= max_new_tokens:
        row.finish_reason = "length"
    return Step(row.number, token, row.finish_reason)


def window_start(num_tokens: int, limit: int) -> int:
    """Where the window over ``num_tokens`` tokens begins: it holds at most ``limit`` and moves in steps of about half of it."""
    if num_tokens <= limit:
        return 0
    step = limit + 1 - max(1, limit // 2)
    return -(-(num_tokens - limit) // step) * step


class _Session:
    """The cache of one batch, and which rows are in it."""

    def __init__(self, model: Transformer, context: str, max_new_tokens: int) -> None:
        self.model = model
        self.context = context
        self.max_new_tokens = max_new_tokens
        self.cache: KVCache | None = None
        self.members: list[int] = []

    def advance(self, rows: list[Row]) -> tuple[Tensor, list[Row], list[Row]]:
        """Logits [B, V] for the next token of each row that goes on; the rows that do; those ended by a full context."""
        limit = self.model.spec.max_seq_len
        ended = [row for row in rows if self.context == "stop" and len(row.ids) > limit]
        for row in ended:
            row.finish_reason = "context"
        rows = [row for row in rows if not row.finish_reason]
        if not rows:
            return torch.empty(0), rows, ended
        is_full = self.cache is not None and self.cache.num_filled >= self.cache.max_tokens
        if self.cache is None or is_full or len(rows) * 2 <= len(self.members):
            return self._read(rows), rows, ended
        return self._step(rows), rows, ended

    def _read(self, rows: list[Row]) -> Tensor:
        """Read the rows' text into a new cache: at the start, when the context is full, and when half of the rows have ended."""
        limit = self.model.spec.max_seq_len
        texts = [row.ids[window_start(len(row.ids), limit) :] for row in rows]
        lengths = [len(text) for text in texts]
        weight = self.model.embed_tokens.weight
        device, room = weight.device, min(limit, max(lengths) + self.max_new_tokens)
        self.members = [row.number for row in rows]
        self.cache = KVCache(self.model.spec, batch_size=len(rows), max_tokens=room, device=device, dtype=compute_dtype(weight))
        padded = torch.tensor([text + [0] * (max(lengths) - len(text)) for text in texts], device=device)
        hidden = self.model.hidden(padded, cache=self.cache)
        self.cache.set_lengths(lengths)
        last = hidden[torch.arange(len(rows), device=device), torch.tensor(lengths, device=device) - 1]
        return torch.nn.functional.linear(last, self.model.head_weight)

    def _step(self, rows: list[Row]) -> Tensor:
        """One more token for every row of the cache; rows that have ended are carried along, unread."""
        by_number = {row.number: row for row in rows}
        weight = self.model.embed_tokens.weight
        last = [by_number[number].ids[-1] if number in by_number else 0 for number in self.members]
        logits = self.model(torch.tensor(last, device=weight.device)[:, None], cache=self.cache)[:, -1]
        kept = [place for place, number in enumerate(self.members) if number in by_number]
        return logits[kept]


def _check(model: Transformer, prompts: Sequence[Sequence[int]], max_new_tokens: int, context: str) -> None:
    vocab_size = model.spec.vocab_size
    if max_new_tokens < 1:
        raise ConfigError(f"the number of tokens to write is {max_new_tokens}; it must be at least 1")
    if context not in CONTEXT_MODES:
        raise ConfigError(f"unknown context mode {context!r}; known: {', '.join(CONTEXT_MODES)}")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ConfigError(f"prompt {number} is empty", remedy="give at least one token, for example the separator")
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            raise ConfigError(f"prompt {number} has the id {max(prompt)}; the vocabulary has ids 0 to {vocab_size - 1}")
