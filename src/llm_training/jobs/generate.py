"""Job: text from a trained model, piece by piece."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence

from llm_training.generation.generate import StopRules, stream
from llm_training.generation.sampling import SamplingSettings
from llm_training.jobs.models import load_model


def generate(
    model_path: str,
    prompt: str,
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 0.95,
    stop: Sequence[str] = (),
    seed: int | None = None,
    device: str = "auto",
) -> Iterator[str]:
    """Yield the text that follows ``prompt`` as it is written; joined, the pieces are the whole text without the prompt.

    Args:
        model_path: see jobs/models.py.
        stop: the text ends before the first of these.
        seed: None draws one.

    Raises:
        ConfigError: a bad setting.
        IntegrityError: the model cannot be trusted or read.
    """
    loaded = load_model(model_path, device=device)
    tokenizer = loaded.tokenizer
    sampling = SamplingSettings(temperature=temperature, top_k=top_k or 0, top_p=top_p, seed=secrets.randbits(63) if seed is None else seed)
    rules = StopRules(token_ids=frozenset({tokenizer.separator_id}), strings=tuple(stop), decode=tokenizer.decode if stop else None)
    ids = [tokenizer.separator_id, *tokenizer.encode(prompt)]
    return _pieces(
        (step.token_id for step in stream(loaded.model, [ids], max_new_tokens=max_tokens, sampling=sampling, stop=rules)),
        tokenizer.decode,
        stop,
    )


def _pieces(tokens: Iterator[int | None], decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> Iterator[str]:
    """Decode as far as characters are whole; hold back what could be the beginning of a stop string."""
    new: list[int] = []
    shown = 0
    text = ""
    for token in tokens:
        if token is not None:
            new.append(token)
        text = decode(new)
        cut = min((place for place in (text.find(mark) for mark in stop) if place >= 0), default=None)
        if cut is not None:
            yield text[shown:cut]
            return
        end = len(text) - _held_back(text, stop)
        if end > shown:
            yield text[shown:end]
            shown = end
    if len(text) > shown:
        yield text[shown:]


def _held_back(text: str, stop: Sequence[str]) -> int:
    """Characters at the end that may change or begin a stop string: a broken character, or a prefix of one."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    prefixes = [length for mark in stop for length in range(1, len(mark)) if text.endswith(mark[:length])]
    return max([broken, *prefixes])
