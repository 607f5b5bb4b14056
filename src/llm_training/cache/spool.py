"""A growing array that stays in memory up to a size and lies in an unnamed temporary file beyond it.

Held-out documents are scored in an order that jumps about (windows of like length share a batch), so decoding chunks on
demand would decode each many times. Writing the plain tokens once to a scratch file and reading slices of it back needs
next to no memory, whatever the size of the set. The file has no name and goes with the process.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np

from llm_training.errors import StorageError
from llm_training.storage.oserrors import storage_errors

DEFAULT_MEMORY_BYTES = 1 << 26


class ArraySpool:
    """Numbers of one type, appended and then read by slice. Safe to read from several threads.

    Args:
        kind: their numpy type.
        memory_bytes: held in memory at most.
    """

    def __init__(self, kind: Any, *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self.dtype = np.dtype(kind)
        self._memory_bytes = memory_bytes
        self._length = 0
        self._parts: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    @property
    def is_in_memory(self) -> bool:
        """False once a file was needed."""
        return self._file is None

    def append(self, values: np.ndarray) -> None:
        """Add values at the end. Raises StorageError when the scratch file cannot be written."""
        part = np.ascontiguousarray(values, dtype=self.dtype)
        self._length += len(part)
        if self._file is None and self._length * self.dtype.itemsize <= self._memory_bytes:
            self._parts.append(part)
            return
        with storage_errors("write held-out tokens to a scratch file", Path(tempfile.gettempdir())):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="llm-training-held-out-")  # noqa: SIM115 - lives as long as the spool
                weakref.finalize(self, self._file.close)
                for earlier in self._parts:
                    self._file.write(earlier.data)
                self._parts = []
            self._file.write(part.data)

    def __getitem__(self, part: slice) -> np.ndarray:
        """A slice without a step. Raises StorageError when the scratch file cannot be read."""
        start, stop, step = part.indices(self._length)
        assert step == 1
        count = max(0, stop - start)
        if self._file is None:
            return self._in_memory()[start : start + count]
        width = self.dtype.itemsize
        where = Path(tempfile.gettempdir())
        with self._lock, storage_errors("read held-out tokens from a scratch file", where):
            self._file.seek(start * width)
            data = self._file.read(count * width)
        if len(data) != count * width:
            raise StorageError("the scratch file of held-out tokens is cut off", where=str(where), remedy="check the disk, then run again")
        return np.frombuffer(data, dtype=self.dtype)

    def _in_memory(self) -> np.ndarray:
        with self._lock:
            if len(self._parts) != 1:
                self._parts = [np.concatenate([np.zeros(0, dtype=self.dtype), *self._parts])]
            return self._parts[0]
