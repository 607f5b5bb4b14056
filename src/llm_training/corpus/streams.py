"""Bytes of a source file at any offset, plain or compressed, with bounded memory.

Offsets always count the bytes after decompression. A plain file seeks; a compressed one is read forward, so readers
that go through a file in order never read anything twice. Of local files only regular ones are opened: a FIFO or a device
would wait or run for ever. Remote ones (``corpus.remote``) are read in blocks.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from llm_training.corpus.remote import RemoteFile
from llm_training.errors import ConfigError, DataError
from llm_training.storage.oserrors import to_storage_error

_SKIP_BYTES = 1 << 20
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_HEAD_BYTES = 6


def _open_zstandard(raw: IO[bytes]) -> IO[bytes]:
    try:
        import zstandard
    except ImportError:
        raise ConfigError("reading .zst files needs the package zstandard", remedy="pip install 'llm-training[data]'") from None
    return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))


def _open_gzip(raw: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))


def _open_bz2(raw: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", bz2.BZ2File(raw))


def _open_xz(raw: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", lzma.LZMAFile(raw))


# Where a file is.
Place = Path | RemoteFile

DECOMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {".gz": _open_gzip, ".bz2": _open_bz2, ".xz": _open_xz, ".zst": _open_zstandard}


def compression_of(path: Place) -> str:
    """The compression suffix of a name, or an empty string."""
    suffix = path.suffix.lower()
    return suffix if suffix in DECOMPRESSORS else ""


@contextmanager
def reading_errors(path: Place) -> Generator[None]:
    """Turn what reading throws into DataError (damaged content) or StorageError (the system refused)."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"compressed file is damaged or cut off ({error})", where=str(path), remedy="copy the file again") from None
    except OSError as error:
        if error.errno is None:  # bz2 reports damage as a bare OSError
            raise DataError(f"compressed file is damaged ({error})", where=str(path), remedy="copy the file again") from None
        raise to_storage_error(error, "read a source file", Path(str(path))) from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise DataError(f"compressed file is damaged ({error})", where=str(path), remedy="copy the file again") from None


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file without ever waiting for it. Raises DataError, StorageError."""
    with reading_errors(path):
        # Non-blocking: opening a FIFO for reading would wait for a writer, before any check of its type.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError("source is not a regular file", where=str(path), remedy="give a file or a folder of files")
    return os.fdopen(descriptor, "rb")


def open_raw(place: Place, *, needs_seeking: bool = False) -> IO[bytes]:
    """The bytes as stored. Raises DataError, StorageError; with ``needs_seeking`` also for a server that cannot seek."""
    return place.open(needs_seeking=needs_seeking) if isinstance(place, RemoteFile) else open_regular(place)


def stamp_of(place: Place) -> str:
    """A cheap mark that changes when the file is written: size and time, or what a store says. Raises StorageError, DataError."""
    if isinstance(place, RemoteFile):
        return place.stamp()
    with reading_errors(place):
        status = place.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


_COUNTED_BYTES = 1 << 16


class ByteStream:
    """The decompressed bytes of one file. ``unread`` gives back what a reader took too much of."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self._compression = compression_of(path)
        self._waiting = b""
        self._position = 0
        self._open()

    def _open(self) -> None:
        self._raw = open_raw(self.path)
        with reading_errors(self.path):
            head = self._raw.read(_HEAD_BYTES)
            self._raw.seek(0)
        found = next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")
        if found and not self._compression:
            self._raw.close()
            raise DataError(
                f"content is {found[1:]}-compressed although the name says plain",
                where=str(self.path),
                remedy=f"rename it to end in {found}",
            )
        self._file = DECOMPRESSORS[self._compression](self._raw) if self._compression else self._raw
        self._waiting, self._position, self._last = b"", 0, b""

    @property
    def position(self) -> int:
        """Offset of the next byte."""
        return self._position

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end of the file. Raises DataError, StorageError."""
        parts: list[bytes] = []
        missing = size
        if self._waiting:
            parts.append(self._waiting[:size])
            self._waiting = self._waiting[size:]
            missing -= len(parts[0])
        with reading_errors(self.path):
            while missing > 0 and (part := self._file.read(missing)):
                parts.append(part)
                missing -= len(part)
        self._position += size - missing
        self._last = parts[-1][-1:] if parts else self._last
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def unread(self, data: bytes) -> None:
        """Give back the last bytes read."""
        self._waiting = data + self._waiting
        self._position -= len(data)
        self._last = b"" if data else self._last

    def byte_before(self) -> bytes:
        """The byte before the next one; empty at the start. Known after reading, else looked up."""
        if self._position and not self._last:
            self.seek(self._position - 1)
            self.read(1)
        return self._last

    def is_at_end(self) -> bool:
        """True when no byte follows."""
        byte = self.read(1)
        self.unread(byte)
        return not byte

    def seek(self, position: int) -> None:
        """Go to an offset: directly in a plain file, forward (or from the start again) in a compressed one."""
        if position == self._position:
            return
        if not self._compression:
            with reading_errors(self.path):
                self._file.seek(position)
            self._waiting, self._position, self._last = b"", position, b""
            return
        if position < self._position:
            self.close()
            self._open()
        while self._position < position:
            if not self.read(min(_SKIP_BYTES, position - self._position)):
                return

    def size(self) -> int:
        """Number of decompressed bytes; reads a compressed file to its end, and a remote one of unknown size."""
        known = self.path.size() if isinstance(self.path, RemoteFile) else None
        if not self._compression and isinstance(self.path, Path):
            with reading_errors(self.path):
                known = os.fstat(self._raw.fileno()).st_size
        if known is not None and not self._compression:
            return known
        while self.read(_SKIP_BYTES):
            pass
        return self._position

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()


def lines_after(path: Place, offset: int) -> tuple[int, int]:
    """Number of the line at an offset in the decompressed bytes, and how many lines there are from it to the end.

    Lines end as the editor shows them: with a line feed, or with a carriage return where there is no line feed.
    Reads the file. Raises DataError, StorageError.
    """
    ends = {b"\n": [0, 0], b"\r": [0, 0]}  # before the offset, and from it on
    stream, last = ByteStream(path), b""
    try:
        while data := stream.read(_COUNTED_BYTES):
            cut = max(0, offset - (stream.position - len(data)))
            for end, counts in ends.items():
                counts[0] += data.count(end, 0, cut)
                counts[1] += data.count(end, cut)
            last = data[-1:]
    finally:
        stream.close()
    end = b"\n" if any(ends[b"\n"]) else b"\r"
    return ends[end][0] + 1, ends[end][1] + (last != end)


def place_in_words(path: Place, offset: int) -> str:
    """Path, line and byte of an offset in the decompressed bytes. Reads up to it. Raises DataError, StorageError."""
    stream = ByteStream(path)
    try:
        line, left = 1, offset
        while left > 0 and (data := stream.read(min(_COUNTED_BYTES, left))):
            line += data.count(b"\n")
            left -= len(data)
    finally:
        stream.close()
    return f"{path}, line {line}, byte offset {offset}"
