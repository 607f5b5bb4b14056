"""What belongs to a directory artefact, with size and hash: the mark that it is complete.

The manifest is written last, so a directory without one is unfinished, and validity means that the manifest verifies.
The manifest vouches for itself too: its bytes are the canonical form of its content and include a digest over the rest,
so any flipped bit in it is seen. It is not a signature: it finds damage, not a forger.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from llm_training.errors import IntegrityError
from llm_training.storage.durable import DurableFile, write_bytes
from llm_training.storage.hashing import DIGEST_LENGTHS, FileRecord, record_of
from llm_training.storage.links import is_plain_name
from llm_training.storage.reading import hash_file, parse_json, read_bytes

MANIFEST_NAME = "manifest.json"
FORMAT_NAME = "llm-training manifest"
FORMAT_VERSION = 1
_MAX_MANIFEST_BYTES = 1 << 28  # a million files fit
_RESTORE = "restore it from a copy or build it again"


@dataclass(frozen=True)
class Manifest:
    """The files of an artefact by relative name, and facts about the whole (``extra``, plain JSON values)."""

    files: Mapping[str, FileRecord]
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = FORMAT_VERSION

    @property
    def num_bytes(self) -> int:
        """Size of all files together, the manifest apart."""
        return sum(record.num_bytes for record in self.files.values())

    def to_bytes(self) -> bytes:
        """The one byte string that stands for this content."""
        body = {
            "format": FORMAT_NAME,
            "version": self.version,
            "files": {name: {"bytes": r.num_bytes, r.algorithm: r.digest} for name, r in self.files.items()},
            "extra": dict(self.extra),
        }
        return _canonical({**body, "digest": record_of(_canonical(body)).digest})


def _canonical(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def check_name(name: str) -> str:
    """Return ``name`` when it is a relative path that stays inside its directory. Raises IntegrityError."""
    if not name or not all(is_plain_name(part) for part in name.split("/")):
        raise IntegrityError(f"the manifest names {name[:80]!r}, which is not a plain relative path", remedy=_RESTORE)
    return name


def write_manifest(
    directory: Path, files: Mapping[str, FileRecord], *, extra: Mapping[str, Any] | None = None, name: str = MANIFEST_NAME
) -> Manifest:
    """Write the manifest of ``directory`` durably and atomically, over an older one if there is one.

    The files must be on the disk already. Raises StorageError; IntegrityError for a name that leaves the directory.
    """
    manifest = Manifest(files={check_name(file): record for file, record in files.items()}, extra=dict(extra or {}))
    write_bytes(directory / name, manifest.to_bytes())
    return manifest


def write_new_manifest(directory: Path, manifest: Manifest, *, name: str = MANIFEST_NAME) -> None:
    """Write the manifest of a directory that nobody sees yet, without the detour over a temporary name. Raises StorageError."""
    for file in manifest.files:
        check_name(file)
    sink = DurableFile(directory / name)
    try:
        sink.write(manifest.to_bytes())
        sink.finish()
    finally:
        sink.abandon()


def read_manifest(directory: Path, *, name: str = MANIFEST_NAME) -> Manifest:
    """The manifest of ``directory``, checked against its own digest.

    Raises IntegrityError when it is missing, damaged, names a file outside the directory, lacks a hash or is of a later
    format; StorageError when it cannot be read.
    """
    path = directory / name
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise IntegrityError("the manifest is missing, so the artefact is unfinished", where=str(path), remedy=_RESTORE) from None
    if not is_file:
        raise IntegrityError("the manifest is not a regular file", where=str(path), remedy=_RESTORE)
    data = read_bytes(path, max_bytes=_MAX_MANIFEST_BYTES)
    content = parse_json(data, path)
    try:
        manifest = _from_json(content)
        is_canonical = manifest.to_bytes() == data
    except IntegrityError as error:
        raise IntegrityError(error.what, where=str(path), remedy=error.remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"the manifest has a wrong shape ({type(error).__name__}: {error})", where=str(path), remedy=_RESTORE
        ) from error
    if not is_canonical:
        raise IntegrityError("the manifest does not match its own digest", where=str(path), remedy=_RESTORE)
    return manifest


def _from_json(content: Any) -> Manifest:
    if content["format"] != FORMAT_NAME:
        raise IntegrityError(f"the manifest is of another format ({str(content['format'])[:60]!r})", remedy=_RESTORE)
    version = content["version"]
    if not isinstance(version, int) or version < 1:
        raise ValueError("version")
    if version > FORMAT_VERSION:
        raise IntegrityError(
            f"written in format {version}, this program reads formats 1 to {FORMAT_VERSION}",
            remedy="install a later version of llm-training",
        )
    entries = cast("dict[str, dict[str, Any]]", content["files"])
    return Manifest(
        files={check_name(name): _record(name, entry) for name, entry in entries.items()}, extra=content["extra"], version=version
    )


def _record(name: str, entry: dict[str, Any]) -> FileRecord:
    """Fails closed: an entry without a hash that we know is refused rather than trusted."""
    num_bytes = entry["bytes"]
    algorithms = [algorithm for algorithm in DIGEST_LENGTHS if algorithm in entry]
    if len(algorithms) != 1:
        raise IntegrityError(f"the manifest has no known hash for {name}", remedy=_RESTORE)
    digest = entry[algorithms[0]]
    if type(num_bytes) is not int or num_bytes < 0 or type(digest) is not str or len(digest) != DIGEST_LENGTHS[algorithms[0]]:
        raise IntegrityError(f"the manifest has no usable size or hash for {name}", remedy=_RESTORE)
    return FileRecord(num_bytes=num_bytes, digest=digest, algorithm=algorithms[0])


def locate(directory: Path, name: str) -> Path:
    """The path of a listed file, after checking that nothing on the way to it is a link. Raises IntegrityError."""
    path = directory
    parts = PurePosixPath(check_name(name)).parts
    for position, part in enumerate(parts):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise IntegrityError("a file that the manifest lists is missing", where=str(path), remedy=_RESTORE) from None
        is_expected = stat.S_ISREG(mode) if position == len(parts) - 1 else stat.S_ISDIR(mode)
        if not is_expected:
            raise IntegrityError("not a regular file inside the artefact", where=str(path), remedy=_RESTORE)
    return path


def verify_file(directory: Path, name: str, record: FileRecord, *, hashes: bool = True) -> Path:
    """Check one file against its record and return its path. Raises IntegrityError with expected and actual, StorageError."""
    path = locate(directory, name)
    num_bytes = path.lstat().st_size
    if num_bytes != record.num_bytes:
        raise IntegrityError(f"size is {num_bytes} bytes, the manifest says {record.num_bytes}", where=str(path), remedy=_RESTORE)
    if hashes:
        actual = hash_file(path, record.algorithm)
        if actual != record:
            raise IntegrityError(
                f"{record.algorithm} is {actual.digest}, the manifest says {record.digest}", where=str(path), remedy=_RESTORE
            )
    return path


def verify(directory: Path, *, hashes: bool = True, name: str = MANIFEST_NAME) -> Manifest:
    """Check a directory artefact: its manifest, the size of every file and, with ``hashes``, their content.

    Files that the manifest does not list are none of its business. Raises IntegrityError, StorageError.
    """
    manifest = read_manifest(directory, name=name)
    for file, record in manifest.files.items():
        verify_file(directory, file, record, hashes=hashes)
    return manifest


def read_listed(directory: Path, manifest: Manifest, name: str) -> bytes:
    """The content of a listed file, verified in the bytes returned. Raises IntegrityError, StorageError."""
    record = manifest.files.get(name)
    if record is None:
        raise IntegrityError(f"the artefact has no {name}", where=str(directory), remedy=_RESTORE)
    path = locate(directory, name)
    data = read_bytes(path, max_bytes=record.num_bytes)
    actual = record_of(data)
    if actual != record:
        raise IntegrityError(f"{record.algorithm} is {actual.digest}, the manifest says {record.digest}", where=str(path), remedy=_RESTORE)
    return data
