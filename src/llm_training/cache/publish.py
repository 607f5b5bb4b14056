"""Putting a built dataset into a remote folder: chunks and row plans first, what vouches for them last.

A reader sees the metadata of before or of after, and either describes objects that are there: what is published is the store
as it was opened, whatever a builder adds meanwhile. What the remote metadata
already vouches for with the same hash is not sent again. Nothing is ever removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_training.cache.arrow_file import check_bytes
from llm_training.cache.catalog import REGISTRY_NAME, STORES_DIRECTORY, extended_registry, read_registry
from llm_training.cache.remote_cache import MAX_INDEX_BYTES, RemoteCache
from llm_training.cache.remote_copy import RemoteCopy
from llm_training.cache.store import METADATA_NAME, PLAN_NAME, TRAIN, ChunkStore
from llm_training.cache.view import PackedView
from llm_training.errors import IntegrityError
from llm_training.storage.durable import write_bytes
from llm_training.storage.reading import read_bytes
from llm_training.storage.remote import RemoteFolder


@dataclass(frozen=True)
class Published:
    """What a publication sent: files and bytes, and how many files were there already."""

    num_sent: int
    sent_bytes: int
    num_kept: int


# Local path, size and hash of a file, by its name in the cache.
_Files = dict[str, tuple[Path, int, str]]


def publish(
    cache_directory: Path,
    store: ChunkStore,
    views: Sequence[PackedView],
    remote: RemoteFolder,
    extras: Mapping[str, bytes],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Published:
    """Send a store and its views.

    Args:
        cache_directory: holds both; names in the remote folder are relative to it.
        store, views: whole; each file is hashed as it is read.
        extras: further objects by name, sent before the metadata.
        progress: called with files done and files due.

    Raises:
        IntegrityError: a local file is damaged, or the remote folder holds other data under this name.
        StorageError: reading or writing failed; what the remote metadata described before is still there.
    """
    views = [view.over(store.records[TRAIN]) for view in views]
    # Made from the same records as the list of files, and not read from the disk, where a builder may have recorded more since.
    indexes = {view.directory / METADATA_NAME: view.metadata_bytes() for view in views}
    indexes |= {store.directory / PLAN_NAME: store.plan_bytes(), store.directory / METADATA_NAME: store.metadata_bytes()}
    files = _files(cache_directory, store, views)
    there = _published(remote, store, views)
    due = [name for name, (_, num_bytes, sha256) in files.items() if there.get(name) != (num_bytes, sha256)]
    for done, name in enumerate(due, 1):
        path, num_bytes, sha256 = files[name]
        data = read_bytes(path, max_bytes=num_bytes)
        check_bytes(data, num_bytes, sha256, str(path))
        remote.write(name, data)
        if progress is not None:
            progress(done, len(due))
    for name, data in extras.items():
        remote.write(name, data)
    for path, data in indexes.items():
        remote.write(path.relative_to(cache_directory).as_posix(), data)
    _extend_registry(cache_directory, store, remote)
    return Published(len(due), sum(files[name][1] for name in due), len(files) - len(due))


def _files(cache_directory: Path, store: ChunkStore, views: Sequence[PackedView]) -> _Files:
    found = [
        (store.path(split, number), record.num_bytes, record.sha256)
        for split, records in store.records.items()
        for number, record in sorted(records.items())
    ]
    found += [(view.path(number), record.num_bytes, record.sha256) for view in views for number, record in sorted(view.records.items())]
    return {entry[0].relative_to(cache_directory).as_posix(): entry for entry in found}


def _published(remote: RemoteFolder, store: ChunkStore, views: Sequence[PackedView]) -> dict[str, tuple[int, str]]:
    """Size and hash of what lies in the remote folder and is vouched for there. Raises IntegrityError for another dataset."""
    if f"{STORES_DIRECTORY}/{store.directory.name}/{METADATA_NAME}" not in remote.sizes(f"{STORES_DIRECTORY}/{store.directory.name}"):
        return {}
    with tempfile.TemporaryDirectory(prefix="llm-training-publish-") as name:
        place = Path(name)
        cache = RemoteCache(RemoteCopy(remote, place, 0))
        other = cache.open_store(store.directory.name)
        if (other.settings.fingerprint, other.settings.tokenizer) != (store.settings.fingerprint, store.settings.tokenizer):
            what = f"the remote folder holds other data as {store.settings.dataset}"
            raise IntegrityError(what, where=remote.url, remedy="choose another cache name, or another folder")
        opened = [view for view in (cache.open_view(view.settings) for view in views) if view is not None]
        files = _files(place, other, opened)
        return {name: (num_bytes, sha256) for name, (path, num_bytes, sha256) in files.items() if cache.copy.size(path) == num_bytes}


def _extend_registry(cache_directory: Path, store: ChunkStore, remote: RemoteFolder) -> None:
    """Enter the dataset into the remote registry. That is derived: two publications at once may lose an entry, but no data."""
    before: Mapping[str, Any] = {}
    if REGISTRY_NAME in remote.sizes(""):
        with tempfile.TemporaryDirectory(prefix="llm-training-publish-") as name:
            write_bytes(Path(name) / REGISTRY_NAME, remote.read(REGISTRY_NAME, max_bytes=MAX_INDEX_BYTES))
            with suppress(IntegrityError):  # a damaged registry is replaced by what is known here
                before = read_registry(Path(name))
    remote.write(REGISTRY_NAME, extended_registry(before, cache_directory, store.directory.name))
