"""Facts about a run, and the bus that carries them outward.

The bus carries facts, never data or commands: a subscriber cannot change or stop training, and one that raises is
dropped from the conversation after a single warning (weights are bitwise equal with no, all, or failing subscribers).
Every event is a frozen dataclass of plain values, so that any of them can be written as JSON. ``step`` always means
completed optimizer steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, kw_only=True)
class PlanReady(Event):
    """Everything decided before the first step. ``lines`` is what the console shows, ``facts`` the same as values."""

    run_name: str
    total_steps: int
    warmup_steps: int
    tokens_per_step: int
    lines: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, kw_only=True)
class StepCompleted(Event):
    """One optimizer step. ``loss_nats`` is the mean over counted tokens (NaN when the step was skipped)."""

    step: int
    total_steps: int
    loss_nats: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    elapsed_seconds: float
    eta_seconds: float | None = None
    mfu_fraction: float | None = None
    data_wait_seconds: float = 0.0
    memory_bytes: int = 0
    epoch: float = 0.0
    is_skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluationCompleted(Event):
    """Held-out figures after ``step`` steps. ``bits_per_byte`` counts text bytes, separators excluded.

    ``loss_by_source`` is in nats per token, empty where there is one source.
    """

    step: int
    loss_nats: float
    perplexity: float
    bits_per_byte: float | None
    accuracy: float
    num_tokens: int
    seconds: float
    is_best: bool = False
    source: str = "validation"
    loss_by_source: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])


@dataclass(frozen=True, kw_only=True)
class SampleGenerated(Event):
    """Text the model wrote after ``step`` steps: number ``number`` of ``count``."""

    step: int
    prompt: str
    text: str
    number: int = 1
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """A checkpoint is committed on disk. ``stall_seconds`` is how long training waited for it."""

    step: int
    path: str
    num_bytes: int
    stall_seconds: float
    write_seconds: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckpointRemoved(Event):
    """Retention removed a checkpoint, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StepSkipped(Event):
    """The guard refused a step: the weights are those before it."""

    step: int
    reason: str
    consecutive: int
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CacheGrown(Event):
    """New chunks were taken in after ``step`` steps."""

    step: int
    old_sequences: int
    new_sequences: int
    old_total_steps: int
    new_total_steps: int


@dataclass(frozen=True, kw_only=True)
class EpochCompleted(Event):
    """An epoch ended; the hours are those of the time limit."""

    epoch: int
    step: int
    elapsed_hours: float
    remaining_hours: float | None


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """One line for the reader: a fallback taken, a thing missing, a decision and its reason."""

    message: str
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """Progress of long work other than steps. ``done`` and ``total`` count ``unit``; a ``total`` of None is unknown."""

    task: str
    done: float
    total: float | None
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run ended, for the reason given: ``finished``, ``time-limit``, ``signal``, ``numeric``."""

    step: int
    reason: str
    elapsed_seconds: float
    checkpoint: str | None = None


Subscriber = Callable[[Event], None]


class EventBus:
    """Synchronous publisher of events to any number of subscribers."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add a subscriber; the returned function removes it again."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Hand the event to every subscriber; one that raises is warned about once and dropped."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:  # a sink may fail in any way; training must not notice
                self._subscribers.remove(subscriber)
                name = getattr(subscriber, "__qualname__", type(subscriber).__name__)
                logger.warning("monitoring sink %s failed and is switched off: %s: %s", name, type(error).__name__, error)
