"""The table of commands: the word, the module that has it, and one line about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class CommandFact:
    """One command: ``llm-WORD`` and ``python -m llm_training WORD``.

    Of a command that takes fields of the configuration, ``sections`` are those it uses (empty: all) and ``unused`` the fields in
    them that it does not.
    """

    module: str
    summary: str
    sections: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def takes_field(self, name: str) -> bool:
        """Whether a field, named with its section, is one of the command's flags."""
        return (not self.sections or name.partition(".")[0] in self.sections) and name not in self.unused


COMMANDS: Final[Mapping[str, CommandFact]] = {
    "train": CommandFact("llm_training.cli.train", "raw text to a trained, evaluated, sampled model"),
    "prepare-data": CommandFact(
        "llm_training.cli.prepare_data",
        "texts cleaned into train and validation files with a tokenizer",
        sections=("data", "monitoring"),
        unused=("data.num_samples", "monitoring.plots"),
    ),
    "validate-data": CommandFact("llm_training.cli.validate_data", "checks of data before training; the reasons when it fails"),
    "analyze-data": CommandFact("llm_training.cli.analyze_data", "one HTML page about data, with charts and samples"),
    "train-tokenizer": CommandFact("llm_training.cli.train_tokenizer", "a byte-level BPE tokenizer from texts"),
    "build-cache": CommandFact("llm_training.cli.build_cache", "the token cache that training reads; repair and verify it"),
    "evaluate": CommandFact("llm_training.cli.evaluate", "loss, perplexity, bits per byte and accuracy of a model"),
    "generate": CommandFact("llm_training.cli.generate", "text from a trained model"),
    "plot": CommandFact("llm_training.cli.plot", "the curves of one or several runs as a picture"),
    "logs": CommandFact("llm_training.cli.logs", "what a run logged, live or afterwards; the documents of a step"),
    "cleanup": CommandFact("llm_training.cli.cleanup", "old checkpoints, removed by rule"),
    "check-system": CommandFact("llm_training.cli.check_system", "what this machine offers for training"),
}


def overview() -> str:
    """The list that ``python -m llm_training`` prints."""
    width = max(len(word) for word in COMMANDS)
    rows = [f"  {word:<{width}}  {fact.summary}" for word, fact in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: python -m llm_training COMMAND ...",
            "",
            "Commands (each is also llm-COMMAND):",
            *rows,
            "",
            "COMMAND --help shows one example.",
        ]
    )
