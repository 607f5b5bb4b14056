"""Job: which documents made a step. The order of the data is a pure function, so no record of it is needed."""

from __future__ import annotations

import numpy as np

from llm_training.cache.reader import PackedDataset
from llm_training.checkpoint.resume import find_checkpoint
from llm_training.config.load import load_config
from llm_training.errors import ConfigError, DataError
from llm_training.jobs.checkpointing import read_progress
from llm_training.jobs.feed import order_of_plan
from llm_training.jobs.logs import locate_run
from llm_training.jobs.remote_data import open_dataset, open_view


def documents_of_step(run: str, step: int) -> list[tuple[int, str, str, int, int, int]]:
    """The documents whose tokens made a step: row, id, source, record in the source, first token in the document, tokens.

    Args:
        run: a run directory or name.
        step: completed optimizer steps; step 1 is the first.

    Raises:
        ConfigError: no such run, or a step that it does not have.
        DataError: the run has no checkpoint that says which data it reads.
        IntegrityError: run and cache do not belong together any more, or are damaged.
    """
    layout = locate_run(run)
    ref = find_checkpoint(layout.checkpoints, quarantine=False)
    if ref is None:
        raise DataError("the run has no checkpoint yet", where=str(layout.path), remedy="wait for the first one")
    progress = read_progress(ref)
    plan = progress.state.plan
    if not 1 <= step <= plan.total_steps:
        raise ConfigError(f"--data is {step} but the run has steps 1 to {plan.total_steps}")
    config = load_config([str(layout.config)]).config
    facts = progress.recorded_facts
    store = open_dataset(config.cache, str(facts["dataset"]))
    dataset = PackedDataset(store, open_view(config.cache, store, plan.sequence_length), progress.pin)
    rows = order_of_plan(plan, int(facts["seed"])).rows((step - 1) * plan.effective_batch, step * plan.effective_batch)
    described = dataset.describe(np.asarray(rows, dtype=np.int64))
    return [(row.row, piece.id, piece.source, piece.position, piece.start, piece.num_tokens) for row in described for piece in row.pieces]
