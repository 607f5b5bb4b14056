"""Data from a remote cache (``cache.dir: s3://...``): what a run needs of it, and the publication of a local one.

The published dataset says what the data are: neither sources nor a tokenizer have to be here. Row plans of a length or
strategy that was not published are made here, beside the copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_training.cache.catalog import Identity, store_directory
from llm_training.cache.publish import Published, publish
from llm_training.cache.remote_cache import RemoteCache
from llm_training.cache.remote_copy import RemoteCopy
from llm_training.cache.row_plan import ViewSettings
from llm_training.cache.sealed import read_sealed, sealed_bytes
from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.cache.view import PackedView, build_view, view_directory
from llm_training.config.cache import CacheConfig
from llm_training.corpus import Plan
from llm_training.errors import ConfigError
from llm_training.storage.durable import make_directory
from llm_training.storage.home import expanded
from llm_training.storage.remote import RemoteFolder, is_remote
from llm_training.tokenizer.tokenizer import Tokenizer, load_tokenizer

PLAN_KIND, PLAN_VERSION = "llm-training corpus plan", 1
_PLANS, _TOKENIZERS = "plans", "tokenizers"
_OWN_VIEWS = "own"


@dataclass(frozen=True)
class RemoteDataset:
    """A dataset of a remote cache, opened."""

    cache: RemoteCache
    store: ChunkStore
    tokenizer: Tokenizer
    plan: Plan

    @property
    def name(self) -> str:
        """Short name, as the sources gave it where the dataset was built."""
        head, _, tail = self.store.settings.dataset.rpartition("-")
        return head if head and tail == self.store.settings.fingerprint[:8] else self.store.settings.dataset

    def view(self, sequence_length: int, strategy: str, *, may_build: bool = True) -> PackedView:
        """Row plans: published ones, else those made here from the chunks (each of which is then fetched once).

        Args:
            may_build: False for a process that leaves the making to another one.
        """
        settings = _view_settings(self.store, sequence_length, strategy)
        published = self.cache.open_view(settings)
        if published is not None and published.records.keys() == self.store.records[TRAIN].keys():
            return published
        own = self.cache.directory / _OWN_VIEWS
        return build_view(own, self.store, sequence_length, strategy) if may_build else PackedView.open(view_directory(own, settings))

    def published_view(self, sequence_length: int | None, strategy: str) -> PackedView | None:
        """The published view of this length, if there is one."""
        return None if sequence_length is None else self.cache.open_view(_view_settings(self.store, sequence_length, strategy))


def open_remote_cache(config: CacheConfig) -> RemoteCache:
    """The remote cache of the configuration and its local copy. Raises ConfigError, StorageError."""
    remote = RemoteFolder(config.dir)
    if config.growth == "live":
        raise ConfigError("cache.growth: live needs a local cache", where=remote.url, remedy="use growth: resume")
    place = expanded(config.local_copy_dir) / hashlib.sha256(remote.url.encode()).hexdigest()[:16]
    make_directory(place)
    return RemoteCache(RemoteCopy(remote, place, config.local_copy_bytes))


def open_remote_dataset(config: CacheConfig) -> RemoteDataset:
    """The dataset named ``cache.name``, or the only one there.

    Raises:
        ConfigError: several datasets and no name.
        IntegrityError: an index or the tokenizer is damaged.
        StorageError: the folder cannot be reached, or has no dataset.
    """
    cache = open_remote_cache(config)
    names = [config.name] if config.name else cache.datasets()
    if len(names) > 1:
        raise ConfigError(
            f"{len(names)} datasets are published here", where=cache.remote.url, remedy=f"set cache.name to one of {', '.join(names)}"
        )
    store = cache.open_store(names[0] if names else "")
    folder = f"{_TOKENIZERS}/{store.settings.tokenizer[:16]}"
    for name in cache.remote.sizes(folder):
        cache.fetch(name)
    tokenizer = load_tokenizer(cache.directory / folder)
    store.require_tokenizer(tokenizer.fingerprint)
    plan = read_sealed(cache.fetch(f"{_PLANS}/{store.settings.dataset}.json"), PLAN_KIND, PLAN_VERSION)
    return RemoteDataset(cache, store, tokenizer, Plan.from_json(plan["plan"]))


def open_dataset(config: CacheConfig, dataset: str) -> ChunkStore:
    """The store of a dataset by its full name, in a local or a remote cache. Raises IntegrityError, StorageError."""
    if is_remote(config.dir):
        return open_remote_cache(config).open_store(dataset)
    return ChunkStore.open(store_directory(Path(config.dir), Identity(dataset, "")))


def open_view(config: CacheConfig, store: ChunkStore, sequence_length: int) -> PackedView:
    """The view of a run over such a store. Raises IntegrityError, StorageError."""
    settings = _view_settings(store, sequence_length, config.packing_strategy)
    if not is_remote(config.dir):
        return PackedView.open(view_directory(Path(config.dir), settings))
    cache = open_remote_cache(config)
    return cache.open_view(settings) or PackedView.open(view_directory(cache.directory / _OWN_VIEWS, settings))


def publish_dataset(
    config: CacheConfig,
    store: ChunkStore,
    views: list[PackedView],
    tokenizer: Tokenizer,
    plan: Plan,
    url: str,
    progress: Callable[[int, int], None],
) -> Published:
    """Send a built dataset with its tokenizer and plan to a remote folder.

    Raises:
        ConfigError: the address is not a remote one.
        IntegrityError: a local file is damaged, or other data lie there under this name.
        StorageError: the folder cannot be written.
    """
    if not is_remote(url):
        raise ConfigError(f"{url} is not a remote folder", where="--publish", remedy="give an address such as s3://bucket/prefix")
    folder = f"{_TOKENIZERS}/{tokenizer.fingerprint[:16]}"
    extras = {f"{folder}/{name}": content for name, content in tokenizer.files().items()}
    sealed = sealed_bytes({"kind": PLAN_KIND, "version": PLAN_VERSION, "plan": plan.to_json()})
    extras[f"{_PLANS}/{store.settings.dataset}.json"] = sealed
    return publish(Path(config.dir), store, views, RemoteFolder(url), extras, progress=progress)


def _view_settings(store: ChunkStore, sequence_length: int, strategy: str) -> ViewSettings:
    settings = store.settings
    return ViewSettings(settings.dataset, settings.fingerprint, settings.tokenizer, sequence_length, strategy)
