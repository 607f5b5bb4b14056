"""A corpus: the sources a user named, resolved to files with stable names and splits. Nothing is read yet."""

from __future__ import annotations

import hashlib
import platform
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.remote import is_remote
from llm_training.corpus.sources import connector, files, hub, remote, stdlib
from llm_training.corpus.sources.kinds import HUB_KIND, SourceFile
from llm_training.corpus.split import assign_named_splits
from llm_training.errors import ConfigError
from llm_training.storage.home import expanded
from llm_training.storage.runs import safe_name

STDLIB = "stdlib:"
TOKEN_IDS = "token-ids:"  # noqa: S105 - tokens of text
_MAX_NAME_CHARACTERS = 48
_KNOWN = "a path, a glob, stdlib:, token-ids:PATH, hf:NAME[:CONFIG][@SPLIT], https://, s3://, gs:// or connector:MODULE:CLASS"
# Words of a signed URL: they change while the file stays the same.
_SIGNATURE_WORDS = (
    "x-amz-",
    "x-goog-",
    "signature",
    "sig",
    "expires",
    "token",
    "key-pair-id",
    "policy",
    "awsaccesskeyid",
    "googleaccessid",
)

Find = Callable[[str, CorpusSettings, Counter[str]], list[SourceFile]]


def _find_stdlib(_rest: str, _settings: CorpusSettings, _skipped: Counter[str]) -> list[SourceFile]:
    return stdlib.find_stdlib_files()


def _find_hub(rest: str, _settings: CorpusSettings, _skipped: Counter[str]) -> list[SourceFile]:
    return assign_named_splits(hub.find_hub_files(hub.SCHEME + rest))


def _find_token_ids(rest: str, settings: CorpusSettings, skipped: Counter[str]) -> list[SourceFile]:
    return _with_splits(rest, files.find_token_id_files(rest, settings, skipped))


def _find_connector(rest: str, settings: CorpusSettings, _skipped: Counter[str]) -> list[SourceFile]:
    return connector.find_connector(rest, settings)


SCHEMES: dict[str, Find] = {
    STDLIB: _find_stdlib,
    hub.SCHEME: _find_hub,
    TOKEN_IDS: _find_token_ids,
    connector.SCHEME: _find_connector,
}


@dataclass(frozen=True)
class Source:
    """One URI of the user and the files behind it."""

    uri: str
    name: str
    files: tuple[SourceFile, ...]
    skipped: dict[str, int]

    @property
    def removes_near_duplicates(self) -> bool:
        """True for the standard library, whose held-out files may repeat training files."""
        return self.uri == STDLIB


@dataclass(frozen=True)
class Corpus:
    """Sources and settings.

    Attributes:
        name: short, for names of caches and runs.
        fingerprint: sha256 (hex) of what the user named and of the settings that shape documents; content is the plan's matter.
    """

    name: str
    sources: tuple[Source, ...]
    settings: CorpusSettings
    fingerprint: str

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All files in order."""
        return tuple(file for source in self.sources for file in source.files)


def open_corpus(uris: Sequence[str], settings: CorpusSettings, home: Path | None = None) -> Corpus:
    """Resolve sources.

    Args:
        uris: paths, globs, ``stdlib:``, ``token-ids:PATH``, ``hf:NAME[:CONFIG][@SPLIT]``, ``https://``, ``s3://``, ``gs://``,
            ``connector:MODULE:CLASS``.
        settings: how they are read.
        home: a folder; sources in it keep the fingerprint when it is moved as a whole.

    Raises:
        ConfigError: no source, or an unknown kind of source.
        DataError: a source does not exist or holds no readable file.
        StorageError: no permission, or a store that refuses.
    """
    if not uris:
        raise ConfigError("no source of text was given", where="data.sources", remedy=f"give {_KNOWN}")
    taken = _Taken()
    sources = tuple(_open_source(str(uri), settings, taken) for uri in dict.fromkeys(map(str, uris)))
    name = safe_name("+".join(source.name for source in sources))[:_MAX_NAME_CHARACTERS]
    return Corpus(name, sources, settings, _fingerprint(sources, settings, home))


def _open_source(uri: str, settings: CorpusSettings, taken: _Taken) -> Source:
    skipped: Counter[str] = Counter()
    scheme = next((scheme for scheme in SCHEMES if uri.startswith(scheme)), None)
    if scheme is not None:
        found = SCHEMES[scheme](uri.removeprefix(scheme), settings, skipped)
    elif is_remote(uri):
        found = _with_splits(uri, remote.find_remote_files(uri, settings, skipped))
    elif "://" in uri:
        raise ConfigError(f"source {uri} is of an unknown kind", where="data.sources", remedy=f"give {_KNOWN}")
    else:
        found = _with_splits(uri, files.find_files(uri, settings, skipped))
    pattern = _pattern(uri) if scheme in (None, TOKEN_IDS) else None
    return Source(uri, _short_name(uri, found, pattern), taken.add(found, pattern), dict(skipped))


def _pattern(uri: str) -> PurePath | None:
    """The path of a glob, absolute on this machine; None for a file or folder."""
    if is_remote(uri):
        address = urlsplit(uri)
        return PurePosixPath(f"{address.netloc}{address.path}") if remote.is_remote_glob(uri) else None
    rest = uri.removeprefix(TOKEN_IDS)
    return expanded(rest).absolute() if files.is_glob(rest) else None


def _with_splits(uri: str, found: list[SourceFile]) -> list[SourceFile]:
    """Splits that names spell; of a glob only the files' own names count, its folders were chosen by the user."""
    if _pattern(uri) is None:
        return assign_named_splits(found)
    named = assign_named_splits([replace(file, key=file.key.split("/")[-1]) for file in found])
    return [replace(file, split=other.split) for file, other in zip(found, named, strict=True)]


class _Taken:
    """Keys given so far, and how many sources share the folder's name that their keys begin with."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._sources: Counter[str] = Counter()

    def add(self, found: Sequence[SourceFile], pattern: PurePath | None) -> tuple[SourceFile, ...]:
        """Unique keys for a source's files: numbered by source, so that a file added to one leaves the other's keys."""
        is_folder = pattern is None and "/" in found[0].key and found[0].kind != HUB_KIND
        number = 1
        if pattern is not None or is_folder:
            label = found[0].key.split("/")[0] if is_folder else "*"
            self._sources[label] += 1
            number = self._sources[label]
        return tuple(self._unique(file, number) for file in found)

    def _unique(self, file: SourceFile, number: int) -> SourceFile:
        key = f"{file.key}#{number}" if number > 1 else file.key
        while key in self._keys:
            number += 1
            key = f"{file.key}#{number}"
        self._keys.add(key)
        return file if key == file.key else replace(file, key=key)


def _short_name(uri: str, found: Sequence[SourceFile], pattern: PurePath | None) -> str:
    if uri == STDLIB:
        return "stdlib"
    if pattern is not None:  # its folder and its words: the files that match may change
        root = files.fixed_part(pattern)
        words = re.sub(r"[^\w.]+", "-", f"{root.name}/{pattern.relative_to(root).as_posix()}")
        return words.replace("-.", ".").strip("-.") or "glob"
    first = found[0].key.split("/")[0].split("@")[0]
    return first if len(found) > 1 or "/" in found[0].key else first.split(".")[0] or first


def _fingerprint(sources: Sequence[Source], settings: CorpusSettings, home: Path | None) -> str:
    named = [_identity(source.uri, home) for source in sources]
    shaping = [settings.text_field, settings.validation_fraction, settings.slice_bytes, settings.max_document_bytes, settings.max_documents]
    shaping += [True] if settings.replace_bad_bytes else []
    return hashlib.sha256(orjson.dumps([named, shaping])).hexdigest()


def _identity(uri: str, home: Path | None = None) -> str:
    """What a URI means here: the library of this Python, the folder at this place, the address without its signature."""
    if uri == STDLIB:
        return f"{STDLIB}{platform.python_version()}"
    if is_remote(uri):
        address, _, query = uri.partition("?")
        kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if not name.lower().startswith(_SIGNATURE_WORDS)]
        return f"{address}?{urlencode(kept)}"
    if uri.startswith(connector.SCHEME):
        return uri
    scheme = next((scheme for scheme in SCHEMES if uri.startswith(scheme)), "")
    rest = uri.removeprefix(scheme)
    if scheme == hub.SCHEME and not Path(rest).exists():
        return uri
    path = expanded(rest).resolve()
    is_inside = home is not None and path.is_relative_to(home.resolve())
    return f"{scheme}{path.relative_to(home.resolve()) if home and is_inside else path}"
