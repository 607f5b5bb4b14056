"""The folder that a preparation writes: no file under its final name before all are whole, the manifest last.

Until then everything lies under hidden names. Sealing first writes a manifest without files, which says whose folder it
is and that it is not valid, then renames, then writes the real one; so a killed preparation is taken over by the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from llm_training.corpus.sources.prepared import PREPARED_KIND, documents_name
from llm_training.errors import ConfigError, IntegrityError
from llm_training.storage.directories import remove_leftovers
from llm_training.storage.durable import DurableFile, json_bytes, make_directory, remove_file, write_stream
from llm_training.storage.locks import FileLock
from llm_training.storage.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest

_LOCK_NAME: Final = ".prepare.lock"
_BUFFER_BYTES: Final = 1 << 20
_IDS_AT_ONCE: Final = 1 << 16
_SPLITS: Final = ("train", "validation", "test")
_TOKENIZER_NAMES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
# What no manifest of ours lists is somebody else's.
_OWN_NAMES: Final = (
    *(name for split in _SPLITS for name in (documents_name(split), f"{split}.ids")), *_TOKENIZER_NAMES, "stats.json", MANIFEST_NAME
)  # fmt: skip
_SHARD_PATTERN: Final = f"({'|'.join(_SPLITS)})-[0-9]{{5}}\\.parquet"


class PreparedFolder:
    """Context manager over the output folder; locked while open.

    Raises:
        ConfigError: the folder holds files of these names that no preparation wrote.
        LockedError: another process prepares there.
        StorageError: the disk refuses.
    """

    def __init__(self, path: Path, *, format: str = "jsonl") -> None:
        self.path = path
        self._format = format
        self._lock = FileLock(path / _LOCK_NAME, what=f"the folder {path}")
        self._streams = ExitStack()
        self._open: dict[str, tuple[DurableFile, bytearray]] = {}

    def __enter__(self) -> PreparedFolder:
        make_directory(self.path)
        self._lock.acquire()
        try:
            self._require_own()
            remove_leftovers(self.path)
            for split in _SPLITS[:2] if self._format == "jsonl" else ():
                self._stream(documents_name(split))
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._streams.__exit__(kind, error, trace)
        finally:
            self._lock.release()

    def _require_own(self) -> None:
        foreign = [name for name in self._present() if not self._is_ours(name)]
        if foreign:
            raise ConfigError(
                f"the folder holds {foreign[0]}, which no preparation wrote", where=str(self.path), remedy="choose another --output"
            )

    def _present(self) -> list[str]:
        """Names in the folder that a preparation would write."""
        names = {entry.name for entry in self.path.iterdir()}
        return [*(name for name in _OWN_NAMES if name in names), *sorted(name for name in names - {*_OWN_NAMES} if _is_own_name(name))]

    def _is_ours(self, name: str) -> bool:
        """True for what the manifest of a preparation lists, and for everything while one is between its renames."""
        manifest = self._manifest
        return manifest is not None and (name in manifest.files or name == MANIFEST_NAME or not manifest.extra.get("is_finished"))

    @cached_property
    def _manifest(self) -> Manifest | None:
        """That of the preparation before this one."""
        try:
            manifest = read_manifest(self.path)
        except IntegrityError:
            return None
        return manifest if manifest.extra.get("kind") == PREPARED_KIND else None

    def refuse_sources(self, paths: Iterable[Path]) -> None:
        """Raise ConfigError when a source is a file that would be replaced."""
        folder = self.path.resolve()
        for taken in (path for path in paths if path.resolve().parent == folder and _is_own_name(path.resolve().name)):
            raise ConfigError(f"the source {taken} would be replaced by the output", remedy="choose another --output")

    def open_shard(self, split: str, number: int) -> tuple[str, DurableFile]:
        """A new shard of a split: its name, and a sink for pyarrow."""
        name = f"{split}-{number:05d}.parquet"
        return name, self._stream(name)[0]

    def write_document(self, split: str, record: Mapping[str, object]) -> None:
        """Append a document as one line of JSON."""
        self._append(documents_name(split), orjson.dumps(record) + b"\n")

    def write_ids(self, split: str, ids: NDArray[np.uint32], separator_id: int) -> None:
        """Append a document as one line of token ids, the separator last; a part at a time, for a number in Python takes 40 bytes."""
        for start in range(0, len(ids), _IDS_AT_ONCE):
            self._append(f"{split}.ids", " ".join(map(str, ids[start : start + _IDS_AT_ONCE].tolist())).encode() + b" ")
        self._append(f"{split}.ids", b"%d\n" % separator_id)

    def write_bytes(self, files: Mapping[str, bytes]) -> None:
        """Add whole files."""
        for name, data in files.items():
            self._append(name, data)

    def write_json(self, name: str, value: object) -> None:
        """Add a JSON file."""
        self._append(name, json_bytes(value))

    def _append(self, name: str, data: bytes) -> None:
        sink, buffer = self._stream(name)
        buffer += data
        if len(buffer) >= _BUFFER_BYTES:
            sink.write(bytes(buffer))
            buffer.clear()

    def _stream(self, name: str) -> tuple[DurableFile, bytearray]:
        if name not in self._open:
            self._open[name] = (self._streams.enter_context(write_stream(self.path / name)), bytearray())
        return self._open[name]

    def seal(self, extra: Mapping[str, Any]) -> tuple[str, ...]:
        """Give all files their names, remove those of an earlier preparation, write the manifest; returns the names."""
        for sink, buffer in self._open.values():
            sink.write(bytes(buffer))
        write_manifest(self.path, {}, extra={"kind": PREPARED_KIND, "is_finished": False})
        self._streams.close()
        for name in self._present():
            if name not in self._open and name != MANIFEST_NAME:
                remove_file(self.path / name)
        records = {name: sink.record for name, (sink, _) in self._open.items()}
        write_manifest(self.path, records, extra={"kind": PREPARED_KIND, "is_finished": True, **extra})
        return (*self._open, MANIFEST_NAME)


def _is_own_name(name: str) -> bool:
    return name in _OWN_NAMES or re.fullmatch(_SHARD_PATTERN, name) is not None
