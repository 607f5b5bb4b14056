"""How a store and its views get at their files: from the local disk, or (see `remote_copy`) from a copy of a remote cache."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from llm_training.storage.reading import read_bytes


class CacheFiles(Protocol):
    """Files by their local path."""

    def size(self, path: Path) -> int | None:
        """Bytes of a file; None when there is none."""
        ...

    def read(self, path: Path, num_bytes: int, sha256: str) -> bytes:
        """Its content, no more than ``num_bytes``. The caller checks size and hash; both are told for those who fetch it.

        Raises:
            IntegrityError: it is larger, or what was fetched is not it.
            StorageError: it cannot be read.
        """
        ...


class LocalFiles:
    """The files as they lie on the disk."""

    def size(self, path: Path) -> int | None:
        """See :class:`CacheFiles`; a link counts as what it is, not as what it points to."""
        try:
            return path.lstat().st_size
        except OSError:
            return None

    def read(self, path: Path, num_bytes: int, sha256: str) -> bytes:
        """See :class:`CacheFiles`."""
        return read_bytes(path, max_bytes=num_bytes)


LOCAL_FILES = LocalFiles()
