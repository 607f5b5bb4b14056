"""Cleaning of OpenStax and Gutenberg: all rules, exact and near-duplicates, as ``llm-prepare-data`` does it; and the share of each step."""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Result, missing, run_benchmark, seconds_of, summarize
from benchmarks.text import find_data, unpack
from llm_training.cleaning import Cleaner, CleaningSettings, TextView, mask, normalise, quality_score
from llm_training.cleaning.html import is_html
from llm_training.cleaning.language import judge_language
from llm_training.cleaning.shingles import band_keys, content_key, shingles
from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.events import EventBus
from llm_training.jobs.clean_corpus import CleanedCorpus, CleaningPlan, clean_corpus

DESCRIPTION = "MB of text a second through all cleaning rules, exact and near-duplicates, two workers; the share of each step on one core"
_SETTINGS = CorpusSettings(validation_fraction=0.01, slice_bytes=2 << 20)


def measure(options: argparse.Namespace) -> Result:
    """The whole job with two workers, then every step alone on a sample."""
    data = find_data()
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="bench-cleaning-") as name:
        folder = Path(name)
        plain = unpack(data, folder / "text", is_quick=options.quick)
        corpus = open_corpus([str(plain)], _SETTINGS)
        plan = make_plan(corpus)
        results: list[CleanedCorpus] = []
        speeds: list[float] = []
        cpu_speeds: list[float] = []
        for number in range(1 if options.quick else 2):
            output = folder / f"out-{number}"
            output.mkdir()
            before = _cpu_seconds()
            seconds = seconds_of(partial(_clean, corpus, plan, output, results))
            speeds.append(plan.num_bytes / 1e6 / seconds)
            cpu_speeds.append(plan.num_bytes / 1e6 / (_cpu_seconds() - before))
        shares, alone = _steps(corpus, plan)
    figures = [Figure(what="all rules and near-duplicates, 2 workers, best run", value=max(speeds), unit="MB/s", bar=1.5, aim=5.0)]
    figures.append(Figure(what="the same for each second of CPU time", value=max(cpu_speeds), unit="MB/CPU s"))
    figures += [Figure(what=f"share of {step}", value=share, unit="of the time") for step, share in shares.items()]
    figures.append(Figure(what="all steps one after another, one core", value=alone, unit="MB/s"))
    details: dict[str, Any] = {
        "mb": plan.num_bytes / 1e6,
        "speeds": summarize(speeds),
        "documents": results[-1].num_documents,
        "dropped": dict(results[-1].dropped),
        "changes": dict(results[-1].changes),
    }
    return Result(figures=figures, details=details)


def _clean(corpus: Any, plan: Any, output: Path, results: list[CleanedCorpus]) -> None:
    results.append(clean_corpus(corpus, plan, CleaningPlan(), output, workers=2, bus=EventBus()))


def _cpu_seconds() -> float:
    """CPU time of this process and of the workers that have ended: what a busy machine cannot stretch much."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _steps(corpus: Any, plan: Any) -> tuple[dict[str, float], float]:
    """Share of each step on every 20th document, the words that rules share counted by themselves; and MB/s of all."""
    reader = SliceReader(corpus, plan)
    texts = [document.text for document in itertools.islice(reader.documents(), 0, None, 20)]
    reader.close()
    rules = Cleaner(CleaningSettings()).rules
    languages = frozenset({"en"})
    judge_language(texts[0], languages, 0.0)  # loads the model
    spent: Counter[str] = Counter()

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        spent[step] += time.perf_counter() - start
        return result

    gc.collect()
    for text in texts:
        text = timed("normalise", lambda: normalise(text))[0]  # noqa: B023
        timed("html", lambda: is_html(text))  # noqa: B023
        view = TextView(text)
        timed("language", lambda: judge_language(text, languages, 0.65))  # noqa: B023
        timed("words", lambda: (view.words, view.lines))  # noqa: B023
        timed("paragraphs", lambda: view.paragraphs)  # noqa: B023
        for step in ("gopher", "repetition", "c4", "fineweb"):
            timed(step, lambda: rules[step](view))  # noqa: B023
        timed("score", lambda: quality_score(view))  # noqa: B023
        timed("pii", lambda: mask(text))  # noqa: B023
        timed("exact duplicates", lambda: content_key(text))  # noqa: B023
        timed("near-duplicates", lambda: band_keys([shingles(text)]))  # noqa: B023
    total = sum(spent.values())
    return {step: seconds / total for step, seconds in spent.most_common()}, sum(map(len, texts)) / 1e6 / total


if __name__ == "__main__":
    if find_data() is None:
        sys.exit(missing("no corpora to clean", "set LLM_TRAINING_TEST_DATA to the folder that holds openstax, gutenberg and gpt2"))
    sys.exit(run_benchmark("cleaning", measure, DESCRIPTION, has_ceiling=False))
