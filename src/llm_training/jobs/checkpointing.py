"""Between a live run and its checkpoints: what goes into a snapshot, and what a resume may differ in.

The state beside the weights names everything that decides what the next step does, so that a resume either continues
exactly or is refused with the names of what changed (exit 4). What cannot change bits, or was announced as a
re-rounding (threads, precision, torch), is only noted.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llm_training.cache.pins import Pin
from llm_training.checkpoint.load import CheckpointRef, load_model_tensors, load_optimizer_tensors, load_state
from llm_training.checkpoint.snapshot import Snapshot
from llm_training.errors import IntegrityError
from llm_training.model.families import load_hf_tensors, to_hf_tensors
from llm_training.model.hf_config import to_generation_config, to_hf_config
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.world import World
from llm_training.tokenizer.tokenizer import Tokenizer
from llm_training.training.optimizers import OptimizerSet
from llm_training.training.state import TrainState

STATE_FORMAT = 1
# Values in the state that a resume must share, and those that are only worth a line.
FATAL = ("tokenizer", "sequence_length", "effective_batch", "optimizer", "seed", "dataset", "document_attention")
# What checkpoints from before a fact was recorded were made with.
ASSUMED: Mapping[str, Any] = {"document_attention": False}
NOTED = ("precision", "threads", "torch", "world_size", "micro_batch", "machine")


@dataclass(frozen=True)
class RunFacts:
    """What is recorded in every checkpoint of a run beside weights and progress."""

    dataset: str
    tokenizer: str
    sequence_length: int
    effective_batch: int
    micro_batch: int
    optimizer: str
    seed: int
    document_attention: bool
    precision: str
    threads: int
    world_size: int

    def as_json(self) -> dict[str, Any]:
        """Plain values, with torch's version and the kind of machine."""
        return {**vars(self), "torch": torch.__version__, "machine": platform.machine()}


def make_facts(
    *, dataset: str, tokenizer: Tokenizer, effective_batch: int, micro_batch: int, sequence_length: int, optimizer: str, seed: int,
    document_attention: bool, precision: Precision, device: Device, world: World,
) -> RunFacts:  # fmt: skip
    """Facts from the parts of a run."""
    return RunFacts(
        dataset=dataset,
        tokenizer=tokenizer.fingerprint,
        sequence_length=sequence_length,
        effective_batch=effective_batch,
        micro_batch=micro_batch,
        optimizer=optimizer,
        seed=seed,
        document_attention=document_attention,
        precision=precision.name,
        threads=device.threads,
        world_size=world.size,
    )


def take_snapshot(
    model: Transformer,
    optimizer: OptimizerSet,
    state: TrainState,
    *,
    facts: RunFacts,
    pin: Pin,
    tokenizer: Tokenizer,
    validation_loss: float | None,
    labels: Sequence[str] = (),
) -> Snapshot:
    """Everything a checkpoint holds; tensors are views of the live ones, to be copied before the next step."""
    separator = tokenizer.separator_id
    return Snapshot(
        step=state.step,
        model_tensors=to_hf_tensors(model),
        config=to_hf_config(model.spec, bos_token_id=separator, eos_token_id=separator, pad_token_id=separator),
        generation_config=to_generation_config(bos_token_id=separator, eos_token_id=separator, pad_token_id=separator),
        tokenizer_files=tokenizer.files(),
        optimizer_tensors=optimizer.tensors(),
        state={
            "format": STATE_FORMAT,
            **state.as_json(),
            "validation_loss": validation_loss,
            "facts": facts.as_json(),
            "pin": pin.to_json(),
            "cache_info": {
                "dataset_name": facts.dataset,
                "total_sequences": state.plan.sequences,
                "sequence_length": facts.sequence_length,
            },
        },
        labels=tuple(labels),
    )


@dataclass(frozen=True)
class Restored:
    """A checkpoint's progress and where its data came from."""

    state: TrainState
    pin: Pin
    recorded_facts: Mapping[str, Any]


def read_progress(ref: CheckpointRef) -> Restored:
    """The state of a checkpoint.

    Raises:
        IntegrityError: it is not a checkpoint of a run (weights only), or of a format this version does not know.
    """
    recorded = load_state(ref)
    if recorded.get("format") != STATE_FORMAT:
        raise IntegrityError(
            f"training state has format {recorded.get('format')}, this version reads {STATE_FORMAT}",
            where=str(ref.path),
            remedy="resume with the version that wrote it",
        )
    try:
        return Restored(TrainState.from_json(recorded), Pin.from_json(recorded["pin"]), recorded["facts"])
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise IntegrityError(
            f"training state is incomplete ({error})", where=str(ref.path), remedy="resume from another checkpoint"
        ) from None


def require_same(recorded: Mapping[str, Any], facts: RunFacts, *, where: str) -> list[str]:
    """Compare what a checkpoint recorded with the present run.

    Returns:
        Lines about differences that only re-round.

    Raises:
        IntegrityError: something that decides what is learned differs, old and new named.
    """
    now, recorded = facts.as_json(), {**ASSUMED, **recorded}

    def changes(names: Sequence[str]) -> list[str]:
        return [f"{name}: {recorded.get(name)} -> {now[name]}" for name in names if recorded.get(name) != now[name]]

    fatal = changes(FATAL)
    if fatal:
        raise IntegrityError(
            f"the run cannot be resumed with other settings ({'; '.join(fatal)})",
            where=where,
            remedy="use the settings of the run, or another --output-dir for a new one",
        )
    return [f"resuming with {change}: results may differ in rounding" for change in changes(NOTED)]


def require_same_shape(ref: CheckpointRef, recorded: ModelSpec, wanted: ModelSpec) -> None:
    """Refuse to resume into another architecture.

    Raises:
        IntegrityError: old and new of every field that differs.
    """
    differences = recorded.differences(wanted)
    if differences:
        raise IntegrityError(
            f"the checkpoint holds another model ({'; '.join(differences)})",
            where=str(ref.path),
            remedy="use the shape of the run, or another --output-dir for a new one",
        )


def restore(ref: CheckpointRef, model: Transformer, optimizer: OptimizerSet) -> None:
    """Copy weights and optimizer state of a checkpoint into live objects.

    Raises:
        IntegrityError: names or shapes do not fit.
    """
    load_hf_tensors(model, load_model_tensors(ref))
    optimizer.load(load_optimizer_tensors(ref))
