"""The mixture of a run: from the configured weights and the cache to the order in which rows are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llm_training.cache import order as ordering
from llm_training.cache.mixture import MixedOrder, Part, Piece
from llm_training.cache.pins import Pin
from llm_training.cache.store import ChunkStore
from llm_training.cache.view import PackedView
from llm_training.config.data import DataConfig
from llm_training.config.mixture import SourceEntry, parse_source
from llm_training.config.root import Config
from llm_training.errors import ConfigError
from llm_training.training.plan import TrainingPlan

RunOrder = ordering.Order | MixedOrder


def configured_sources(data: DataConfig) -> tuple[SourceEntry, ...]:
    """The sources of training text with their weights and caps."""
    if data.dataset_name is None:
        return tuple(map(parse_source, data.sources))
    config_part = f":{data.dataset_config}" if data.dataset_config else ""
    splits = [split for split in (data.dataset_split, data.validation_split) if split]
    named = [f"hf:{data.dataset_name}{config_part}@{split}" for split in splits] or [f"hf:{data.dataset_name}{config_part}"]
    return tuple(map(SourceEntry, named))


def source_names(data: DataConfig) -> tuple[str, ...]:
    """All sources as they are called in figures, by their number in the corpus plan: those of held-out text come last."""
    return tuple(dict.fromkeys([*(entry.uri for entry in configured_sources(data)), *data.validation_sources]))


def mixture_of(data: DataConfig) -> tuple[Part, ...]:
    """Weights and caps by source; empty when nothing was said of either: rows then count alike."""
    entries = configured_sources(data)
    if not any(entry.is_mixed for entry in entries):
        return ()
    return tuple(Part(1.0 if entry.weight is None else entry.weight, entry.max_epochs) for entry in entries)


def as_json(parts: Sequence[Part]) -> list[list[float | None]]:
    """The mixture as it is recorded in every checkpoint."""
    return [[part.weight, part.max_epochs] for part in parts]


def from_json(recorded: Sequence[Sequence[float | None]] | None) -> tuple[Part, ...]:
    """The inverse of `as_json`; runs recorded before there were mixtures have none."""
    return tuple(Part(float(weight or 0.0), max_epochs) for weight, max_epochs in recorded or ())


def source_of_slice(store: ChunkStore) -> Mapping[int, int]:
    """Number of the source that each slice, and so each chunk, belongs to."""
    return {number: int(entry["source"]) for number, entry in enumerate(store.plan)}


def order_of_run(plan: TrainingPlan, seed: int, parts: Sequence[Part], store: ChunkStore, view: PackedView, pin: Pin) -> RunOrder:
    """The order in which a run takes rows, with the joins that it has recorded."""
    joins = [ordering.Join(join.step * plan.effective_batch, join.sequences) for join in plan.joins if join.reason == "growth"]
    shape = ordering.shuffle_shape(plan.sequence_length)
    if not parts:
        return ordering.Order(seed=seed, num_rows=plan.first_sequences, shape=shape, joins=joins, fraction=plan.epoch_fraction)
    return MixedOrder(
        seed=seed,
        parts=parts,
        pieces=_pieces(parts, store, view, pin),
        num_rows=plan.first_sequences,
        shape=shape,
        joins=joins,
        fraction=plan.epoch_fraction,
    )


def _pieces(parts: Sequence[Part], store: ChunkStore, view: PackedView, pin: Pin) -> list[Piece]:
    """Chunks with rows, in row order. (A slice of held-out text has a chunk without rows: its source is no part of the mixture.)"""
    sources = source_of_slice(store)
    pieces = [Piece(sources[number], rows) for number in pin.numbers if (rows := view.records[number].num_rows)]
    if pieces and max(piece.part for piece in pieces) >= len(parts):
        what = f"the cache holds more sources than the {len(parts)} of the mixture"
        raise ConfigError(what, where="data.sources", remedy="give the sources that the cache was built of, in their order")
    return pieces


def most_samples(
    parts: Sequence[Part], seed: int, store: ChunkStore, view: PackedView, pin: Pin, *, fraction: float, sequence_length: int
) -> int | None:
    """Samples until every source has reached its cap, with the rows of the pin; None where one has none."""
    if not parts:
        return None
    shape = ordering.shuffle_shape(sequence_length)
    pieces = _pieces(parts, store, view, pin)
    return MixedOrder(seed=seed, parts=parts, pieces=pieces, num_rows=pin.num_rows, shape=shape, fraction=fraction).num_samples


def estimated_order(config: Config, train_bytes: Sequence[int], sequences: int, sequence_length: int) -> MixedOrder | None:
    """The order over about so many sequences, divided by the bytes of the sources as they lie; None without weights and caps."""
    parts, total = mixture_of(config.data), max(1, sum(train_bytes))
    if not parts:
        return None
    pieces = [Piece(number, max(1, round(sequences * size / total))) for number, size in enumerate(train_bytes[: len(parts)])]
    return MixedOrder(
        seed=config.training.seed,
        parts=parts,
        pieces=pieces,
        num_rows=sum(piece.num_rows for piece in pieces),
        shape=ordering.shuffle_shape(sequence_length),
        fraction=config.training.epoch_dataset_fraction,
    )


def describe_mixture(config: Config, plan: TrainingPlan, parts: Sequence[Part], order: RunOrder | None) -> Iterator[tuple[str, str]]:
    """A row of the plan for each source of a mixture: its share of the samples, and how often the run goes through it."""
    if not isinstance(order, MixedOrder):
        return
    num_samples, names = plan.total_steps * plan.effective_batch, source_names(config.data)
    counts, epochs = order.counts(num_samples), order.epochs(num_samples)
    for name, part, count, passed in zip(names, parts, counts, epochs, strict=False):
        cap = "" if part.max_epochs is None else f" of at most {part.max_epochs:g}"
        yield "Mixture", f"{name}: {count / max(1, num_samples):.1%} of the samples (weight {part.weight:g}), {passed:.2f} epochs{cap}"
