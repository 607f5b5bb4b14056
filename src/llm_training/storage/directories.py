"""Directory artefacts: built hidden, sealed with a manifest, verified, then renamed into sight.

Files go straight to their names inside the hidden directory, since nobody can see them there; what makes the artefact
appear is one rename, after everything in it is on the disk. A process that dies before it leaves only a hidden
directory, which `remove_leftovers` of the next writer takes away.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_training.errors import StorageError
from llm_training.storage.durable import (
    TEMPORARY_PREFIX,
    DurableFile,
    make_directory,
    remove_tree,
    rename,
    sync_directory,
    temporary_beside,
)
from llm_training.storage.filesystem import filesystem
from llm_training.storage.hashing import FileRecord
from llm_training.storage.manifest import Manifest, check_name, verify, write_new_manifest
from llm_training.storage.oserrors import storage_errors

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class DirectoryBuilder:
    """A directory under construction; made by `new_directory`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = temporary_beside(target)
        self._files: dict[str, FileRecord] = {}
        self._directories: list[Path] = [self.path]
        with storage_errors("make a directory", self.path):
            filesystem().mkdir(self.path, 0o700)

    @contextmanager
    def write_stream(self, name: str, *, expected_bytes: int = 0) -> Generator[DurableFile]:
        """A sink for the file ``name`` (relative, ``/`` between parts), synced and hashed when the block ends. Raises StorageError."""
        path = self.path / check_name(name)
        self._make_parents(path)
        sink = DurableFile(path, expected_bytes=expected_bytes)
        try:
            yield sink
            self._files[name] = sink.finish()
        finally:
            with suppress(StorageError):  # an error here hides none: it was raised by `finish` or by the block
                sink.abandon()

    def write_bytes(self, name: str, data: ReadableBuffer) -> FileRecord:
        """Add the file ``name`` with this content. Raises StorageError."""
        with self.write_stream(name, expected_bytes=memoryview(data).nbytes) as sink:
            sink.write(data)
        return sink.record

    def _make_parents(self, path: Path) -> None:
        for parent in reversed(path.relative_to(self.path).parents[:-1]):
            place = self.path / parent
            if place not in self._directories:
                with storage_errors("make a directory", place):
                    filesystem().mkdir(place, 0o700)
                self._directories.append(place)

    def seal(self, extra: Mapping[str, Any]) -> Manifest:
        """Put everything on the disk, write the manifest last, and verify its shape and sizes. Raises StorageError, IntegrityError.

        The hashes were compared when each file was finished; reading all of it once more would find nothing new.
        """
        for directory in reversed(self._directories):
            sync_directory(directory)
        write_new_manifest(self.path, Manifest(files=dict(self._files), extra=dict(extra)))
        sync_directory(self.path)
        return verify(self.path, hashes=False)

    def publish(self) -> None:
        """Rename to the final name, which must be free. Raises StorageError."""
        rename(self.path, self.target)


@contextmanager
def new_directory(target: Path) -> Generator[DirectoryBuilder]:
    """Build a directory artefact; the block fills it, then calls `seal` and `publish`.

    When the block raises, or ends without `publish`, nothing is left under any name. Raises StorageError.
    """
    make_directory(target.parent)
    builder = DirectoryBuilder(target)
    try:
        yield builder
    finally:
        if builder.path.exists():
            with suppress(StorageError):  # what cannot be removed now, the next writer removes
                remove_tree(builder.path)


def remove_leftovers(directory: Path, *, prefix: str = TEMPORARY_PREFIX) -> list[str]:
    """Remove what dead writers left in ``directory`` under hidden names that start with ``prefix``; returns the names.

    Only for the one process that may write there (it holds the lock of the run or cache). Raises StorageError.
    """
    with storage_errors("list a directory", directory):
        leftovers = sorted(entry for entry in directory.iterdir() if entry.name.startswith(prefix)) if directory.is_dir() else []
    for leftover in leftovers:
        remove_tree(leftover)
    return [leftover.name for leftover in leftovers]
