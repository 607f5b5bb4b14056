"""How everything is measured: variants in turn (A B A B), medians, ratios of medians, bars, and a JSON result.

Single figures on a shared machine mean little; two variants that alternate within one run share its noise, so their
ratio means much. A variant is a function that does its work once and returns what it measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY, machine_facts, measure_ceiling

RESULTS = REPOSITORY / "benchmarks" / "results"
Variant = Callable[[], float]


def alternate(
    variants: Mapping[str, Variant], repetitions: int, *, warm_up: int = 1, limit_seconds: float = float("inf")
) -> dict[str, list[float]]:
    """Run every variant in turn, ``repetitions`` times round; the first ``warm_up`` rounds are not counted.

    No round begins after ``limit_seconds`` once one has been counted: on a busy machine fewer samples are better than none.
    """
    samples: dict[str, list[float]] = {name: [] for name in variants}
    started = time.monotonic()
    for round_number in range(-warm_up, repetitions):
        if round_number > 0 and time.monotonic() - started > limit_seconds:
            break
        for name, run in variants.items():
            value = run()
            if round_number >= 0:
                samples[name].append(value)
    return samples


def seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def summarize(samples: Sequence[float]) -> dict[str, Any]:
    """Median, range and the samples themselves."""
    return {
        "median": significant(statistics.median(samples)),
        "least": significant(min(samples)),
        "most": significant(max(samples)),
        "samples": [significant(value) for value in samples],
    }


def ratio_of_medians(samples: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Median of ``one`` over the median of ``other``."""
    return statistics.median(samples[one]) / statistics.median(samples[other])


def significant(value: float, digits: int = 5) -> float:
    """Rounded to significant digits: what a measurement holds, and a file that can be read."""
    return float(f"{value:.{digits}g}")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure against its bar. ``is_ceiling``: the bar is a most, not a least. No bar: told, not judged."""

    what: str
    value: float
    unit: str
    bar: float | None = None
    aim: float | None = None
    is_ceiling: bool = False

    @property
    def passes(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.is_ceiling else self.value >= self.bar

    def as_json(self) -> dict[str, Any]:
        """Plain values for the result file."""
        shown = {"what": self.what, "value": significant(self.value), "unit": self.unit, "bar": self.bar, "aim": self.aim}
        return {**shown, "bar_is": "at most" if self.is_ceiling else "at least", "passes": self.passes}


@dataclass
class Result:
    """What a benchmark found: its figures, the samples behind them, and remarks for the reader."""

    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


Measure = Callable[[argparse.Namespace], Result]


def run_benchmark(
    name: str,
    measure: Measure,
    description: str,
    *,
    arguments: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    has_ceiling: bool = True,
) -> int:
    """The command of one benchmark: parse, measure, print the table, write the JSON. Returns the exit code: 0 when it ran.

    A missed bar is a finding, not a failure of the command.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and less work: shows that it runs, not how fast")
    parser.add_argument("--output", type=Path, help=f"result file (default benchmarks/results/{name}.json; with --quick none)")
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(arguments)
    facts = machine_facts()
    start = time.perf_counter()
    result = measure(options)
    document = {
        "benchmark": name,
        "description": description,
        "is_quick": options.quick,
        "figures": [figure.as_json() for figure in result.figures],
        "machine": facts,
        "matmul_ceiling_tflops": measure_ceiling(0.1 if options.quick else 0.5) if has_ceiling else None,
        "load_average_after": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "seconds": round(time.perf_counter() - start, 1),
        "remarks": result.remarks,
        "details": result.details,
    }
    print("\n".join(table_of(document["figures"])))
    for remark in result.remarks:
        print(f"  {remark}")
    output = options.output or (None if options.quick else RESULTS / f"{name}.json")
    if output is not None:
        write_result(output, document)
        print(f"  written to {output}")
    return 0


def write_result(path: Path, document: Mapping[str, Any]) -> None:
    """Write a result as JSON, as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(path)


def table_of(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Figure, bar and verdict in aligned columns."""
    rows = []
    for figure in figures:
        bar = "" if figure["bar"] is None else f"{figure['bar_is']} {figure['bar']:g}"
        verdict = {True: "pass", False: "FAIL", None: ""}[figure["passes"]]
        rows.append((figure["what"], f"{figure['value']:,.4g}", figure["unit"], bar, verdict))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    aligned = "{:<{}}  {:>{}}  {:<{}}  {:<{}}  {:<{}}"
    return [aligned.format(*(part for pair in zip(row, widths, strict=True) for part in pair)).rstrip() for row in rows]


def missing(what: str, remedy: str) -> int:
    """Say in one line what a benchmark lacks; returns exit code 1."""
    print(f"error: {what}; {remedy}", file=sys.stderr)
    return 1
