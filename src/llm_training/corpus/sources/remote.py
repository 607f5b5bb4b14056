"""``https://``, ``http://``, ``s3://`` and ``gs://``: files, globs, and folders where the store can list them.

Names are given as for local folders: by the path below the folder that was named, without machine or bucket.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.remote import RemoteFile, attempt, open_filesystem, shown
from llm_training.corpus.sources.files import KNOWN_FILES, fixed_part
from llm_training.corpus.sources.kinds import SourceFile, kind_of, sniff_json
from llm_training.errors import ConfigError, DataError, StorageError

_GLOB = frozenset("*[")


def find_remote_files(uri: str, settings: CorpusSettings, skipped: Counter[str]) -> list[SourceFile]:
    """The files that a URI names, sorted by name.

    Args:
        uri: a file, a folder or a glob.
        settings: whether an unreadable file stops or is skipped.
        skipped: gains a count for every file left out, by reason.

    Raises:
        ConfigError: the URI holds a password, or a package is missing.
        DataError: nothing is there.
        StorageError: the store refuses or cannot be reached.
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise ConfigError(
            "a password in a URI would be written into files", where=shown(uri), remedy="give it as the store's tools take it"
        )
    filesystem = open_filesystem(uri)
    if is_remote_glob(uri):
        matches = attempt(uri, lambda: sorted(filesystem.glob(uri)))
        root = f"{parts.scheme}://{parts.netloc}{fixed_part(PurePosixPath(parts.path))}"
        return _chosen(uri, [(_below(root, found), found) for found in _full(filesystem, matches)], settings, skipped)
    if parts.scheme in ("http", "https"):
        is_folder = parts.path.endswith("/") or not parts.path
    else:
        is_folder = attempt(uri, lambda: filesystem.info(uri))["type"] == "directory"
    if not is_folder:
        return [_named(RemoteFile(uri).name, uri)]
    base = uri.rstrip("/")
    found = attempt(uri, lambda: sorted(filesystem.find(f"{base}/")))
    root = PurePosixPath(urlsplit(base).path).name or parts.netloc
    listed = [(_below(base, path), path) for path in _full(filesystem, found)]
    return _chosen(uri, [(f"{root}/{name}", path) for name, path in listed if not _is_hidden(name)], settings, skipped)


def is_remote_glob(uri: str) -> bool:
    """True when a URI names files by a pattern."""
    return bool(_GLOB & set(urlsplit(uri).path))


def _full(filesystem: Any, paths: list[str]) -> list[str]:
    """Listings of object stores come without scheme."""
    return [path if "://" in path else filesystem.unstrip_protocol(path) for path in paths]


def _below(base: str, path: str) -> str:
    return urlsplit(path).path.removeprefix(urlsplit(base).path).lstrip("/") if urlsplit(path).netloc == urlsplit(base).netloc else path


def _is_hidden(name: str) -> bool:
    return not name or name.endswith("/") or any(part.startswith(".") for part in name.split("/"))


def _chosen(uri: str, named: list[tuple[str, str]], settings: CorpusSettings, skipped: Counter[str]) -> list[SourceFile]:
    """Those of a known kind."""
    files: list[SourceFile] = []
    for key, path in sorted(named, key=lambda item: item[0].split("/")):
        if kind_of(Path(key)) is None:
            skipped[f"of unknown kind {Path(key).suffix or '(no suffix)'}"] += 1
            continue
        try:
            files.append(_named(key, path))
        except (DataError, StorageError) as error:
            if not settings.skip_bad:
                raise
            skipped[error.what] += 1
    if not files:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "nothing is there, or the store does not list"
        raise DataError(f"no documents in the source ({reasons})", where=shown(uri), remedy=f"give files of {KNOWN_FILES}")
    return files


def _named(key: str, uri: str) -> SourceFile:
    place = RemoteFile(uri)
    kind = kind_of(Path(place.name)) or "text"
    return SourceFile(key, Path(shown(uri)), sniff_json(place) if kind == "json" else kind, remote=place)
