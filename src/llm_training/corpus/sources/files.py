"""Files, folders and globs on the local disk, in an order that does not depend on the file system.

Folders are walked through links but never twice through the same directory. Hidden entries, files of unknown kinds, what
lies beside prepared documents, the files of a trained tokenizer, runs of this program and directories tagged as caches are
left out; a file that is named directly is read whatever its name, as text when nothing else is known.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

from llm_training.config.mixture import SOURCE_WORDS
from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.sources.kinds import TOKEN_ID_KIND, SourceFile, kind_of, sniff_json
from llm_training.corpus.sources.prepared import own_files, prepared_documents
from llm_training.errors import DataError, StorageError
from llm_training.storage.home import expanded
from llm_training.storage.oserrors import to_storage_error

KNOWN_FILES = ".txt .md .py .jsonl .json .csv .parquet .arrow .warc or .wet"
_SKIPPED_DIRECTORIES = frozenset({"__pycache__", "node_modules"})
# A run, and a cache by the convention of bford.info/cachedir: what a program wrote is no text to learn from.
_MARKS = ("run.json", "CACHEDIR.TAG")
# What may be meant as the weight of a source.
_SUFFIX = re.compile(r"#(\w+)=[^#/\\]*$")


def find_files(pattern: str, settings: CorpusSettings, skipped: Counter[str], *, kind: str | None = None) -> list[SourceFile]:
    """The source files that a path, folder or glob names, sorted by name.

    Args:
        pattern: as the user wrote it.
        settings: whether an unreadable file stops or is skipped.
        skipped: gains a count for every file left out, by reason.
        kind: a declared kind, instead of what names say.

    Raises:
        DataError: nothing is there, or a file is not a regular one, or a name is not UTF-8.
        IntegrityError: the folder is a preparation that was not finished.
        StorageError: no permission.
    """
    path = expanded(pattern)
    _require_utf8(os.path.realpath(path), shown=pattern)
    if path.is_dir():
        root = path.resolve().name
        found = [(f"{root}/{name.as_posix()}", path / name) for name in _walk(path, settings, skipped)]
        files = [file for key, entry in found if (file := _in_folder(key, entry, settings, skipped, kind))]
    elif os.path.lexists(path):
        files = [_named(path.name, path, kind)]
    elif glob.has_magic(pattern):
        root = fixed_part(path)
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
        if not matches:
            raise DataError("no file matches the glob", where=pattern, remedy="check the path")
        own = {folder: own_files(folder) for folder in {match.parent for match in matches}} if kind is None else {}
        texts = [match for match in matches if not match.is_dir() and match.name not in own.get(match.parent, ())]
        found = [(match.relative_to(root).as_posix(), match) for match in texts]
        files = [file for key, match in found if (file := _in_folder(key, match, settings, skipped, kind))]
    else:
        raise DataError("no such file, folder or glob", where=pattern, remedy=_remedy(pattern))
    if not files:
        nothing = "it is empty" if path.is_dir() else "nothing that matches is text"
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or nothing
        raise DataError(f"no documents in the source ({reasons})", where=pattern, remedy=f"give files of {KNOWN_FILES}")
    return files


def _remedy(pattern: str) -> str:
    suffix = _SUFFIX.search(pattern)
    if suffix is None:
        return "check the path; a source is a path, stdlib: or hf:NAME"
    known = " and ".join(f"#{word}=NUMBER" for word in SOURCE_WORDS)
    if suffix[1] in SOURCE_WORDS:
        return f"leave {suffix[0]} out: weights are for llm-train and llm-build-cache"
    return f"{suffix[0]} is no suffix that is known: these are {known}"


def is_glob(pattern: str) -> bool:
    """True for a pattern that is not the name of something that is there."""
    return glob.has_magic(pattern) and not os.path.lexists(expanded(pattern))


def fixed_part(pattern: PurePath) -> PurePath:
    """The folder that all matches of a glob lie below: they are named by their path from there."""
    parts = pattern.parts
    return type(pattern)(*parts[: next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))])


def _walk(root: Path, settings: CorpusSettings, skipped: Counter[str]) -> Iterator[Path]:
    """Relative paths of the files below ``root``, sorted by their parts. Raises StorageError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        told = to_storage_error(error, "read a folder of the source", Path(str(error.filename)))
        if not settings.skip_bad or error.filename == str(root):
            raise told
        skipped[told.what] += 1

    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - of the string os.walk gives
        identity = (status.st_dev, status.st_ino)
        if identity in seen or (folder != str(root) and any(mark in names for mark in _MARKS)):
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in _SKIPPED_DIRECTORIES)
        documents = prepared_documents(Path(folder))
        if documents is not None:
            subfolders.clear()  # nothing beside its documents is text: not what was dropped, not what somebody put there
            names = [name for name in names if name in documents]
        own = own_files(Path(folder))
        names = [name for name in names if name not in own]
        found.extend(Path(folder, name).relative_to(root) for name in names if not name.startswith("."))
    return iter(sorted(found, key=lambda path: path.parts))


def _in_folder(key: str, path: Path, settings: CorpusSettings, skipped: Counter[str], kind: str | None) -> SourceFile | None:
    found = kind or kind_of(path)
    if found is None:
        skipped[f"of unknown kind {_printable(path.suffix) or '(no suffix)'}"] += 1
        return None
    try:
        return _named(key, path, kind)
    except (DataError, StorageError) as error:
        if not settings.skip_bad:
            raise
        skipped[error.what] += 1
        return None


def _require_utf8(path: str, *, shown: str = "") -> None:
    """Raise DataError for a path that no file of this program could name."""
    if path.isascii():
        return
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError("file name is not UTF-8", where=_printable(shown or path), remedy="rename it") from None


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _named(key: str, path: Path, kind: str | None) -> SourceFile:
    _require_utf8(str(path))
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(
            f"cannot read the source ({error.strerror})", where=str(path), remedy="check the path and its permissions"
        ) from None
    if not stat.S_ISREG(mode):
        raise DataError("source is not a regular file", where=str(path), remedy="give a file or a folder of files")
    found = kind or kind_of(path) or "text"
    return SourceFile(key, path, sniff_json(path) if found == "json" else found)


def find_token_id_files(pattern: str, settings: CorpusSettings, skipped: Counter[str]) -> list[SourceFile]:
    """Files declared to hold token ids; see :func:`find_files`."""
    return find_files(pattern, settings, skipped, kind=TOKEN_ID_KIND)
