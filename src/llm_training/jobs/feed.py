"""From steps to micro-batches: the order in which a run takes rows, and the reading of them."""

from __future__ import annotations

import time

import torch

from llm_training.cache import order as ordering
from llm_training.cache.batch import Batch
from llm_training.cache.loader import BatchLoader
from llm_training.cache.pins import Pin
from llm_training.cache.reader import PackedDataset
from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.cache.view import PackedView
from llm_training.jobs.context import RunContext
from llm_training.training.plan import TrainingPlan, exact, micro_batches_for, steps_after_join
from llm_training.training.step import MicroBatch

PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.1


def order_of_plan(plan: TrainingPlan, seed: int) -> ordering.Order:
    """The order in which a run takes rows, with the joins that it has recorded."""
    joins = [ordering.Join(join.step * plan.effective_batch, join.sequences) for join in plan.joins if join.reason == "growth"]
    return ordering.Order(
        seed=seed,
        num_rows=plan.first_sequences,
        shape=ordering.shuffle_shape(plan.sequence_length),
        joins=joins,
        fraction=plan.epoch_fraction,
    )


def _micro_batch(batch: Batch, part: slice) -> MicroBatch:
    segment_ids = None if batch.segment_ids is None else torch.from_numpy(batch.segment_ids[part])
    return MicroBatch(torch.from_numpy(batch.input_ids[part]), torch.from_numpy(batch.labels[part]), segment_ids)


class Feed:
    """Micro-batches by step from the packed cache, and the growth of it. ``with_documents``: number the documents of each row."""

    def __init__(self, context: RunContext, plan: TrainingPlan, pin: Pin, micro_batch: int, *, with_documents: bool = False) -> None:
        self._context = context
        self.store, self.view = context.data.store, context.data.view
        self._with_documents = with_documents
        self.pin = pin
        self.micro_batch = micro_batch
        self.plan = plan
        self._order = order_of_plan(plan, context.config.training.seed)
        self.loader = BatchLoader(
            self._dataset(),
            self._order,
            global_batch=plan.effective_batch,
            rank=context.world.rank,
            world_size=context.world.size,
            prefetch_steps=context.config.cache.prefetch_steps,
            read_threads=context.config.cache.read_threads,
        )

    def _dataset(self) -> PackedDataset:
        self._wait_for_pin()
        memory_bytes = self._context.config.cache.memory_bytes
        return PackedDataset(self.store, self.view, self.pin, memory_bytes=memory_bytes, with_segments=self._with_documents)

    def _wait_for_pin(self) -> None:
        """Open store and view anew while they lack chunks of the pin: rank 0 has seen them, this rank's disk may be slower."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not set(self.pin.numbers) <= self.store.records[TRAIN].keys() & self.view.records.keys() and time.monotonic() < deadline:
            self.adopt(ChunkStore.open(self.store.directory), PackedView.open(self.view.directory))
            time.sleep(_POLL_SECONDS)

    def adopt(self, store: ChunkStore, view: PackedView) -> None:
        """Use a newer state of the same cache from the next `grow` on."""
        self.store, self.view = store, view

    def fetch(self, step: int) -> list[MicroBatch]:
        """This rank's micro-batches of the update after ``step`` completed steps."""
        batch = self.loader.fetch(step)
        bounds = micro_batches_for(len(batch.input_ids), self.micro_batch)
        return [_micro_batch(batch, slice(*bound)) for bound in bounds]

    def epoch_at(self, step: int) -> float:
        """Epochs completed after ``step`` steps."""
        position = self._order.position(step * self.plan.effective_batch)
        return position.epoch + position.offset / position.num_samples

    def given_length(self) -> int | None:
        """Steps that the configured steps, tokens and epochs allow with the rows known now; None when none of them is given."""
        training = self._context.config.training
        is_given = any(value is not None for value in (training.max_steps, training.max_tokens, training.num_epochs))
        last_growth = max((join.step for join in self.plan.joins if join.reason == "growth"), default=0)
        return self.total_wanted(last_growth) if is_given else None

    def total_after(self, step: int, num_rows: int) -> int:
        """Total steps once the cache counts ``num_rows`` rows from ``step`` on; unchanged when epochs do not decide it."""
        if self._context.config.training.num_epochs is None:
            return self.plan.total_steps
        return self.total_wanted(step, num_rows)

    def total_wanted(self, step: int, num_rows: int | None = None) -> int:
        """Total steps by the lengths of the configuration, with ``num_rows`` rows (default: those of the plan) from ``step`` on."""
        training, plan = self._context.config.training, self.plan
        totals = [training.max_steps] if training.max_steps is not None else []
        if training.max_tokens is not None:
            totals.append(training.max_tokens // plan.tokens_per_step)
        if training.num_epochs is not None:
            sample = step * plan.effective_batch
            position = self._order.position(sample)
            left = max(exact(0), exact(training.num_epochs) - position.epoch)
            rows = plan.sequences if num_rows is None else num_rows
            totals.append(steps_after_join(sample - position.offset, left, rows, plan.epoch_fraction, plan.effective_batch))
        return max(step, min(totals)) if totals else plan.total_steps

    def grow(self, plan: TrainingPlan, pin: Pin) -> None:
        """Take in the rows of ``pin``; ``plan`` holds the join."""
        self.plan, self.pin = plan, pin
        self._order = order_of_plan(plan, self._context.config.training.seed)
        self.loader.replace(self._dataset(), self._order)

    def follow(self, plan: TrainingPlan) -> None:
        """Use the plan after a change of the total that leaves the rows alone."""
        self.plan = plan
