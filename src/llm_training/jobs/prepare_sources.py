"""Which texts a preparation takes: sources that train or are split, and sources that are held out whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_training.config.data import DataConfig
from llm_training.corpus import VALIDATION, Corpus, CorpusSettings, open_corpus
from llm_training.errors import ConfigError
from llm_training.jobs.mixture import configured_sources


def sources_without_weights(data: DataConfig) -> list[str]:
    """The configured sources. Raises ConfigError for weights and caps, which say how a run goes through rows."""
    entries = configured_sources(data)
    mixed = next((entry.uri for entry in entries if entry.is_mixed), None)
    if mixed is not None:
        raise ConfigError(
            f"the source {mixed} has a weight or max_epochs, but prepared files hold every document once",
            where="data.sources",
            remedy="prepare each source into a folder of its own and give llm-train the folders with their weights",
        )
    return [entry.uri for entry in entries]


def open_held_out(sources: Sequence[str], held_out: Sequence[str], settings: CorpusSettings) -> Corpus:
    """The corpus of all sources; when some are held out, all of theirs is validation and nothing of the others is split off.

    Raises ConfigError, DataError, StorageError as `open_corpus`; ConfigError also for a source in both lists.
    """
    both = sorted(set(sources) & set(held_out))
    if both:
        raise ConfigError(f"{both[0]} is a source and held out", where="data.validation_sources", remedy="name it once")
    if not held_out:
        return open_corpus(sources, settings)
    corpus = open_corpus([*sources, *held_out], replace(settings, validation_fraction=0.0))
    marked = tuple(
        replace(source, files=tuple(replace(file, split=VALIDATION) for file in source.files)) if source.uri in held_out else source
        for source in corpus.sources
    )
    return replace(corpus, sources=marked)
