"""Preparation from Python by one object: the job `prepare` with the defaults of ``llm-prepare-data``, no second way of preparing."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from llm_training.config.data import DataConfig
from llm_training.errors import ConfigError
from llm_training.events import EventBus
from llm_training.jobs.clean_corpus import configured_cleaning
from llm_training.jobs.prepare import PrepareResult, chosen_tokenizer, prepare

# Words of `run` that stand for arguments of `prepare` under other names, or are made into one.
_OWN = ("input_file", "max_seq_length", "tokenizer", "vocab", "merges", "cleaning", "deduplicate")
_REPLACED = ("input", "output", "max_length", "tokenizer_files", "cleaning", "bus")
_OPTIONS = tuple(name for name in signature(prepare).parameters if name not in _REPLACED)


class DataPreparationPipeline:
    """Texts into ``train.json``, ``validation.json`` and a tokenizer with its ``vocab.json``.

    Args:
        output_dir: folder to write; files of an earlier preparation in it are replaced, others are refused.
        event_bus: told of progress.
    """

    def __init__(self, output_dir: str | Path = "prepared_data", event_bus: EventBus | None = None) -> None:
        self.output_dir = str(output_dir)
        self._bus = event_bus

    def run(
        self,
        input_file: str | Path | Sequence[str | Path],
        max_seq_length: int | None = None,
        *,
        tokenizer: str | None = None,
        vocab: str | None = None,
        merges: str | None = None,
        cleaning: Sequence[str] = ("auto",),
        deduplicate: bool | None = None,
        **options: Any,
    ) -> PrepareResult:
        """Prepare texts.

        Args:
            input_file: a file, folder, glob or URI of text; or several.
            max_seq_length: tokens of a document at most; longer ones are cut into pieces. None leaves them whole.
            tokenizer: an existing one instead of training one: ``tokenizer.json``, a directory, a Hub name, or ``bytes``.
            vocab: ``vocab.json`` of an existing one, with ``merges``.
            merges: ``merges.txt`` of that.
            cleaning: steps of cleaning, as ``data.cleaning``.
            deduplicate: remove duplicates and near-duplicates; None follows ``cleaning``.
            options: others of `prepare`: ``vocab_size``, ``format``, ``skip_bad`` and so on.

        Raises:
            ConfigError: an unknown option; and everything that `prepare` raises.
        """
        _refuse_unknown(options)
        sources = [input_file] if isinstance(input_file, str | Path) else input_file
        return prepare(
            [str(source) for source in sources],
            self.output_dir,
            max_length=max_seq_length,
            tokenizer_files=chosen_tokenizer(vocab=vocab, merges=merges, tokenizer=tokenizer),
            cleaning=configured_cleaning(DataConfig(cleaning=list(cleaning)), deduplicate=deduplicate),
            bus=self._bus,
            **options,
        )


def _refuse_unknown(options: dict[str, Any]) -> None:
    known = sorted({*_OWN, *_OPTIONS})
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"DataPreparationPipeline.run has no option {unknown[0]}", remedy=hint)
