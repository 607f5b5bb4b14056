"""Which format a file name means, and one source file as the plan sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_training.corpus.remote import RemoteFile
from llm_training.corpus.sources.delimited import DelimitedFormat
from llm_training.corpus.sources.json_array import JsonArrayFormat
from llm_training.corpus.sources.jsonl import JsonLinesFormat
from llm_training.corpus.sources.record import Format
from llm_training.corpus.sources.text import TextFormat, python_encoding, utf8
from llm_training.corpus.sources.token_ids import TokenIdFormat
from llm_training.corpus.sources.warc import WarcFormat
from llm_training.corpus.streams import ByteStream, Place, compression_of
from llm_training.storage.reading import hash_file

FORMATS: dict[str, Format] = {
    found.name: found
    for found in (
        TextFormat("text", utf8),
        TextFormat("python", python_encoding),
        JsonLinesFormat(),
        JsonArrayFormat(),
        DelimitedFormat(),
        WarcFormat(),
        TokenIdFormat(),
    )
}
# Kinds that are rows rather than bytes.
HUB_KIND, PARQUET_KIND, ARROW_KIND, CONNECTOR_KIND = "hub", "parquet", "arrow", "connector"
TOKEN_ID_KIND = "token-ids"  # noqa: S105 - tokens of text

# `.json` is an array or JSON Lines under another name: its first character tells.
KIND_OF_SUFFIX = {
    ".txt": "text",
    ".md": "text",
    ".tokens": "text",
    ".raw": "text",
    ".py": "python",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": PARQUET_KIND,
    ".arrow": ARROW_KIND,
    ".arrows": ARROW_KIND,
    ".feather": ARROW_KIND,
    ".warc": "warc",
    ".wet": "warc",
}
_SNIFF_BYTES = 1 << 12


@dataclass(frozen=True)
class SourceFile:
    """One file (or one ``hf:`` data set) of a source.

    Attributes:
        key: stable name without machine paths, unique in the corpus: the ``source`` of its documents.
        path: where it is on this machine; for ``hf:`` and remote files the URI, for people.
        kind: name of a format, or of a kind of rows.
        split: the split that its name gives, or None.
        remote: where it is when not on this machine.
        uri: what the user wrote, where the path cannot hold it (``connector:``).
    """

    key: str
    path: Path
    kind: str
    split: str | None = None
    remote: RemoteFile | None = None
    uri: str = ""

    @property
    def place(self) -> Place:
        """What is opened."""
        return self.remote or self.path

    @property
    def is_seekable(self) -> bool:
        """True for plain bytes on this machine: a second reader that goes elsewhere in them costs nothing."""
        return self.kind in FORMATS and self.remote is None and not compression_of(self.path)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    @property
    def sha256(self) -> str:
        """Hash of the bytes on disk, computed when asked for."""
        return hash_file(self.path.resolve()).digest


def kind_of(path: Path) -> str | None:
    """The format that a name means, compression suffix aside; None for an unknown one."""
    plain = path.with_suffix("") if compression_of(path) else path
    return KIND_OF_SUFFIX.get(plain.suffix.lower())


def sniff_json(path: Place) -> str:
    """``json`` for an array, ``jsonl`` for records that follow each other. Raises DataError, StorageError."""
    stream = ByteStream(path)
    try:
        head = stream.read(_SNIFF_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    finally:
        stream.close()
    return "json" if head.startswith(b"[") else "jsonl"
