"""Folders that ``llm-prepare-data`` wrote: the manifest tells the documents from what lies beside them.

Beside the documents of each split there are the tokenizer, token ids and statistics, some of them JSON. Read as text they
would be refused as documents or, worse, learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llm_training.errors import IntegrityError
from llm_training.storage.manifest import MANIFEST_NAME, Manifest, read_manifest

PREPARED_KIND = "prepared data"


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
    if len(uris) != 1 or not (folder := Path(uris[0]).expanduser()).is_dir():
        return None
    return folder if _manifest_of(folder) is not None else None


def _manifest_of(folder: Path) -> Manifest | None:
    if not (folder / MANIFEST_NAME).is_file():
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
