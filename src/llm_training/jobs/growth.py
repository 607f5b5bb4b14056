"""Growth of the cache under a run: looking for new chunks, and what joining them means.

A builder adds chunks in a process of its own. The trainer never scans sources and never takes the builder's lock: at declared
steps rank 0 reads the cache's metadata, plans the rows of chunks it does not know (the view's lock is held for moments only) and
proposes a join. The loop records the proposal before anybody acts on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_training.cache.pins import Growth, Pin, find_growth
from llm_training.cache.store import JOURNAL_NAME, METADATA_NAME, TRAIN, ChunkStore
from llm_training.cache.view import PackedView, build_view
from llm_training.errors import LlmTrainingError
from llm_training.events import Notice
from llm_training.jobs.context import RunContext
from llm_training.jobs.feed import Feed
from llm_training.training.pacing import Pacer
from llm_training.training.plan import TrainingPlan
from llm_training.training.state import TrainState


class CacheWatch:
    """Looks at a cache that others extend, from rank 0. A look that finds its files unchanged costs two ``stat`` calls."""

    def __init__(self, cache_directory: Path, store: ChunkStore, view: PackedView) -> None:
        self._cache_directory = cache_directory
        self._directory = store.directory
        self._settings = view.settings
        self._seen: object = None

    def look(self, pin: Pin) -> tuple[ChunkStore, PackedView, Growth] | None:
        """The cache with chunks that the pin lacks, their rows planned; None when there are none.

        Raises:
            IntegrityError: the chunks of the pin are no longer what they were.
            LlmTrainingError: the cache cannot be read, or its view not extended, just now.
        """
        marks = [_mark(self._directory / name) for name in (METADATA_NAME, JOURNAL_NAME)]
        if marks == self._seen:
            return None
        store = ChunkStore.open(self._directory)
        if not store.records[TRAIN].keys() - set(pin.numbers):
            self._seen = marks
            return None
        view = build_view(self._cache_directory, store, self._settings.sequence_length, self._settings.strategy)
        growth = find_growth(view, pin)
        self._seen = marks
        return (store, view, growth) if growth.has_grown else None


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class GrowthFinder:
    """Proposes joins for one session of a run; on rank 0 only."""

    def __init__(self, context: RunContext, state: TrainState, feed: Feed, pacer: Pacer | None) -> None:
        self._bus = context.bus
        self._state = state
        self._feed = feed
        self._pacer = pacer
        self._watch = CacheWatch(Path(context.config.cache.dir), feed.store, feed.view)
        self._is_over = False
        self._has_warned = False

    def propose(self) -> Mapping[str, Any] | None:
        """What joins at the present step: pin and total, to be recorded; None when nothing does."""
        if self._is_over:
            return None
        try:
            found = self._watch.look(self._feed.pin)
        except LlmTrainingError as error:
            # New data is a gift, not a need: the run goes on, and what it reads is verified when it is read.
            if not self._has_warned:
                self._bus.publish(Notice(message=f"new chunks cannot be taken in now: {error}", level="warning"))
                self._has_warned = True
            return None
        if found is None:
            return None
        store, view, growth = found
        if self._state.plan.is_decaying(self._state.step):
            self._is_over = True
            self._bus.publish(Notice(message=_too_late(growth)))
            return None
        self._feed.adopt(store, view)
        return {"pin": growth.pin.to_json(), "total_steps": self._total_with(growth.new_sequences)}

    def _total_with(self, num_rows: int) -> int:
        """Total steps with so many rows. Epochs follow the data; a time budget stays the pacer's, so the join never outgrows it."""
        plan: TrainingPlan = self._state.plan
        total = self._feed.total_after(self._state.step, num_rows)
        if self._pacer is None:
            return total
        fitting = self._pacer.fitting(self._state.step, self._state.elapsed_seconds)
        return min(total, plan.total_steps if fitting is None else max(fitting, plan.total_steps))


def _too_late(growth: Growth) -> str:
    more = growth.new_sequences - growth.old_sequences
    return f"the cache has grown by {more:,} sequences; the rate is already falling, so they wait for the next run"
