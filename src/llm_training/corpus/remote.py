"""Files on servers and in object stores, read in blocks through fsspec with bounded memory.

Credentials come from where each store's own tools look for them (environment, configuration files), never from a URI, and
no message shows a query. A failed read is tried again; what still fails is one line: DataError when the object is not
there, StorageError when the store refuses or cannot be reached.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar, cast
from urllib.parse import urlsplit

from llm_training.errors import ConfigError, DataError, LlmTrainingError, StorageError

# Scheme of a URI -> protocol of fsspec and the package it needs.
PROTOCOLS = {"s3": ("s3", "s3fs"), "gs": ("gs", "gcsfs"), "https": ("https", "aiohttp"), "http": ("http", "aiohttp")}
BLOCK_BYTES = 4 << 20
_RETRY_SECONDS = (0.2, 1.0, 3.0)
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
_REFUSED = (401, 403)
_GONE = (404, 410)

T = TypeVar("T")


def is_remote(uri: str) -> bool:
    """True for a URI that fsspec reads."""
    return uri.partition("://")[0] in PROTOCOLS and "://" in uri


def shown(uri: str) -> str:
    """A URI without what may be secret in it: user, password, query, fragment."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def open_filesystem(uri: str) -> Any:
    """The file system of a URI, nothing remembered from earlier listings. Raises ConfigError when its package is missing."""
    import fsspec

    protocol, package = PROTOCOLS[uri.partition("://")[0]]
    try:
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError:
        scheme = uri.partition("://")[0]
        raise ConfigError(f"{scheme}:// needs the package {package}", remedy=f"pip install {package}") from None


def attempt(uri: str, call: Callable[[], T]) -> T:
    """Call a store, several times if it fails in passing. Raises DataError, StorageError, ConfigError."""
    for wait in (*_RETRY_SECONDS, None):
        try:
            return call()
        except LlmTrainingError:
            raise
        except Exception as caught:  # each store has errors of its own
            error = _root(caught)
            translated = _translated(uri, error)
            if wait is None or not _may_pass(error):
                raise translated from None
            time.sleep(wait)
    raise AssertionError("unreachable")


def _root(error: Exception) -> Exception:
    """fsspec says "not found" of every failure to ask for facts; what was the matter is its cause."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _status(error: BaseException) -> int:
    """The HTTP status in an error of aiohttp, or of botocore, which keeps it in a dictionary; 0 when there is none."""
    response: Any = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        return int(cast("Any", response).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return int(getattr(error, "status", 0) or 0)


def _may_pass(error: BaseException) -> bool:
    """True when another try may help: not for what is missing or forbidden."""
    if (
        isinstance(error, FileNotFoundError | PermissionError | ImportError | NotImplementedError)
        or type(error).__name__ in _NO_CREDENTIALS
    ):
        return False
    status = _status(error)
    return status == 0 or status >= 500 or status in (408, 429)


def _translated(uri: str, error: BaseException) -> LlmTrainingError:
    place, status = shown(uri), _status(error)
    if isinstance(error, FileNotFoundError) or status in _GONE:
        return DataError("no such remote file or folder", where=place, remedy="check the address")
    if type(error).__name__ in _NO_CREDENTIALS:
        return StorageError("the store wants credentials and found none", where=place, remedy="set them as for the store's own tools")
    if isinstance(error, PermissionError) or status in _REFUSED:
        return StorageError(f"the store refuses access ({status or 'no permission'})", where=place, remedy="check the credentials")
    cause = f"status {status}" if status else type(error).__name__
    return StorageError(f"cannot read from the store ({cause})", where=place, remedy="check address and network, then run again")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a store, by its URI."""

    uri: str

    def __str__(self) -> str:
        return shown(self.uri)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(urlsplit(self.uri).path).name

    @property
    def suffix(self) -> str:
        """Last suffix of the name."""
        return PurePosixPath(self.name).suffix

    def info(self) -> dict[str, Any]:
        """What the store says of the file. Raises DataError, StorageError."""
        filesystem = open_filesystem(self.uri)
        return attempt(self.uri, lambda: filesystem.info(self.uri))

    def size(self) -> int | None:
        """Bytes as stored, None when the server does not say."""
        return self.info().get("size")

    def stamp(self) -> str:
        """Size and version; a mark never seen before when the server tells neither, so that the content is compared."""
        info = self.info()
        version = next(
            (info[key] for key in ("ETag", "etag", "md5Hash", "Content-MD5", "Last-Modified", "LastModified") if info.get(key)), ""
        )
        return f"{info.get('size')}:{version}" if version else f"{info.get('size')}:unknown-{time.time_ns()}"

    def open(self, *, needs_seeking: bool = False) -> IO[bytes]:
        """The bytes. Raises DataError, StorageError; DataError also when seeking is needed and the server cannot."""
        raw = _RemoteBytes(self)
        if needs_seeking and not raw.has_ranges:
            raise DataError("the server answers no range requests, which this format needs", where=str(self), remedy="download the file")
        return cast("IO[bytes]", raw)


class _RemoteBytes(io.RawIOBase):
    """Reads blocks by range where the server can, else one long answer from the start, passed over again to go back."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._filesystem = open_filesystem(file.uri)
        self._position = 0
        self._block, self._block_start = b"", 0
        self._answer: Any = None
        self._answer_position = 0
        self._reader: Any = None
        self.size = file.size()
        self.has_ranges = self.size is not None and attempt(file.uri, self._try_range)

    def _try_range(self) -> bool:
        """Read the first block by range; False when the server sends the whole file instead."""
        self._reader = self._filesystem.open(self._file.uri, "rb", cache_type="none", block_size=BLOCK_BYTES, size=self.size)
        if getattr(self._reader, "size", None) is None:
            return False
        try:
            if (self.size or 0) > BLOCK_BYTES:
                self._range(1, 2)
            self._block = self._range(0, min(BLOCK_BYTES, self.size or 0))
        except ValueError:  # fsspec's word for a server that ignores ranges
            return False
        return True

    def _range(self, start: int, stop: int) -> bytes:
        self._reader.seek(start)
        data = self._reader.read(stop - start)
        if len(data) != stop - start:
            raise OSError("short answer")
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Any place; whence counted from the end needs a known size."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size or 0}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, at most one block unless all are asked for; empty at the end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        parts: list[bytes] = []
        while size > 0 and (part := self._some(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        data = self._some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _some(self, size: int) -> bytes:
        offset = self._position - self._block_start
        if not 0 <= offset < len(self._block):
            block = attempt(self._file.uri, self._next_block)
            if not block:
                return b""
            self._block, self._block_start, offset = block, self._position, 0
        data = self._block[offset : offset + size]
        self._position += len(data)
        return data

    def _next_block(self) -> bytes:
        if self.size is not None and self._position >= self.size:
            return b""
        if self.has_ranges:
            try:
                return self._range(self._position, min(self._position + BLOCK_BYTES, self.size or 0))
            except ValueError:
                self.has_ranges = False
        return self._from_answer()

    def _from_answer(self) -> bytes:
        """The next part of one long answer; after a failure, or to go back, it is asked for again."""
        if self._answer is None or self._answer_position > self._position:
            self._close_answer()
            self._answer = self._filesystem.open(self._file.uri, "rb", block_size=0)
            self._answer_position = 0
        try:
            while self._answer_position < self._position:
                self._answer_position += len(self._part(min(BLOCK_BYTES, self._position - self._answer_position)))
            data = b"".join(self._parts())
        except Exception:
            self._close_answer()
            raise
        self._answer_position += len(data)
        return data

    def _part(self, size: int) -> bytes:
        data = self._answer.read(size)
        if not data:
            raise OSError("short answer")
        return data

    def _parts(self) -> list[bytes]:
        """About a block; fewer bytes only at the end, which has to be where the size says."""
        parts: list[bytes] = []
        missing = BLOCK_BYTES
        while missing > 0 and (data := self._answer.read(missing)):
            parts.append(data)
            missing -= len(data)
        end = self._answer_position + BLOCK_BYTES - missing
        if missing and self.size is not None and end < self.size:
            raise OSError("short answer")
        return parts

    def _close_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def close(self) -> None:
        """Close what is open."""
        self._close_answer()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        super().close()
