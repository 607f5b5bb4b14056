"""Logs of JSON records, one per line, that a crash can cost at most one record.

Each record is one ``write`` to a file opened for appending, so lines of several processes do not mix. A torn last line is
cut (or sealed, when only its newline is missing) the next time the log is opened. A log that somebody rotates or
truncates meanwhile is followed. NaN and infinities, which JSON lacks, are stored as the strings "NaN", "Infinity" and
"-Infinity", which ``float()`` reads back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.durable import make_directory, sync_directory, write_all
from llm_training.storage.filesystem import APPEND_FLAGS, filesystem
from llm_training.storage.oserrors import storage_errors
from llm_training.storage.reading import read_blocks

Record = dict[str, Any]
_BACKWARD_BLOCK_BYTES = 1 << 16


def _plain(value: Any) -> Any:
    """``value`` with non-finite floats as strings; containers are rebuilt only here, off the common path."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value


def encode_record(record: Mapping[str, Any]) -> bytes:
    """One line of ASCII JSON with its newline; text with line breaks or control characters is escaped."""
    try:
        text = json.dumps(record, allow_nan=False, separators=(", ", ": "))
    except ValueError:
        text = json.dumps(_plain(record), allow_nan=False, separators=(", ", ": "))
    return text.encode("ascii") + b"\n"


def _parse_line(line: bytes) -> Record | None:
    """The record of a line; None when it is not a JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Record", value) if isinstance(value, dict) else None


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(offset in bytes, line without its newline, whether the newline is there) for each line. Raises StorageError."""
    offset, rest = 0, b""
    for block in read_blocks(path):
        *whole, rest = (rest + bytes(block)).split(b"\n")
        for line in whole:
            yield offset, line, True
            offset += len(line) + 1
    if rest:
        yield offset, rest, False


def read_jsonl(path: Path) -> Iterator[Record]:
    """The records of a log in order; a missing log has none. Only a torn last line is skipped.

    Raises IntegrityError naming line and offset for damage anywhere else, StorageError.
    """
    for _, record in _read_with_offsets(path):
        yield record


def _read_with_offsets(path: Path) -> Iterator[tuple[int, Record]]:
    if not os.path.lexists(path):
        return
    for number, (offset, line, has_newline) in enumerate(_lines(path), start=1):
        record = _parse_line(line)
        if record is not None:
            yield offset, record
        elif has_newline and line.strip():
            raise IntegrityError(
                "a log line is not a JSON object",
                where=f"{path}:{number} (byte {offset})",
                remedy="remove that line, or move the log away and go on",
            )


class JsonlAppender:
    """Appends records to a log; also a context manager.

    Args:
        path: the log; it and its directory are made when missing.
        fsync: wait for the disk after each record (for decisions that must be known before they take effect).
    """

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._descriptor: int | None = None
        self._needs_repair = False
        make_directory(path.parent)
        self._open()

    def _open(self) -> None:
        is_new = not os.path.lexists(self.path)
        with storage_errors("open a log", self.path):
            self._descriptor = filesystem().open(self.path, APPEND_FLAGS, 0o600)
        if is_new:
            sync_directory(self.path.parent)
        self._repair()

    def _repair(self) -> None:
        """Leave the file empty or ending in a newline: seal a whole record that lacks only its newline, cut anything else."""
        assert self._descriptor is not None
        with storage_errors("mend a log", self.path):
            size = os.fstat(self._descriptor).st_size
            start = _start_of_tail(self._descriptor, size)
            if start < size:
                tail = _read_at(self._descriptor, start, size - start)
                if _parse_line(tail) is not None:
                    write_all(self._descriptor, memoryview(b"\n"))
                else:
                    filesystem().truncate(self._descriptor, start)
                filesystem().fsync(self._descriptor)
        self._needs_repair = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record. Raises StorageError, after which the log is whole and a later record may succeed."""
        line = memoryview(encode_record(record))
        self._follow()
        assert self._descriptor is not None
        with storage_errors("append to a log", self.path, len(line)):
            self._needs_repair = True  # until the write is known to be whole
            write_all(self._descriptor, line)
            self._needs_repair = False
            if self._fsync:
                filesystem().fsync(self._descriptor)

    def _follow(self) -> None:
        """Open again when the log was rotated or removed under us, and mend what a failed append left."""
        if self._descriptor is None:
            self._open()
            return
        with suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
                if self._needs_repair:
                    self._repair()
                return
        self.close()
        make_directory(self.path.parent)
        self._open()

    def truncate_after(self, is_beyond: Callable[[Record], bool]) -> int:
        """Cut the log at the first record for which ``is_beyond`` holds; returns how many records went. Raises StorageError.

        On resume: ``log.truncate_after(lambda record: record.get("step", 0) > step)`` leaves one record per step.
        """
        self._follow()
        assert self._descriptor is not None
        cut: int | None = None
        dropped = 0
        for offset, record in _read_with_offsets(self.path):
            if cut is None and is_beyond(record):
                cut = offset
            dropped += cut is not None
        if cut is not None:
            with storage_errors("cut a log", self.path):
                filesystem().truncate(self._descriptor, cut)
                filesystem().fsync(self._descriptor)
        return dropped

    def close(self) -> None:
        """Give the file back; `append` opens it again. Raises StorageError."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with storage_errors("close a log", self.path):
                filesystem().close(descriptor)

    def __enter__(self) -> JsonlAppender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(StorageError):
            self.close()


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)  # harmless: appends go to the end whatever the offset
    content = bytearray(size)
    done = 0
    while done < size and (count := filesystem().readinto(descriptor, memoryview(content)[done:])):
        done += count
    return bytes(content[:done])


def _start_of_tail(descriptor: int, size: int) -> int:
    """Offset just after the last newline, searched backwards so that a long log opens as fast as a short one."""
    end = size
    while end > 0:
        start = max(0, end - _BACKWARD_BLOCK_BYTES)
        found = _read_at(descriptor, start, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
