"""Job: check data before training on it: what is wrong, how much of it, and whether that is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import xxhash

from llm_training.errors import ConfigError, DataError
from llm_training.events import EventBus
from llm_training.jobs.data_checks import BAD_RECORDS, CHECKS, Finding, Thresholds, Watched
from llm_training.jobs.data_measures import available_measures
from llm_training.jobs.data_reading import DataReading, Looked
from llm_training.storage.durable import make_directory, write_json


@dataclass(frozen=True)
class ValidationResult:
    """What was found.

    Attributes:
        sources: what was read.
        num_documents: documents that could be read.
        findings: one for each measure, in the order of the checks.
        skipped: measures that could not be taken, and why.
        examples: of what the findings count, a few of each kind.
    """

    sources: tuple[str, ...]
    num_documents: int
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings beyond their limits."""
        return tuple(finding for finding in self.findings if not finding.is_good)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The table for readers: check, measure, found, allowed, verdict."""
        return [(f.check, f.measure, f.shown_value, f.shown_limit, "ok" if f.is_good else "FAILED") for f in self.findings]

    def remarks(self) -> list[str]:
        """Lines below the table: how much was looked at, examples of what failed, what was not measured."""
        lines = [f"{self.num_documents:,} documents in {', '.join(self.sources)}"]
        lines += [f"{failure.kind}: {example}" for failure in self.failures for example in self.examples.get(failure.kind, [])[:3]]
        return lines + [f"not measured: {reason}" for reason in self.skipped]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = [asdict(finding) | {"is_good": finding.is_good} for finding in self.findings]
        return asdict(self) | {"is_valid": not self.failures, "findings": found}

    def require_valid(self) -> None:
        """Raise DataError with every reason when a finding is beyond its limit."""
        if self.failures:
            reasons = "; ".join(f"{finding.measure} {finding.shown_value} ({finding.shown_limit} allowed)" for finding in self.failures)
            raise DataError(
                f"the data fails {len(self.failures)} of {len(self.findings)} checks: {reasons}",
                where=", ".join(self.sources),
                remedy="mend the data (llm-prepare-data removes copies and bad documents), or allow more with the flag of the check",
            )


def validate_data(
    inputs: Sequence[str],
    *,
    checks: str = ",".join(CHECKS),
    thresholds: Thresholds | None = None,
    output: str | None = None,
    measured_bytes: int = 50_000_000,
    text_field: str = "text",
    bus: EventBus | None = None,
) -> ValidationResult:
    """Read everything once and compare what is found with the thresholds.

    Args:
        inputs: sources of text.
        checks: names of checks, separated by commas.
        thresholds: what is allowed; None is the defaults.
        output: JSON file for the result, written whether the data is valid or not.
        measured_bytes: text on which quality is measured, and near-duplicates are looked for, at most.

    Raises:
        ConfigError: an unknown check, or a threshold out of range.
        DataError: nothing to read. (Findings beyond the limits are in the result: see `ValidationResult.require_valid`.)
        StorageError: the disk refuses.
    """
    limits = thresholds or Thresholds()
    chosen = _chosen(checks)
    _require_range(limits)
    with DataReading(inputs, text_field=text_field, bus=bus or EventBus(), measured_bytes=measured_bytes) as reading:
        measures = available_measures(
            with_quality="quality" in chosen,
            with_language=False,
            with_near_repeats=not {"duplicates", "leakage"}.isdisjoint(chosen),
            is_sampled=reading.is_sampled,
        )
        watched = Watched(limits, measures)
        for looked in reading.documents(None, "Checking documents"):
            _look(watched, looked)
        watched.num_bad = reading.report.num_bad
        watched.bad_reasons = Counter(reading.dropped)
        watched.examples[BAD_RECORDS] = list(reading.report.examples)
    findings = tuple(finding for name in chosen for finding in CHECKS[name](watched))
    skipped = tuple(dict.fromkeys((*watched.skipped, *measures.missing)))
    examples = {finding.kind: watched.examples[finding.kind] for finding in findings if watched.examples.get(finding.kind)}
    result = ValidationResult(tuple(map(str, inputs)), watched.num_documents, findings, skipped, examples)
    if output is not None:
        make_directory(Path(output).parent)
        write_json(Path(output), result.to_json())
    return result


def _look(watched: Watched, looked: Looked) -> None:
    document = looked.document
    words = document.text.split()
    exact = xxhash.xxh3_64_intdigest(document.text.encode())
    spaced = xxhash.xxh3_64_intdigest(" ".join(words).encode())
    watched.add(document.id, document.text, len(words), exact, spaced, document.split, is_measured=looked.is_measured)


def _chosen(checks: str) -> list[str]:
    names = [name.strip() for name in checks.split(",") if name.strip()]
    unknown = [name for name in names if name not in CHECKS]
    if unknown or not names:
        raise ConfigError(f"--checks has {', '.join(unknown) or 'no check'}", remedy=f"the checks are {', '.join(CHECKS)}")
    return [name for name in CHECKS if name in names]


def _require_range(limits: Thresholds) -> None:
    problems = []
    for each in fields(limits):
        value = getattr(limits, each.name)
        is_share = each.type == "float"
        if value < 0 or (is_share and value > 1):
            problems.append(f"--{each.name.replace('_', '-')} is {value} but must be >= 0{' and <= 1' if is_share else ''}")
    if problems:
        raise ConfigError("wrong thresholds", problems=problems)
