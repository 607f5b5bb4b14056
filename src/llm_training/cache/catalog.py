"""Which data sets a cache directory holds: their names, and one registry file over all stores and views.

A dataset's directory is ``<name>-<first 8 digits of its fingerprint>``, so that the same name with other sources, tokenizer
or cleaning is another directory. Somebody who gives the name in full takes it as it is, and then other content under
that name is refused. The registry is a convenience derived from the stores: losing it loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_training.cache.sealed import digest, read_sealed, sealed_bytes, write_sealed
from llm_training.cache.store import METADATA_NAME, ChunkStore
from llm_training.cache.swap import directories_with
from llm_training.cache.view import VIEWS_DIRECTORY, PackedView
from llm_training.errors import IntegrityError, LockedError
from llm_training.storage.durable import make_directory
from llm_training.storage.locks import FileLock
from llm_training.storage.runs import safe_name

REGISTRY_NAME = "cache_registry.json"
STORES_DIRECTORY = "store"
_KIND, _VERSION = "llm-training cache registry", 1
_LOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Identity:
    """Directory name of a dataset, and sha256 of what it is made from."""

    name: str
    fingerprint: str


def make_identity(name: str, *, sources: Any, tokenizer: str, cleaning: Any, is_explicit: bool = False) -> Identity:
    """The identity of a dataset.

    Args:
        name: short name of the sources, or with ``is_explicit`` the directory name a person chose.
        sources: JSON-able description of the sources: what they are called and how they are split, not what they hold now,
            so that a source that grows keeps its cache. (Edited content is found by the plan.)
        tokenizer: fingerprint.
        cleaning: JSON-able settings that change documents.
    """
    fingerprint = digest({"sources": sources, "tokenizer": tokenizer, "cleaning": cleaning})
    return Identity(safe_name(name) if is_explicit else f"{safe_name(name)}-{fingerprint[:8]}", fingerprint)


def store_directory(cache_directory: Path, identity: Identity) -> Path:
    """Where the token store of a dataset lies."""
    return cache_directory / STORES_DIRECTORY / identity.name


def scan(cache_directory: Path) -> dict[str, Any]:
    """Every store and view of a cache directory by name, from their own metadata; what cannot be read is listed as such."""
    stores = {path.name: _summary(path, _store_entry) for path in directories_with(cache_directory / STORES_DIRECTORY, METADATA_NAME)}
    views: dict[str, dict[str, Any]] = {}
    for length in sorted((cache_directory / VIEWS_DIRECTORY).glob("[0-9]*")):
        found = {path.name: _summary(path, _view_entry) for path in directories_with(length, METADATA_NAME)}
        if found:
            views[length.name] = found
    return {"datasets": stores, "packed_sequences": views}


def _summary(path: Path, entry: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return entry(path)
    except IntegrityError as error:
        return {"damaged": error.what}


def _store_entry(path: Path) -> Mapping[str, Any]:
    store = ChunkStore.open(path)
    return {**asdict(store.settings), "num_slices": len(store.plan), "totals": store.totals()}


def _view_entry(path: Path) -> Mapping[str, Any]:
    view = PackedView.open(path)
    stats = view.stats
    return {
        "dataset": view.settings.dataset,
        "strategy": view.settings.strategy,
        "num_chunks": len(view.records),
        "num_sequences": stats.num_rows,
        "num_tokens": stats.num_tokens,
        "padding_fraction": round(stats.padding_fraction, 6),
        "cut_fraction": round(stats.cut_fraction, 6),
    }


def update_registry(cache_directory: Path) -> dict[str, Any]:
    """Write `scan` to ``cache_registry.json`` and return it. Call it after a build.

    Raises:
        LockedError: other builds kept the registry locked for 20 seconds.
        StorageError: the disk refuses.
    """
    make_directory(cache_directory)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            with FileLock(cache_directory / f".{REGISTRY_NAME}.lock", what="the cache registry"):
                content = scan(cache_directory)
                write_sealed(cache_directory / REGISTRY_NAME, {"kind": _KIND, "version": _VERSION, **content})
                return content
        except LockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def read_registry(cache_directory: Path) -> dict[str, Any]:
    """The registry as it was last written. Raises IntegrityError when it is damaged, StorageError when there is none."""
    return read_sealed(cache_directory / REGISTRY_NAME, _KIND, _VERSION)


def extended_registry(registry: Mapping[str, Any], cache_directory: Path, dataset: str) -> bytes:
    """The registry file of another place that also holds ``dataset`` of this cache directory, with all its views."""
    mine = scan(cache_directory)
    views: dict[str, dict[str, Any]] = {length: dict(found) for length, found in registry.get("packed_sequences", {}).items()}
    for length, found in mine["packed_sequences"].items():
        views.setdefault(length, {}).update({name: entry for name, entry in found.items() if entry.get("dataset") == dataset})
    datasets = {**registry.get("datasets", {}), dataset: mine["datasets"][dataset]}
    content = {"datasets": datasets, "packed_sequences": {length: found for length, found in views.items() if found}}
    return sealed_bytes({"kind": _KIND, "version": _VERSION, **content})
