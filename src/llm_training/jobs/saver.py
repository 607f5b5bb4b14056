"""Checkpoints of one session, from the loop's wish to the event that tells of a committed one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llm_training.cache.pins import Pin
from llm_training.checkpoint.store import CheckpointStore, SaveReport
from llm_training.events import CheckpointRemoved, CheckpointSaved
from llm_training.jobs import checkpointing
from llm_training.jobs.context import RunContext
from llm_training.model.transformer import Transformer
from llm_training.training.guard import LossScale
from llm_training.training.state import TrainState


class Saver:
    """Checkpoints of one session: snapshot now, write behind, report when committed. Only rank 0 writes."""

    def __init__(
        self, context: RunContext, model: Transformer, optimizer: Any, facts: checkpointing.RunFacts, store: CheckpointStore
    ) -> None:
        self._context = context
        self._model = model
        self._optimizer = optimizer
        self._facts = facts
        self._store = store
        self.state: TrainState | None = None
        self.pin: Pin | None = None
        self.loss_scale: LossScale | None = None
        self.validation: tuple[int, float] | None = None
        self._last_path = ""

    def save(self, labels: Sequence[str]) -> float:
        """Start a save; returns the seconds that training waited for it."""
        began = time.perf_counter()
        state = self.state
        assert state is not None
        assert self.pin is not None
        assert self.loss_scale is not None
        if not self._context.world.is_main:
            return 0.0
        state.loss_scale = asdict(self.loss_scale)
        measured = self.validation is not None and self.validation[0] == state.step
        snapshot = checkpointing.take_snapshot(
            self._model,
            self._optimizer,
            state,
            facts=self._facts,
            pin=self.pin,
            tokenizer=self._context.data.tokenizer,
            validation_loss=self.validation[1] if measured and self.validation else None,
            labels=labels,
        )
        self._store.save_async(snapshot)
        self._publish(self._store.collect())
        return time.perf_counter() - began

    def poll(self) -> None:
        """Tell of a save that has ended meanwhile. Raises what it raised."""
        if self._context.world.is_main:
            self._publish(self._store.collect())

    def wait(self) -> str:
        """Wait on every rank for the save in flight; path of the newest committed checkpoint."""
        self.finish()
        self._context.world.wait_patiently()
        return self._last_path

    def finish(self) -> None:
        """Wait on this rank alone, which after a failure is all that can be done: the others may be anywhere."""
        if self._context.world.is_main:
            self._publish(self._store.wait())

    def _publish(self, reports: Sequence[SaveReport]) -> None:
        for report in reports:
            self._last_path = str(report.path)
            self._context.bus.publish(
                CheckpointSaved(
                    step=report.step,
                    path=str(report.path),
                    num_bytes=report.num_bytes,
                    stall_seconds=report.stall_seconds,
                    write_seconds=report.write_seconds,
                    labels=(*report.labels, *(("best",) if report.is_best else ())),
                )
            )
            for path, reason in report.removed:
                self._context.bus.publish(CheckpointRemoved(path=str(path), reason=reason))
