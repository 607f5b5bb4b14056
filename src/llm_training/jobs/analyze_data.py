"""Job: look at data and write one HTML page about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_training.errors import ConfigError
from llm_training.events import EventBus
from llm_training.jobs.data_measures import Measures, available_measures
from llm_training.jobs.data_reading import DataReading, dropped_before, named, tokenizer_beside
from llm_training.jobs.dropped_documents import read_dropped
from llm_training.report.dataset import DatasetStatistics, Seen
from llm_training.report.dataset_page import PageFacts, dataset_page
from llm_training.storage.durable import make_directory, write_bytes
from llm_training.tokenizer import Tokenizer

DEFAULT_OUTPUT = "stats/analysis.html"
DEFAULT_MEASURED_BYTES = 50_000_000


@dataclass(frozen=True)
class AnalysisResult:
    """Where the page lies, and what is on it as plain values."""

    output: str
    statistics: dict[str, Any]

    def facts(self) -> dict[str, str]:
        """Lines for people."""
        total, repeats = self.statistics["total"], self.statistics["repeats"]
        copies = repeats["num_copies"] + repeats["num_spaced_copies"]
        shown = {
            "Documents": f"{total['num_documents']:,}",
            "Bytes": f"{total['num_bytes']:,}",
            "Words": f"{total['num_words']:,}",
            "Median length": f"{self.statistics['words_per_document']['p50']:,.0f} words",
            "Copies": f"{copies:,}",
        }
        if total["num_tokens"]:
            shown["Bytes per token"] = f"{total['num_bytes'] / total['num_tokens']:.3f}"
        if self.statistics["quality"]:
            shown["Median quality"] = f"{self.statistics['quality']['p50']:.2f}"
        if self.statistics["dropped"]:
            shown["Left out"] = ", ".join(f"{count:,} {reason}" for reason, count in self.statistics["dropped"].items())
        return shown | {"Report": self.output}


def analyze_data(
    inputs: Sequence[str],
    output: str = DEFAULT_OUTPUT,
    *,
    tokenizer: str | None = None,
    group_by: str | None = None,
    dropped_folder: str | None = None,
    title: str | None = None,
    num_samples: int = 8,
    measured_bytes: int = DEFAULT_MEASURED_BYTES,
    seed: int = 0,
    text_field: str = "text",
    bus: EventBus | None = None,
) -> AnalysisResult:
    """Read everything once, then write the page.

    Args:
        inputs: sources of text.
        output: the HTML file.
        tokenizer: measure with it; None takes the one of prepared data.
        group_by: field of the records to compare by; None compares files.
        dropped_folder: documents that a preparation dropped and kept.
        num_samples: documents shown as samples.
        measured_bytes: text on which quality, language and runs of words are measured at most.
        seed: of the samples.

    Raises:
        ConfigError: nothing given, or a number out of range.
        DataError: nothing to read.
        StorageError: the disk refuses.
    """
    bus = bus or EventBus()
    if not 0 <= num_samples <= 200:
        raise ConfigError(f"--samples is {num_samples} but must be >= 0 and <= 200")
    if measured_bytes < 1:
        raise ConfigError(f"--measured-bytes is {measured_bytes} but must be at least 1")
    encoder = tokenizer_beside(inputs, tokenizer)
    measures = available_measures()
    found = DatasetStatistics(num_samples=num_samples, seed=seed)
    with DataReading(inputs, text_field=text_field, bus=bus, measured_bytes=measured_bytes) as reading:
        for looked in reading.documents(encoder, "Looking at documents"):
            document = looked.document
            found.add(
                Seen(
                    document.id, document.text, named(document, group_by), document.split, looked.num_tokens,
                    measures.quality(document.text) if looked.is_measured and measures.quality else None,
                    measures.language(document.text) if looked.is_measured and measures.language else None,
                ),
                is_measured=looked.is_measured,
            )  # fmt: skip
        for reason, count in (reading.dropped + dropped_before(inputs)).items():
            found.count_dropped(reason, count)
    if dropped_folder is not None:
        for document in read_dropped(dropped_folder, text_field):
            found.add_dropped(document)
    facts = _page_facts(inputs, title, encoder, group_by, measures, found, is_sampled=reading.is_sampled)
    make_directory(Path(output).parent)
    write_bytes(Path(output), dataset_page(found, facts))
    return AnalysisResult(output, found.to_json() | {"near_duplicates": facts.near_duplicates})


def _page_facts(
    inputs: Sequence[str],
    title: str | None,
    encoder: Tokenizer | None,
    group_by: str | None,
    measures: Measures,
    found: DatasetStatistics,
    *,
    is_sampled: bool,
) -> PageFacts:
    missing = list(measures.missing)
    if encoder is None:
        missing.append("Tokens are not counted: no tokenizer was given (--tokenizer) or found beside the data.")
    if is_sampled:
        missing.append(
            f"Quality, languages and runs of words are measured on an even sample of {found.num_measured:,} documents (--measured-bytes)."
        )
    name = title or " + ".join(dict.fromkeys(Path(uri).name or uri for uri in inputs))
    tokenizer = f"a tokenizer of {encoder.vocab_size:,} entries" if encoder else ""
    return PageFacts(name, list(inputs), tokenizer, group_by or "file", None, missing)
