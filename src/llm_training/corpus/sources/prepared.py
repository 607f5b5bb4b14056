"""Folders that ``llm-prepare-data`` or ``llm-train-tokenizer`` wrote: which files in them are no text.

Beside the documents of each split there are the tokenizer, token ids and statistics, some of them JSON. Read as text they
would be refused as documents or, worse, learned.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llm_training.errors import IntegrityError
from llm_training.storage.home import expanded
from llm_training.storage.manifest import MANIFEST_NAME, Manifest, read_manifest

PREPARED_KIND, TOKENIZER_KIND = "prepared data", "tokenizer"
TOKENIZER_REPORT = "tokenizer_report.json"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TOKENIZER_REPORT, MANIFEST_NAME)


def documents_name(split: str) -> str:
    """File that holds the documents of a split."""
    return f"{split}.json"


def prepared_documents(folder: Path) -> frozenset[str] | None:
    """Names in a prepared folder that hold documents; None for any other folder.

    Raises:
        IntegrityError: the preparation was not finished.
        StorageError: no permission.
    """
    manifest = _manifest_of(folder)
    if manifest is None:
        return None
    return frozenset(manifest.extra.get("documents") or (documents_name(str(split)) for split in manifest.extra.get("splits", ())))


def prepared_tokenizer(uris: Sequence[str]) -> Path | None:
    """The folder with the tokenizer of the sources, when they are one prepared folder. Raises as `prepared_documents`."""
    if len(uris) != 1 or not (folder := expanded(uris[0])).is_dir():
        return None
    return folder if _manifest_of(folder) is not None else None


def own_files(folder: Path) -> frozenset[str]:
    """Names of what this program wrote into a prepared folder or beside a trained tokenizer and that holds no documents.

    Raises as `prepared_documents`.
    """
    manifest = _manifest_of(folder)
    if manifest is None:
        return own_tokenizer_files(folder)
    return frozenset((*manifest.files, MANIFEST_NAME)) - (prepared_documents(folder) or frozenset())


def own_tokenizer_files(folder: Path) -> frozenset[str]:
    """Names that ``llm-train-tokenizer`` writes, when it wrote the folder; none for any other. Raises StorageError.

    Its report is written first and its manifest last, so either one shows whose folder it is, also of a killed command.
    """
    kind = _kind_of(folder)
    is_own = kind == TOKENIZER_KIND or (kind is None and os.path.isfile(folder / TOKENIZER_REPORT))  # noqa: PTH113 - False without permission
    return frozenset(TOKENIZER_NAMES) if is_own else frozenset()


def _kind_of(folder: Path) -> str | None:
    """What the manifest says the folder is, empty when it says nothing; None without one that can be read."""
    if not os.path.isfile(folder / MANIFEST_NAME):  # noqa: PTH113 - False without permission
        return None
    try:
        return str(read_manifest(folder).extra.get("kind", ""))
    except IntegrityError:
        return None


def _manifest_of(folder: Path) -> Manifest | None:
    if not os.path.isfile(folder / MANIFEST_NAME):  # noqa: PTH113 - False without permission
        return None
    try:
        manifest = read_manifest(folder)
    except IntegrityError:
        return None  # some other program's file of that name
    if manifest.extra.get("kind") != PREPARED_KIND:
        return None
    if not manifest.extra.get("is_finished"):
        raise IntegrityError("the preparation of this folder was not finished", where=str(folder), remedy="run llm-prepare-data again")
    return manifest
