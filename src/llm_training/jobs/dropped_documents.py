"""The documents that a preparation dropped and kept: JSON Lines with the reason in each record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.errors import ConfigError
from llm_training.report.dataset import Seen

REASON_FIELD, STEP_FIELD = "reason", "step"
# The step that goes without saying.
READ_STEP = "read"


def read_dropped(folder: str, text_field: str) -> Iterator[Seen]:
    """Each dropped document with its reason; one without a reason is called by its file.

    Raises:
        ConfigError: there is no such folder.
        DataError: it holds no documents.
    """
    if not Path(folder).is_dir():
        raise ConfigError(
            "there is no such directory", where=f"--keep-dropped {folder}", remedy="give the folder that llm-prepare-data wrote"
        )
    corpus = open_corpus([folder], CorpusSettings(text_field=text_field, validation_fraction=0.0, skip_bad=True, max_bad_fraction=1.0))
    reader = SliceReader(corpus, make_plan(corpus))
    try:
        for document in reader.documents():
            found = document.metadata
            reason = str(found.get(REASON_FIELD) or Path(document.source).name.partition(".")[0])
            step = f"{found[STEP_FIELD]}: " if found.get(STEP_FIELD, READ_STEP) != READ_STEP else ""
            yield Seen(document.id, document.text, str(found.get("source", document.source)), reason=step + reason)
    finally:
        reader.close()
