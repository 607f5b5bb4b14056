"""From sources to packed rows: the corpus plan, the tokenizer, the token store and its view.

Scanning comes first and is cheap: it yields the sizes that the dial needs. Packing then trains or loads the tokenizer
and builds what is missing of the cache. With several ranks the first one works and the others wait for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm_training.cache.build import BuildProgress, build_store
from llm_training.cache.catalog import Identity, make_identity, store_directory, update_registry
from llm_training.cache.held_out import held_out_documents
from llm_training.cache.mixture import Part
from llm_training.cache.packing import PackingStats
from llm_training.cache.sealed import digest
from llm_training.cache.store import TRAIN, ChunkStore, StoreSettings, recorded_compression
from llm_training.cache.store import VALIDATION as HELD_OUT
from llm_training.cache.view import PackedView, ViewSettings, build_view, view_directory
from llm_training.checkpoint.layout import STATE_FILE
from llm_training.config.load import load_config
from llm_training.config.root import Config
from llm_training.corpus import (
    TEST,
    VALIDATION,
    Corpus,
    CorpusSettings,
    Plan,
    SliceReader,
    make_plan,
    open_corpus,
    prepared_tokenizer,
)  # fmt: skip
from llm_training.errors import ConfigError, DataError, IntegrityError, StoppedEarly
from llm_training.evaluation.windows import Documents
from llm_training.events import EventBus, Notice, Progress
from llm_training.jobs.clean_reading import CleanReading, clean_reading
from llm_training.jobs.left_out import counts_left_out, require_few_bad, tell_left_out, tell_replaced
from llm_training.jobs.mixture import configured_sources, mixture_of, source_names, source_of_slice
from llm_training.jobs.models import locate_model
from llm_training.jobs.plan_files import PlanFile, plain_slices
from llm_training.jobs.recorded import recorded_start
from llm_training.jobs.remote_data import RemoteDataset, open_dataset, open_remote_dataset
from llm_training.jobs.text_amount import text_share, train_bytes_of
from llm_training.jobs.waiting import wait_for_chunks
from llm_training.report.numbers import plural
from llm_training.runtime.device import usable_cores
from llm_training.runtime.signals import StopFlag
from llm_training.runtime.world import World
from llm_training.storage.faults import crash_point
from llm_training.storage.reading import read_json
from llm_training.storage.remote import is_remote
from llm_training.storage.runs import RunLayout
from llm_training.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llm_training.tokenizer.train import train_tokenizer

TOKENIZERS_DIRECTORY = "tokenizers"
# Starting a process costs seconds of imports, and the encoder itself already uses several threads: on two cores one process
# packs 80 MB and 800 MB faster than two, in a third of the memory (benchmarks/results/tokenize_and_pack.json, flat_memory.json).
BYTES_WORTH_A_PROCESS = 1_000_000_000
BUILDER_THREADS = 2
DEFAULT_COMPRESSION = "lz4"


@dataclass(frozen=True)
class ScannedData:
    """A planned corpus. ``tokenizer`` is None when one is to be trained; ``train_bytes`` counts text that trains."""

    corpus: Corpus
    plan: Plan
    train_bytes: int
    tokenizer: Tokenizer | None
    remote: RemoteDataset | None = None

    @property
    def name(self) -> str:
        """Short name for caches and runs."""
        return self.corpus.name

    @property
    def known_vocab_size(self) -> int | None:
        """Entries of the tokenizer that is there already."""
        return None if self.tokenizer is None else self.tokenizer.vocab_size


@dataclass(frozen=True)
class PreparedData:
    """Packed rows and held-out documents, with the tokenizer that made them.

    ``held_out_slices`` are those whose held-out documents are here: all of the first plan, or with ``cache.growth: live``
    those that were built when the run began.
    """

    name: str
    tokenizer: Tokenizer
    store: ChunkStore
    view: PackedView
    held_out: Documents
    token_bytes: np.ndarray | None
    train_bytes: int
    held_out_slices: list[int]
    mixture: tuple[Part, ...] = ()
    source_names: tuple[str, ...] = ()

    @property
    def sequence_length(self) -> int:
        """Targets of a row, tokens."""
        return self.view.settings.sequence_length

    @property
    def num_tokens(self) -> int:
        """Unique training tokens."""
        return sum(record.num_tokens for record in self.store.records[TRAIN].values())


def open_sources(config: Config) -> Corpus:
    """The configured corpus; ``data.validation_sources``, when given, are its held-out part and nothing is split off."""
    data = config.data
    settings = CorpusSettings(
        text_field=data.text_field,
        validation_fraction=0.0 if data.validation_sources else data.validation_fraction,
        skip_bad=data.skip_bad,
        replace_bad_bytes=data.replace_bad_bytes,
        max_bad_fraction=data.max_bad_fraction,
        slice_bytes=config.cache.chunk_bytes,
        max_document_bytes=data.max_document_bytes,
        max_documents=data.num_samples or 0,
    )
    corpus = open_corpus(source_names(data), settings, None if is_remote(config.cache.dir) else Path(config.cache.dir).absolute().parent)
    if not data.validation_sources:
        return corpus
    held_out = set(data.validation_sources)
    marked = tuple(
        replace(source, files=tuple(replace(file, split=VALIDATION) for file in source.files)) if source.uri in held_out else source
        for source in corpus.sources
    )
    name = "+".join(source.name for source in corpus.sources if source.uri not in held_out)
    return replace(corpus, sources=marked, name=name, fingerprint=digest([corpus.fingerprint, sorted(held_out)]))


def scan_data(
    config: Config,
    bus: EventBus,
    world: World,
    *,
    resumed: RunLayout | None = None,
    is_fresh: bool = False,
    may_rescan: bool = True,
) -> ScannedData:
    """Plan the corpus (or continue its plan with what was added) and load a tokenizer if there is one.

    Args:
        resumed: the run to go on with; its checkpoint's tokenizer is then the tokenizer.
        is_fresh: plan anew, for a forced rebuild; the plan that is there holds until the rebuilt store is in place.
        may_rescan: continue a plan that is there with what was added to the sources; else take it as it is.

    Raises:
        DataError, IntegrityError, StorageError: from the sources and the plan.
    """
    if is_remote(config.cache.dir):
        return _scan_remote(config, bus)
    corpus = open_sources(config)
    file = PlanFile(corpus, config)
    if world.is_main:
        plan = file.fresh(bus) if is_fresh else file.continued(bus, may_rescan=may_rescan)
        world.wait_patiently()
    else:
        world.wait_patiently()
        plan = file.read() or make_plan(corpus)
    train_bytes = train_bytes_of(plan, corpus.settings.validation_fraction)
    if resumed is None and world.is_main:  # a resumed run has its shape, and the other ranks take that of the first
        train_bytes = int(text_share(corpus, plan) * train_bytes)
    return ScannedData(corpus, plan, train_bytes, _known_tokenizer(config, resumed, bus))


def _scan_remote(config: Config, bus: EventBus) -> ScannedData:
    """The dataset of a remote cache; it was scanned where it was built."""
    remote = open_remote_dataset(config.cache)
    bus.publish(Notice(message=f"reading {remote.store.settings.dataset} from {remote.cache.remote.url}; data.sources are not read"))
    fraction = 0.0 if config.data.validation_sources else config.data.validation_fraction
    corpus = Corpus(remote.name, (), CorpusSettings(), remote.store.settings.fingerprint)
    return ScannedData(corpus, remote.plan, train_bytes_of(remote.plan, fraction), remote.tokenizer, remote)


def _known_tokenizer(config: Config, resumed: RunLayout | None, bus: EventBus) -> Tokenizer | None:
    latest = None if resumed is None else resumed.checkpoints / "latest"
    if latest is not None and (latest / "tokenizer.json").is_file():
        of_run = load_tokenizer(latest)
        _refuse_another_tokenizer(of_run, config.tokenizer.path)
        return of_run
    if config.tokenizer.path is not None:
        return load_tokenizer(config.tokenizer.path)
    if config.model.init_from is not None:
        return load_tokenizer(locate_model(config.model.init_from))
    prepared = prepared_tokenizer([entry.uri for entry in configured_sources(config.data)]) if config.data.dataset_name is None else None
    if prepared is None or config.tokenizer.vocab_size is not None:
        return None
    bus.publish(Notice(message=f"using the tokenizer that {prepared} was prepared with"))
    return load_tokenizer(prepared)


def _refuse_another_tokenizer(of_run: Tokenizer, path: str | None) -> None:
    """Raise IntegrityError when the configuration names another than the run's; one that is no longer there is not missed."""
    if path is None:
        return
    try:
        named = load_tokenizer(path)
    except ConfigError:
        return
    if named.fingerprint != of_run.fingerprint:
        raise IntegrityError(
            f"the run cannot be resumed with another tokenizer ({of_run.fingerprint[:8]} -> {named.fingerprint[:8]})",
            where=path,
            remedy="name the run's own or none, or use another --output-dir for a new one",
        )


def pack_data(
    scanned: ScannedData, config: Config, bus: EventBus, world: World, stop: StopFlag,
    *, vocab_size: int, sequence_length: int, held_out_slices: list[int] | None = None,
) -> PreparedData:  # fmt: skip
    """Train the tokenizer where there is none, and build what is missing of the cache.

    With ``cache.growth: live`` the chunks that are there are enough, and building is left to others.

    Args:
        held_out_slices: those that a resumed run is judged by; None: all that are there.

    Raises:
        StoppedEarly: a signal came; what was built stays.
        DataError: no training rows.
        IntegrityError: the cache under this name holds other data.
        LockedError: another process builds it.
    """
    if not world.is_main:
        world.wait_patiently()
    if scanned.remote is not None:
        return _open_remote(scanned, scanned.remote, config, world, sequence_length, held_out_slices)
    tokenizer, directory = load_or_train_tokenizer(scanned, config, bus, vocab_size=vocab_size)
    identity = make_identity(
        config.cache.name or scanned.name,
        sources=scanned.corpus.fingerprint,
        tokenizer=tokenizer.fingerprint,
        cleaning=clean_reading(config.data).identity(),
        is_explicit=config.cache.name is not None,
    )
    cache = Path(config.cache.dir)
    if world.is_main:
        build = functools.partial(build_cache, scanned, config, tokenizer, directory, identity, bus, stop)
        if config.cache.growth == "live":
            wait_for_chunks(store_directory(cache, identity), build, bus, stop)
        else:
            build()
        store = ChunkStore.open(store_directory(cache, identity))
        view = build_view(cache, store, sequence_length, config.cache.packing_strategy, check_content=False)
        update_registry(cache)
        world.wait_patiently()
    else:
        store = ChunkStore.open(store_directory(cache, identity))
        settings = ViewSettings(identity.name, identity.fingerprint, tokenizer.fingerprint, sequence_length, config.cache.packing_strategy)
        view = PackedView.open(view_directory(cache, settings))
    return _prepared(scanned, config, world, tokenizer, store, view, held_out_slices)


def _open_remote(
    scanned: ScannedData, remote: RemoteDataset, config: Config, world: World, sequence_length: int, held_out_slices: list[int] | None
) -> PreparedData:
    view = remote.view(sequence_length, config.cache.packing_strategy, may_build=world.is_main)
    if world.is_main:
        world.wait_patiently()
    return _prepared(scanned, config, world, remote.tokenizer, remote.store, view, held_out_slices)


def _prepared(
    scanned: ScannedData, config: Config, world: World, tokenizer: Tokenizer, store: ChunkStore, view: PackedView,
    held_out_slices: list[int] | None,
) -> PreparedData:  # fmt: skip
    if config.cache.validation:
        _verify(store)
    if held_out_slices is None:
        held_out_slices = [number for number in range(store.validation_slices) if number in store.records[HELD_OUT]]
    agreed = world.broadcast(held_out_slices)
    assert isinstance(agreed, list)
    return PreparedData(
        name=store.settings.dataset,
        tokenizer=tokenizer,
        store=store,
        view=view,
        held_out=_held_out(store, agreed, source_names(config.data)),
        token_bytes=bytes_of_tokens(tokenizer),
        train_bytes=sum(record.text_bytes for record in store.records[TRAIN].values()) or scanned.train_bytes,
        held_out_slices=agreed,
        mixture=mixture_of(config.data),
        source_names=source_names(config.data),
    )


def build_cache(
    scanned: ScannedData, config: Config, tokenizer: Tokenizer, directory: Path, identity: Identity, bus: EventBus, stop: StopFlag,
    *, mode: str = "normal", max_chunks: int | None = None,
) -> Any:  # fmt: skip
    """Build the chunks of a store that are missing, at most ``max_chunks``; see cache/build.py for the modes and what is raised."""
    directory_of_store = store_directory(Path(config.cache.dir), identity)
    settings = StoreSettings(
        dataset=identity.name,
        fingerprint=identity.fingerprint,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        separator_id=tokenizer.separator_id,
        compression=config.cache.compression or recorded_compression(directory_of_store) or DEFAULT_COMPRESSION,
    )
    file = PlanFile(scanned.corpus, config)
    if mode == "force_rebuild":
        plan = scanned.plan
        file.keep_beside(plan, identity.name)
    else:
        plan = _newest(scanned, file)
    total = plan.num_bytes

    def report(progress: BuildProgress) -> None:
        bus.publish(Progress(task="Tokenise and pack", done=progress.done_chunks, total=progress.due_chunks, unit="chunks"))

    engine = config.data.engine
    workers = config.cache.workers if engine == "ray" else _local_workers(config.cache.workers, total, len(plan.slices))
    encoder = tokenizer if engine == "local" and workers == 1 else directory
    open_source = functools.partial(_open_for_build, scanned.corpus, plan, encoder, clean_reading(config.data))
    result = build_store(
        directory_of_store,
        settings,
        plain_slices(plan),
        open_source,
        mode=mode,
        max_chunks=max_chunks,
        workers=workers,
        # What can only be read forward would be read once by each.
        threads=min(BUILDER_THREADS, usable_cores()) if all(file.is_seekable for file in scanned.corpus.files) else 1,
        engine=engine,
        progress=report,
        notify=lambda line: bus.publish(Notice(message=f"building the cache with {line}")),
        should_stop=lambda: bool(stop),
    )
    if mode == "force_rebuild" and result.is_complete:
        crash_point("cache.before_plan")
        file.put_in_place(identity.name)
    for problem in result.damaged:
        bus.publish(Notice(message=f"rebuilt a damaged chunk: {problem.reason}", level="warning"))
    tell_left_out(result.left_out, bus)
    first = next((entry.first_replaced for entry in result.left_out if entry.first_replaced), None)
    tell_replaced(sum(entry.num_replaced for entry in result.left_out), first, scanned.corpus, bus)
    if not result.is_complete and stop:
        raise StoppedEarly(f"stopped by {stop.reason} while packing", remedy="the same command builds on from here")
    require_few_bad(ChunkStore.open(directory_of_store), config.data)
    return result


def _newest(scanned: ScannedData, file: PlanFile) -> Plan:
    """The plan as it is now: another command may have continued it since the scan, and built what it added."""
    found = file.read()
    known = scanned.plan.slices
    return found if found is not None and found.slices[: len(known)] == known else scanned.plan


def _local_workers(wanted: int, num_bytes: int, num_slices: int) -> int:
    are_worth_it = num_bytes > BYTES_WORTH_A_PROCESS and usable_cores() > BUILDER_THREADS
    return min(wanted or (usable_cores() if are_worth_it else 1), max(1, num_slices))


def _open_for_build(corpus: Corpus, plan: Plan, tokenizer: Tokenizer | Path, cleaning: CleanReading) -> tuple[Any, Tokenizer]:
    """What one builder reads and encodes with; another process gets the tokenizer as a directory."""
    encoder = tokenizer if isinstance(tokenizer, Tokenizer) else load_tokenizer(tokenizer)
    return cleaning.of_slices(SliceReader(corpus, plan)), encoder


def load_or_train_tokenizer(
    scanned: ScannedData, config: Config, bus: EventBus, *, vocab_size: int, may_train: bool = True
) -> tuple[Tokenizer, Path]:
    """The tokenizer and a directory that holds it, for builder processes.

    Raises:
        IntegrityError: there is none yet and none may be trained.
    """
    folder = Path(config.cache.dir) / TOKENIZERS_DIRECTORY
    if scanned.tokenizer is not None:
        directory = folder / scanned.tokenizer.fingerprint[:16]
        if not (directory / "tokenizer.json").exists():
            scanned.tokenizer.save(directory)
        return scanned.tokenizer, directory
    settings = config.tokenizer
    # The key names the sources and settings, not the content: growth never trains the tokenizer again.
    cleaning = clean_reading(config.data)
    key = digest([scanned.corpus.fingerprint, vocab_size, settings.min_frequency, settings.max_training_bytes, *cleaning.identity()])
    directory = folder / f"{scanned.name}-{vocab_size}-{key[:8]}"
    if not (directory / "tokenizer.json").exists():
        if not may_train:
            raise IntegrityError("there is no cache of these sources and settings", where=config.cache.dir, remedy="build it first")
        reader = SliceReader(scanned.corpus, scanned.plan)
        total = min(scanned.train_bytes, scanned.plan.num_bytes)
        trained = train_tokenizer(
            (document.text for document in cleaning.opened()(reader.documents(TRAIN))),
            vocab_size,
            min_frequency=settings.min_frequency,
            max_training_bytes=settings.max_training_bytes,
            # Asked for, a size is a promise; chosen by the dial, it is a wish.
            allow_smaller=settings.vocab_size is None,
            progress=lambda done, _: bus.publish(Progress(task="Train tokenizer", done=min(done, total - 1), total=total, unit="bytes")),
        )
        reader.close()
        bus.publish(Progress(task="Train tokenizer", done=total, total=total, unit="bytes"))
        trained.save(directory)
    return load_tokenizer(directory), directory


def _verify(store: ChunkStore) -> None:
    problems = store.problems(hashes=True)
    if problems:
        store.read(problems[0].split, problems[0].number)  # raises, naming file and hashes


def bytes_of_tokens(tokenizer: Tokenizer) -> np.ndarray | None:
    """Text bytes of every id, int64 [V]; the separator has none. None when tokens are not made of bytes."""
    if not tokenizer.definition.is_byte_level:
        return None
    sizes = np.array([len(tokenizer.token_text(token)) for token in range(tokenizer.vocab_size)], dtype=np.int64)
    sizes[tokenizer.separator_id] = 0
    return sizes


def read_texts(corpus: Corpus) -> Iterator[str]:
    """The texts to score: test documents when names say so, else validation documents, else all."""
    plan = make_plan(corpus)
    named = {piece.split for piece in plan.slices}
    wanted = next((split for split in (TEST, VALIDATION) if split in named), None)
    reader = SliceReader(corpus, plan)
    try:
        yield from (document.text for document in reader.documents(wanted))
    finally:
        reader.close()


def held_out_of_run(checkpoint: Path, tokenizer: Tokenizer) -> Documents:
    """The frozen validation documents of the run that a checkpoint belongs to.

    Raises:
        DataError: the path is not a checkpoint inside a run directory.
        IntegrityError: the run's cache was built with another tokenizer, or is damaged.
    """
    run = RunLayout(checkpoint.resolve().parent.parent)
    if not (run.config.is_file() and (checkpoint / STATE_FILE).is_file()):
        raise DataError("no text to score was given, and the model does not lie in a run", remedy="give --test-data")
    dataset = str(read_json(checkpoint / STATE_FILE)["facts"]["dataset"])
    config = load_config([str(run.config)]).config
    store = open_dataset(config.cache, dataset)
    store.require_tokenizer(tokenizer.fingerprint)
    return _held_out(store, recorded_start(run).get("held_out_slices"), source_names(config.data))


def _held_out(store: ChunkStore, slices: Sequence[int] | None, names: Sequence[str]) -> Documents:
    """Held-out documents of these slices (None: of all), and where there are several sources, which one each is of."""
    slices = range(store.validation_slices) if slices is None else slices
    tokens, offsets = held_out_documents(store, slices)
    of_slice = source_of_slice(store)
    if len(names) < 2 or max(of_slice.values(), default=0) >= len(names):  # a published cache knows no names
        return Documents(tokens, offsets)
    counts = [store.records[HELD_OUT][number].num_documents for number in slices]
    return Documents(tokens, offsets, np.repeat([of_slice[number] for number in slices], counts).astype(np.int64), tuple(names))


def describe_store(store: ChunkStore, view: PackedView | None) -> Sequence[str]:
    """Sizes and shares of a cache, for people; without a view, of the tokens alone."""
    totals = store.totals()[TRAIN]
    tokens = (
        f"{store.settings.dataset}: {plural(totals['num_chunks'], 'chunk')}, {plural(totals['num_documents'], 'document')}, "
        f"{totals['num_tokens']:,} tokens",
        f"on disk {totals['num_bytes']:,} bytes, {totals['num_bytes'] / max(1, totals['num_tokens']):.2f} bytes per token "
        f"({store.settings.compression})",
    )
    if counts := counts_left_out(store.left_out.values()):
        tokens = (*tokens, f"left out: {counts}")
    if num_replaced := sum(entry.num_replaced for entry in store.left_out.values()):
        tokens = (*tokens, f"read with U+FFFD for bytes that are no UTF-8: {plural(num_replaced, 'document')}")
    if view is None:
        return tokens
    stats = view.stats
    return (
        *tokens,
        f"rows of {view.settings.sequence_length}: {stats.num_rows:,} ({view.settings.strategy}), "
        f"{stats.padding_fraction:.2%} padding, {stats.cut_fraction:.2%} of documents cut{_dropped_tokens(stats)}",
    )


def _dropped_tokens(stats: PackingStats) -> str:
    if not stats.num_dropped_tokens:
        return ""
    share = stats.num_dropped_tokens / max(1, stats.num_tokens + stats.num_dropped_tokens)
    return f", {stats.num_dropped_tokens:,} tokens ({share:.1%}) left out of the rows"
