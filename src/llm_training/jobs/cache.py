"""Job: build, repair, verify the packed cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_training.cache.catalog import make_identity, store_directory, update_registry
from llm_training.cache.store import ChunkStore
from llm_training.cache.view import build_view
from llm_training.config.root import Config
from llm_training.errors import IntegrityError
from llm_training.events import EventBus
from llm_training.jobs import datasets
from llm_training.jobs.planning import choose_shape
from llm_training.runtime.device import Device
from llm_training.runtime.signals import stop_on_signals
from llm_training.runtime.world import World

# The dial is asked for vocabulary and length only; this is the compute of a small run on two cores, so that building the
# cache beforehand and training afterwards on such a machine agree.
DIAL_FLOPS = 2e12


@dataclass(frozen=True)
class CacheReport:
    """What was built and what is there. ``verified`` is None unless it was asked for."""

    dataset: str
    directory: str
    view: str
    built: tuple[int, ...]
    repaired: tuple[str, ...]
    ignored: tuple[str, ...]
    seconds: float
    text_bytes: int
    num_sequences: int
    details: tuple[str, ...]
    verified: bool | None = None

    def lines(self) -> Sequence[str]:
        """For people."""
        rate = f", {self.text_bytes / 1e6 / self.seconds:,.1f} MB/s" if self.built and self.seconds > 0 else ""
        done = f"built {len(self.built):,} chunks in {self.seconds:.1f} s{rate}" if self.built else "nothing was missing"
        verified = ["every chunk verified"] if self.verified else []
        repaired = [f"repaired: {reason}" for reason in self.repaired]
        ignored = [f"ignored, not ours: {name}" for name in self.ignored]
        return [*self.details, done, *repaired, *ignored, *verified, f"tokens {self.directory}", f"rows   {self.view}"]


def build(
    config: Config, *, mode: str = "normal", force_rebuild: bool = False, verify: bool = False, bus: EventBus | None = None
) -> CacheReport:
    """Build what is missing; with ``verify`` check everything and build nothing.

    Raises:
        IntegrityError: ``verify`` found damage (all of it named), or the cache under this name holds other data.
        DataError, StorageError, LockedError, StoppedEarly: see the rooms.
    """
    bus = bus or EventBus()
    cache = Path(config.cache.dir)
    with stop_on_signals() as stop:
        scanned = datasets.scan_data(config, bus, World())
        choice = choose_shape(
            config,
            peak_flops=DIAL_FLOPS,
            text_bytes=scanned.train_bytes,
            vocab_size=scanned.known_vocab_size,
            device=Device("cpu", 0, "CPU", 1),
        )
        tokenizer, directory = datasets.load_or_train_tokenizer(scanned, config, bus, vocab_size=choice.vocab_size)
        name = config.cache.name
        identity = make_identity(
            name or scanned.name,
            sources=scanned.corpus.fingerprint,
            tokenizer=tokenizer.fingerprint,
            cleaning=[],
            is_explicit=name is not None,
        )
        if verify:
            _require_whole(ChunkStore.open(store_directory(cache, identity)))
        result = None
        if not verify:
            chosen = "force_rebuild" if force_rebuild else mode
            result = datasets.build_cache(scanned, config, tokenizer, directory, identity, bus, stop, mode=chosen)
        store = ChunkStore.open(store_directory(cache, identity))
        view = build_view(cache, store, choice.sequence_length, config.cache.packing_strategy, check_content=verify or mode == "inverse")
        update_registry(cache)
    return CacheReport(
        dataset=identity.name,
        directory=str(store.directory),
        view=str(view.directory),
        built=result.built if result else (),
        repaired=tuple(problem.reason for problem in result.damaged) if result else (),
        ignored=result.strangers if result else (),
        seconds=result.seconds if result else 0.0,
        text_bytes=result.text_bytes if result else 0,
        num_sequences=view.stats.num_rows,
        details=tuple(datasets.describe_store(store, view)),
        verified=True if verify else None,
    )


def _require_whole(store: ChunkStore) -> None:
    problems = store.problems(hashes=True)
    if problems:
        raise IntegrityError(
            f"{len(problems)} chunks are damaged: {'; '.join(problem.reason for problem in problems)}",
            where=str(store.directory),
            remedy="llm-build-cache --mode inverse rebuilds just these",
        )
