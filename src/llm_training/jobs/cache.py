"""Job: build, repair, verify the packed cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llm_training.cache.arrow_file import REPAIR_ALL
from llm_training.cache.build import BuildResult
from llm_training.cache.catalog import make_identity, store_directory, update_registry
from llm_training.cache.packing import STRATEGIES
from llm_training.cache.store import METADATA_NAME, ChunkStore
from llm_training.cache.view import VIEWS_DIRECTORY, PackedView, build_view
from llm_training.config.root import Config
from llm_training.corpus import Plan
from llm_training.errors import ConfigError, IntegrityError
from llm_training.events import EventBus, Progress
from llm_training.jobs import datasets, remote_data
from llm_training.jobs.clean_reading import clean_reading
from llm_training.jobs.planning import choose_shape
from llm_training.report.numbers import plural
from llm_training.runtime.device import Device
from llm_training.runtime.signals import stop_on_signals
from llm_training.runtime.world import World
from llm_training.storage.remote import is_remote, without_password
from llm_training.tokenizer.tokenizer import Tokenizer

# The dial is asked for vocabulary and length only; this is the compute of a small run on two cores, so that building the
# cache beforehand and training afterwards on such a machine agree.
DIAL_FLOPS = 2e12


@dataclass(frozen=True)
class CacheReport:
    """What was built and what is there.

        ``left`` counts chunks of the plan that are still to be built. ``verified`` is None unless it was asked for; ``view`` is
    empty when there are no rows of this length yet.
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
    left: int = 0
    published: str = ""

    def lines(self) -> Sequence[str]:
        """For people."""
        rate = f", {self.text_bytes / 1e6 / self.seconds:,.1f} MB/s" if self.built and self.seconds > 0 else ""
        done = f"built {plural(len(self.built), 'chunk')} in {self.seconds:.1f} s{rate}" if self.built else "no chunk was missing"
        built = [] if self.verified else [done]
        rows = [f"rows   {self.view}"] if self.view else []
        verified = ["every chunk and every row plan verified"] if self.verified else []
        repaired = [f"repaired: {reason}" for reason in self.repaired]
        published = [self.published] if self.published else []
        ignored = [f"ignored, not ours: {name}" for name in self.ignored]
        left = [f"{self.left:,} chunk{'s are' if self.left != 1 else ' is'} left for the next build"] if self.left else []
        return [*self.details, *built, *left, *repaired, *ignored, *verified, f"tokens {self.directory}", *rows, *published]


def build(
    config: Config,
    *,
    mode: str = "normal",
    force_rebuild: bool = False,
    verify: bool = False,
    max_chunks: int | None = None,
    publish: str | None = None,
    bus: EventBus | None = None,
) -> CacheReport:
    """Build what is missing; with ``verify`` check everything and build nothing.

    Args:
        max_chunks: build at most so many chunks now; the next call builds on.
        publish: a remote folder (``s3://bucket/prefix``) that the finished dataset is sent to.

    Raises:
        ConfigError: ``max_chunks`` below 1, or with ``force_rebuild``, which swaps only what is whole; the cache itself is
            remote (it is built locally and published), or ``publish`` is not.
        IntegrityError: ``verify`` found damage (all of it named), or the cache under this name holds other data.
        DataError, StorageError, LockedError, StoppedEarly: see the rooms.
    """
    if max_chunks is not None and (max_chunks < 1 or force_rebuild):
        what = "--chunks cannot go with --force-rebuild" if force_rebuild else f"--chunks is {max_chunks}, at least 1 can be built"
        raise ConfigError(what, remedy="leave --chunks out to build everything")
    bus = bus or EventBus()
    if is_remote(config.cache.dir):
        return _verify_remote(config, verify=verify)
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
        result = datasets.build_cache(scanned, config, tokenizer, directory, identity, bus, stop, mode=chosen, max_chunks=max_chunks)
        store = ChunkStore.open(store_directory(cache, identity))
        damaged: list[str] = []
        view = build_view(
            cache, store, choice.sequence_length, config.cache.packing_strategy, check_content=mode == "inverse", damaged=damaged.append
        )
        update_registry(cache)
        sent = _publish(config, store, tokenizer, scanned.plan, publish, bus) if publish else ""
    report = _report(store, view, result)
    return replace(report, repaired=(*report.repaired, *damaged), published=sent)


def _publish(config: Config, store: ChunkStore, tokenizer: Tokenizer, plan: Plan, url: str, bus: EventBus) -> str:
    """Send the store and all its views; returns a line for people."""

    def report(done: int, total: int) -> None:
        bus.publish(Progress(task="Publish", done=done, total=total, unit="files"))

    views = [PackedView.open(path) for path in _view_directories(Path(config.cache.dir), store.settings.dataset)]
    sent = remote_data.publish_dataset(config.cache, store, views, tokenizer, plan, url, report)
    return f"published to {without_password(url)}: {sent.num_sent:,} files sent ({sent.sent_bytes:,} bytes), {sent.num_kept:,} were there"


def _verify_remote(config: Config, *, verify: bool) -> CacheReport:
    """Read all of a published dataset; nothing is built there."""
    if not verify:
        remedy = "build with a local --cache.dir and add --publish, or check this one with --verify"
        raise ConfigError("a remote cache is not built in place", where=without_password(config.cache.dir), remedy=remedy)
    dataset = remote_data.open_remote_dataset(config.cache)
    problems = [problem.reason for problem in dataset.store.problems(hashes=True)]
    view = dataset.published_view(config.cache.sequence_length, config.cache.packing_strategy)
    problems += view.problems() if view else []
    if problems:
        raise IntegrityError(_damage(problems), where=dataset.cache.remote.url, remedy="publish it again from a whole cache")
    return _report(dataset.store, view, None)


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
        left=len(store.unbuilt()),
    )


def _view_directories(cache: Path, dataset: str) -> list[Path]:
    """The views of a store for all row lengths and strategies."""
    names = {dataset, *(f"{dataset}.{strategy}" for strategy in STRATEGIES)}
    found = (path.parent for path in (cache / VIEWS_DIRECTORY).glob(f"[0-9]*/*/{METADATA_NAME}"))
    return sorted(path for path in found if path.name in names)


def _damage(problems: Sequence[str]) -> str:
    return f"{plural(len(problems), 'part')} of the cache {'is' if len(problems) == 1 else 'are'} damaged: {'; '.join(problems)}"


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
            _damage(problems),
            where=str(store.directory),
            remedy=REPAIR_ALL,
        )
    return found
