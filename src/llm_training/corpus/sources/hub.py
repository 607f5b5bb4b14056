"""``hf:NAME[:CONFIG][@SPLIT]``: rows of a data set through the ``datasets`` library, streamed.

NAME is a data set on the Hub, a short name, or a local folder or file that ``datasets`` can read (parquet, arrow and csv
among them). Without SPLIT all splits are taken and their names say what they are for. Planning reads
the rows once, to count and hash them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.sources.kinds import HUB_KIND, SourceFile
from llm_training.errors import ConfigError, DataError, LlmTrainingError

SCHEME = "hf:"
SHORT_NAMES = {
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "tinystories": ("roneneldan/TinyStories", None),
}
_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".txt": "text"}


class HubName(NamedTuple):
    """The parts of an ``hf:`` URI."""

    name: str
    config: str | None
    split: str | None


def parse_uri(uri: str) -> HubName:
    """Read ``hf:NAME[:CONFIG][@SPLIT]``. Raises ConfigError for an empty name."""
    rest, _, split = uri.removeprefix(SCHEME).partition("@")
    # A local path may hold colons of its own.
    name, _, config = (rest, "", "") if Path(rest).exists() else rest.partition(":")
    if not name:
        raise ConfigError(f"{uri} names no data set", remedy="write hf:NAME[:CONFIG][@SPLIT], for example hf:wikitext@train")
    known, default_config = SHORT_NAMES.get(name, (name, None))
    return HubName(known, config or default_config, split or None)


def find_hub_files(uri: str) -> list[SourceFile]:
    """One entry for each split. Raises ConfigError without ``datasets``, DataError when the data set cannot be found."""
    parsed = parse_uri(uri)
    splits = [parsed.split] if parsed.split else _guard(uri, lambda: _split_names(parsed))
    base = "/".join(filter(None, (Path(parsed.name).name, parsed.config)))
    bare = f"{SCHEME}{parsed.name}" + (f":{parsed.config}" if parsed.config else "")
    # A folder part per split, so that the names speak to the split rule; a single chosen split is training text.
    return [SourceFile(f"{base}/{split}" if not parsed.split else f"{base}@{split}", Path(f"{bare}@{split}"), HUB_KIND) for split in splits]


def _split_names(parsed: HubName) -> list[str]:
    loaded = _load(parsed)
    return list(loaded) if isinstance(loaded, dict) else ["train"]


def _load(parsed: HubName) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError("hf: sources need the package datasets", remedy="pip install 'llm-training[data]'") from None
    path = Path(parsed.name)
    if path.is_file():
        plain = path.with_suffix("") if path.suffix == ".gz" else path
        builder = _BUILDERS.get(plain.suffix.lower())
        if builder is None:
            raise DataError(f"datasets cannot read {path.suffix} files", where=str(path), remedy=f"known: {' '.join(_BUILDERS)}")
        return datasets.load_dataset(builder, data_files=str(path.resolve()), split=parsed.split, streaming=True)
    name = str(path.resolve()) if path.is_dir() else parsed.name
    return datasets.load_dataset(name, parsed.config, split=parsed.split, streaming=True)


def _guard(uri: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except LlmTrainingError:
        raise
    except Exception as error:  # datasets raises its own, pyarrow's, fsspec's, the Hub's and plain Python errors
        message = next(iter(str(error).splitlines()), "")
        raise DataError(
            f"cannot read the data set ({type(error).__name__}: {message[:200]})",
            where=uri,
            remedy="check name, configuration, split and network",
        ) from None


class HubRows:
    """The rows of one split; see :class:`llm_training.corpus.sources.rows.RowSource`."""

    def __init__(self, file: SourceFile, settings: CorpusSettings) -> None:
        self.shown = str(file.path)
        self._max_rows = settings.max_documents
        self._parsed = parse_uri(self.shown)

    def stamp(self) -> str:
        """The files of a local data set by size and time; the Hub's are taken as fixed once planned."""
        path = Path(self._parsed.name)
        entries: Iterable[Path] = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
        states = [f"{entry.name}:{entry.stat().st_size}:{entry.stat().st_mtime_ns}" for entry in entries if entry.is_file()]
        return hashlib.sha256("\n".join([*states, str(self._max_rows)]).encode()).hexdigest()[:16]

    def rows_from(self, start: int) -> Iterator[Any]:
        """Rows from ``start`` on, up to ``max_documents``."""
        loaded = _guard(self.shown, lambda: _load(self._parsed))
        rows = iter(loaded.skip(start) if start else loaded)
        number = start
        while not self._max_rows or number < self._max_rows:
            row = _guard(self.shown, lambda: next(rows, None))
            if row is None:
                return
            yield row
            number += 1

    def close(self) -> None:
        """Nothing stays open."""
