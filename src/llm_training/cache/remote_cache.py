"""A cache in a remote folder, opened for reading: its indexes are fetched each time, its chunks when they are needed."""

from __future__ import annotations

from pathlib import Path

from llm_training.cache.catalog import STORES_DIRECTORY
from llm_training.cache.remote_copy import RemoteCopy
from llm_training.cache.row_plan import ViewSettings
from llm_training.cache.store import METADATA_NAME, PLAN_NAME, ChunkStore
from llm_training.cache.view import PackedView, view_directory
from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.durable import make_directory, write_bytes
from llm_training.storage.links import is_plain_name

MAX_INDEX_BYTES = 1 << 31


class RemoteCache:
    """Stores and views of a remote folder, by way of its local copy.

    Raises StorageError whenever the folder cannot be reached.
    """

    def __init__(self, copy: RemoteCopy) -> None:
        self.copy = copy
        self.remote = copy.remote
        self.directory = copy.directory

    def datasets(self) -> list[str]:
        """Names of the datasets that are published here."""
        parts = [name.split("/") for name in self.remote.sizes(STORES_DIRECTORY)]
        return sorted(part[1] for part in parts if len(part) == 3 and part[2] == METADATA_NAME)

    def fetch(self, name: str) -> Path:
        """Fetch a small file as it is now; returns its place in the copy. Raises StorageError, IntegrityError for a name that leaves it."""
        if not all(map(is_plain_name, name.split("/"))):
            raise IntegrityError(f"the published name {name!r} leads out of the cache", where=self.remote.url, remedy="publish it again")
        path = self.directory / name
        data = self.remote.read(name, max_bytes=MAX_INDEX_BYTES)
        make_directory(path.parent)
        write_bytes(path, data)
        return path

    def open_store(self, dataset: str) -> ChunkStore:
        """A published store. Raises StorageError when there is none, IntegrityError when its indexes are damaged."""
        folder = f"{STORES_DIRECTORY}/{dataset}"
        if f"{folder}/{METADATA_NAME}" not in self.copy.list_folder(folder):
            known = ", ".join(self.datasets()) or "none"
            where = self.remote.where(folder)
            raise StorageError(f"no such dataset is published (there are: {known})", where=where, remedy="set cache.name to one of them")
        # The metadata before the plan: a publisher that adds chunks writes them the other way round.
        metadata = self.fetch(f"{folder}/{METADATA_NAME}")
        self.fetch(f"{folder}/{PLAN_NAME}")
        return ChunkStore.open(metadata.parent, self.copy)

    def open_view(self, settings: ViewSettings) -> PackedView | None:
        """A published view; None when there is none of this length and strategy."""
        directory = view_directory(self.directory, settings)
        folder = directory.relative_to(self.directory).as_posix()
        if f"{folder}/{METADATA_NAME}" not in self.copy.list_folder(folder):
            return None
        return PackedView.open(self.fetch(f"{folder}/{METADATA_NAME}").parent, self.copy)
