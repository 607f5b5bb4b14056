"""Job: build, repair, verify the packed cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_training.cache.build import BuildResult
from llm_training.cache.catalog import make_identity, store_directory, update_registry
from llm_training.cache.packing import STRATEGIES
from llm_training.cache.store import METADATA_NAME, ChunkStore
from llm_training.cache.view import VIEWS_DIRECTORY, PackedView, build_view
from llm_training.config.root import Config
from llm_training.errors import IntegrityError
from llm_training.events import EventBus
from llm_training.jobs import datasets
from llm_training.jobs.clean_reading import clean_reading
from llm_training.jobs.planning import choose_shape
from llm_training.runtime.device import Device
from llm_training.runtime.signals import stop_on_signals
from llm_training.runtime.world import World

# The dial is asked for vocabulary and length only; this is the compute of a small run on two cores, so that building the
# cache beforehand and training afterwards on such a machine agree.
DIAL_FLOPS = 2e12


@dataclass(frozen=True)
class CacheReport:
    """What was built and what is there.

    ``verified`` is None unless it was asked for; ``view`` is empty when there are no rows of this length yet.
    """

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
        built = [] if self.verified else [done]
        rows = [f"rows   {self.view}"] if self.view else []
        verified = ["every chunk and every row plan verified"] if self.verified else []
        repaired = [f"repaired: {reason}" for reason in self.repaired]
        ignored = [f"ignored, not ours: {name}" for name in self.ignored]
        return [*self.details, *built, *repaired, *ignored, *verified, f"tokens {self.directory}", *rows]


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
        scanned = datasets.scan_data(config, bus, World(), is_fresh=force_rebuild)
        choice = choose_shape(
            config,
            peak_flops=DIAL_FLOPS,
            text_bytes=scanned.train_bytes,
            vocab_size=scanned.known_vocab_size,
            device=Device("cpu", 0, "CPU", 1),
        )
        tokenizer, directory = datasets.load_or_train_tokenizer(scanned, config, bus, vocab_size=choice.vocab_size, may_train=not verify)
        name = config.cache.name
        identity = make_identity(
            name or scanned.name,
            sources=scanned.corpus.fingerprint,
            tokenizer=tokenizer.fingerprint,
            cleaning=clean_reading(config.data).identity(),
            is_explicit=name is not None,
        )
        if verify:
            store = ChunkStore.open(store_directory(cache, identity))
            view = _require_whole(cache, store, choice.sequence_length, config.cache.packing_strategy)
            return _report(store, view, None)
        chosen = "force_rebuild" if force_rebuild else mode
        result = datasets.build_cache(scanned, config, tokenizer, directory, identity, bus, stop, mode=chosen)
        store = ChunkStore.open(store_directory(cache, identity))
        view = build_view(cache, store, choice.sequence_length, config.cache.packing_strategy, check_content=mode == "inverse")
        update_registry(cache)
    return _report(store, view, result)


def _report(store: ChunkStore, view: PackedView | None, result: BuildResult | None) -> CacheReport:
    return CacheReport(
        dataset=store.settings.dataset,
        directory=str(store.directory),
        view=str(view.directory) if view else "",
        built=result.built if result else (),
        repaired=tuple(problem.reason for problem in result.damaged) if result else (),
        ignored=result.strangers if result else (),
        seconds=result.seconds if result else 0.0,
        text_bytes=result.text_bytes if result else 0,
        num_sequences=view.stats.num_rows if view else 0,
        details=tuple(datasets.describe_store(store, view)),
        verified=None if result else True,
    )


def _view_directories(cache: Path, dataset: str) -> list[Path]:
    """The views of a store for all row lengths and strategies."""
    names = {dataset, *(f"{dataset}.{strategy}" for strategy in STRATEGIES)}
    found = (path.parent for path in (cache / VIEWS_DIRECTORY).glob(f"[0-9]*/*/{METADATA_NAME}"))
    return sorted(path for path in found if path.name in names)


def _require_whole(cache: Path, store: ChunkStore, sequence_length: int, strategy: str) -> PackedView | None:
    """Read everything of a store and its views, and return the view of this length and strategy if there is one."""
    problems = [problem.reason for problem in store.problems(hashes=True)]
    found: PackedView | None = None
    for directory in _view_directories(cache, store.settings.dataset):
        try:
            view = PackedView.open(directory)
        except IntegrityError as error:
            problems.append(f"{error.where}: {error.what}")
            continue
        problems += view.problems()
        if (view.settings.sequence_length, view.settings.strategy) == (sequence_length, strategy):
            found = view
    if problems:
        raise IntegrityError(
            f"{len(problems)} parts of the cache are damaged: {'; '.join(problems)}",
            where=str(store.directory),
            remedy="llm-build-cache --mode inverse rebuilds just these, row plans for its --sequence-length",
        )
    return found
