"""Before a run with live growth: the first chunks, built by somebody else or, when nobody is at it, by the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.errors import IntegrityError, LockedError, StoppedEarly
from llm_training.events import EventBus, Notice
from llm_training.runtime.signals import StopFlag

_POLL_SECONDS = 0.2


def wait_for_chunks(directory: Path, build: Callable[[], object], bus: EventBus, stop: StopFlag) -> None:
    """Return once the store there holds a training chunk; what is missing beyond that is left to ``llm-build-cache``.

    Args:
        directory: of the store.
        build: builds the store when no chunk is there and nobody builds it.

    Raises:
        StoppedEarly: a signal came while waiting for another builder's first chunk.
        LlmTrainingError: from ``build``.
    """
    has_said = False
    while not holds_chunks(directory):
        try:
            build()
            return
        except LockedError as error:
            if not has_said:
                bus.publish(Notice(message=f"waiting for the first chunk: {error.what}"))
                has_said = True
        if stop:
            raise StoppedEarly(f"stopped by {stop.reason} while waiting for the first chunk", remedy="the same command goes on")
        time.sleep(_POLL_SECONDS)
    store = ChunkStore.open(directory)
    if missing := len(store.unbuilt()):
        line = f"training starts with {len(store.plan) - missing} of {len(store.plan)} chunks; those that llm-build-cache adds join later"
        bus.publish(Notice(message=line))


def holds_chunks(directory: Path) -> bool:
    """True when a store is there that holds tokens to train on."""
    try:
        return any(record.num_tokens for record in ChunkStore.open(directory).records[TRAIN].values())
    except IntegrityError:
        return False
