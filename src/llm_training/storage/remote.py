"""Folders in object stores (``s3://``, ``gs://``, whatever fsspec knows), as far as a cache needs them.

Whole objects in, whole objects out, sizes by one listing. Credentials and endpoints are the library's own affair
(environment, profiles). Every failure is a StorageError of one line that names the object; nothing is retried beyond
what the library does. There is no rename in an object store, so whoever writes several objects writes the one that
vouches for the others last.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from llm_training.errors import ConfigError, IntegrityError, StorageError

_EXTRAS = {"s3": "s3", "s3a": "s3"}
# Here names need no folders, and asking for one would make a bucket.
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs"})
_REMEDY = "check the address, the credentials and the network, then run again"
# Without these an address that does not answer is waited for during minutes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}, "use_listings_cache": False}
}


def is_remote(place: str) -> bool:
    """True for an address with a scheme, as in ``s3://bucket/prefix``."""
    return re.match(r"[a-z][a-z0-9+.-]+://", place) is not None


def without_password(url: str) -> str:
    """The address without what may stand before an ``@`` in its host part."""
    return re.sub(r"//[^/@]*@", "//", url)


class RemoteFolder:
    """A folder under an address. Raises ConfigError when the library for its scheme is missing, StorageError."""

    def __init__(self, url: str) -> None:
        self.url = without_password(url.rstrip("/"))
        scheme = url.partition("://")[0]
        self._is_bucket = scheme in _BUCKETS
        with _remote_errors("open", self.url):
            self._filesystem, self._root = _open(url.rstrip("/"), scheme)

    def where(self, name: str) -> str:
        """The full address of an object, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """An object's content. Raises StorageError; IntegrityError when it is larger than ``max_bytes``."""
        with _remote_errors("read", self.where(name)):
            data = self._filesystem.cat_file(self._path(name), start=0, end=max_bytes + 1)
        if len(data) > max_bytes:
            raise IntegrityError(f"object is larger than the {max_bytes} bytes allowed", where=self.where(name), remedy="publish it again")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Make an object hold ``data``, and ask the store for its size afterwards. Raises StorageError."""
        with _remote_errors("write", self.where(name)):
            if not self._is_bucket:
                self._filesystem.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._filesystem.pipe_file(self._path(name), data)
            size = int(self._filesystem.size(self._path(name)) or 0)
        if size != len(data):
            raise StorageError(f"the store holds {size} bytes of {len(data)} written", where=self.where(name), remedy=_REMEDY)

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every object under a folder, by name relative to this one; empty when there is no such folder. Raises StorageError."""
        with _remote_errors("list", self.where(folder)):
            try:
                found = self._filesystem.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        prefix = len(self._root.rstrip("/")) + 1
        return {path[prefix:]: int(entry["size"]) for path, entry in found.items() if entry.get("type") != "directory"}

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _open(url: str, scheme: str) -> tuple[Any, str]:
    fsspec_core: Any = importlib.import_module("fsspec.core")  # a second of imports for those who need it
    try:
        return fsspec_core.url_to_fs(url, skip_instance_cache=True, **_OPTIONS.get(scheme, {}))
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install 'llm-training[{extra}]'" if extra else f"install what fsspec asks for ({error})"
        raise ConfigError(f"{scheme}:// needs a library that is not installed", where=url, remedy=remedy) from None
    except ValueError as error:
        raise ConfigError(f"unknown kind of address ({error})", where=url, remedy="use s3://, gs:// or a local folder") from None


@contextmanager
def _remote_errors(action: str, where: str) -> Generator[None]:
    """Turn whatever a store's client throws into a StorageError: each client has exceptions of its own."""
    try:
        yield
    except (ConfigError, IntegrityError, StorageError):
        raise
    except FileNotFoundError:
        raise StorageError(f"cannot {action} (no such object or bucket)", where=where, remedy=_REMEDY) from None
    except PermissionError as error:
        raise StorageError(f"cannot {action} (permission denied: {_one_line(error)})", where=where, remedy=_REMEDY) from None
    except Exception as error:
        raise StorageError(f"cannot {action} ({type(error).__name__}: {_one_line(error)})", where=where, remedy=_REMEDY) from None


def _one_line(error: BaseException) -> str:
    return without_password(" ".join(str(error).split()))[:200]
