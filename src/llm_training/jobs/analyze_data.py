"""Job: look at data and write one HTML page about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_training.corpus import TRAIN
from llm_training.errors import ConfigError
from llm_training.events import EventBus, Notice
from llm_training.jobs.data_measures import Measures, available_measures
from llm_training.jobs.data_reading import NO_FIELD, DataReading, dropped_before, grouping, tokenizer_beside
from llm_training.jobs.dropped_documents import read_dropped
from llm_training.report.dataset import DatasetStatistics, Seen
from llm_training.report.dataset_cards import NearFacts, PageFacts
from llm_training.report.dataset_page import dataset_page
from llm_training.report.markup import clipped, visible
from llm_training.storage.durable import make_directory, write_bytes
from llm_training.tokenizer import Tokenizer

DEFAULT_OUTPUT = "stats/analysis.html"
DEFAULT_MEASURED_BYTES = 50_000_000
# Fields of records that are named where the one asked for is missing.
_NAMED_FIELDS = 12


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
        group_by: field of the records to compare by; None compares files, or folders when there are many files.
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
    found = DatasetStatistics(num_samples=num_samples, seed=seed)
    fields: dict[str, object] = {}
    with DataReading(inputs, text_field=text_field, bus=bus, measured_bytes=measured_bytes) as reading:
        compared_by, group_of = grouping(group_by, reading.num_files)
        measures = available_measures(is_sampled=reading.is_sampled)
        for looked in reading.documents(encoder, "Looking at documents"):
            document = looked.document
            if group_by is not None and len(fields) < _NAMED_FIELDS:
                fields.update(document.metadata)
            found.add(
                Seen(
                    document.id, document.text, group_of(document), document.split, looked.num_tokens,
                    measures.quality(document.text) if looked.is_measured and measures.quality else None,
                    measures.language(document.text) if looked.is_measured and measures.language else None,
                ),
                is_measured=looked.is_measured,
            )  # fmt: skip
            if measures.near_repeats is not None:
                measures.near_repeats.add(document.text, name=document.id, is_held_out=document.split != TRAIN)
        for reason, count in (reading.dropped + dropped_before(inputs)).items():
            found.count_dropped(reason, count)
    if dropped_folder is not None:
        for document in read_dropped(dropped_folder, text_field):
            found.add_dropped(document)
    missing = _missing(measures, found, has_tokenizer=encoder is not None, is_sampled=reading.is_sampled)
    if group_by is not None and set(found.by_group) == {NO_FIELD}:
        line = _no_field(group_by, fields)
        missing.append(f"Text is not compared: {line}.")
        bus.publish(Notice(message=line, level="warning"))
    facts = _page_facts(inputs, title, encoder, compared_by, measures, missing)
    make_directory(Path(output).parent)
    write_bytes(Path(output), dataset_page(found, facts))
    return AnalysisResult(output, found.to_json() | {"near_duplicates": asdict(facts.near) if facts.near else None})


def _no_field(group_by: str, fields: Collection[str]) -> str:
    names = ", ".join(visible(clipped(name, 40)) for name in sorted(fields)[:_NAMED_FIELDS])
    others = f"fields are {names}" if names else "the records have none but text and id"
    return f"no record has the field {group_by} (--group-by); {others}"


def _missing(measures: Measures, found: DatasetStatistics, *, has_tokenizer: bool, is_sampled: bool) -> list[str]:
    lines = list(measures.missing)
    if not has_tokenizer:
        lines.append("Tokens are not counted: no tokenizer was given (--tokenizer) or found beside the data.")
    if is_sampled:
        lines.append(
            f"Quality, languages and runs of words are measured on an even sample of {found.num_measured:,} documents (--measured-bytes)."
        )
    return lines


def _page_facts(
    inputs: Sequence[str], title: str | None, encoder: Tokenizer | None, compared_by: str, measures: Measures, missing: Sequence[str]
) -> PageFacts:
    counted = measures.near_repeats.counts() if measures.near_repeats is not None else None
    near = NearFacts(counted.num_near, counted.num_documents, counted.num_leaked) if counted is not None else None
    name = title or " + ".join(dict.fromkeys(Path(uri).name or uri for uri in inputs))
    tokenizer = f"a tokenizer of {encoder.vocab_size:,} entries" if encoder else ""
    return PageFacts(name, list(inputs), tokenizer, compared_by, near, missing)
