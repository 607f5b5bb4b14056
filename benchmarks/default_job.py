"""The main job as a user meets it: ``llm-train`` without arguments, in an empty folder, then what its model is worth.

``python -m benchmarks.default_job`` runs the job (about six minutes); ``--run DIR`` judges a run that is there. Bits per byte are
those the job itself reports, on the held-out files. Twenty samples are written, none chosen: each line is tried with
Python's own tokenizer, and every stretch of 200 characters is looked for in the training text.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import tokenize
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Result, run_benchmark
from llm_training.config.load import load_config
from llm_training.corpus import TRAIN, SliceReader, make_plan
from llm_training.generation.generate import StopRules, generate
from llm_training.generation.sampling import SamplingSettings
from llm_training.jobs.datasets import open_sources
from llm_training.jobs.models import load_model
from llm_training.storage.append import read_jsonl

DESCRIPTION = "the default job: bits per byte on held-out files, time, and what its samples look like"
SAMPLES, SAMPLE_TOKENS = 20, 200
LONGEST_COPY = 200
BLOCK = 50


def add_options(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark takes."""
    parser.add_argument("--run", type=Path, help="judge this run instead of training one")


def measure(options: argparse.Namespace) -> Result:
    """Train (unless a run is given), then read its figures and judge its samples."""
    with tempfile.TemporaryDirectory(prefix="bench-default-") as name:
        folder = Path(name)
        if options.run is None:
            words = [sys.executable, "-m", "llm_training.main", *(["--max-steps", "20"] if options.quick else [])]
            began = time.monotonic()
            subprocess.run(words, cwd=folder, check=True, stdout=sys.stderr)
            seconds = time.monotonic() - began
            run = next((folder / "runs").iterdir())
        else:
            run, seconds = options.run, None
        return _judge(run, seconds)


def _judge(run: Path, seconds: float | None) -> Result:
    figures = json.loads((run / "evaluation.json").read_text())
    steps = [record for record in read_jsonl(run / "metrics.jsonl") if record["kind"] == "step"]
    training = steps[-1]["elapsed_seconds"]
    samples = write_samples(run)
    share, bad = python_share(samples)
    copied = longest_copy(samples, training_text(run))
    found = [
        Figure(what="bits per byte, held-out files", value=figures["bits_per_byte"], unit="bits", bar=1.25, aim=1.0, is_ceiling=True),
        Figure(what="training time, compile and evaluations inside", value=training, unit="s", bar=300.0, is_ceiling=True),
        Figure(what="lines of 20 samples that tokenize as Python", value=share, unit="share", bar=0.8),
        Figure(what="longest copy of training text in a sample, at least", value=copied, unit="characters", bar=199, is_ceiling=True),
        Figure(what="tokens seen", value=sum(record["tokens"] for record in steps), unit="tokens"),
    ]
    if seconds is not None:
        found.append(Figure(what="the whole command, from start to prompt", value=seconds, unit="s"))
    details: dict[str, Any] = {"evaluation": figures, "steps": len(steps), "samples": samples, "lines_that_fail": bad[:20]}
    return Result(figures=found, details=details)


def write_samples(run: Path) -> list[str]:
    """Texts from the start of a document, with the settings of the job and seeds 0 to 19."""
    loaded = load_model(str(run))
    settings = load_config([str(run / "config.yaml")]).config.evaluation
    results = generate(
        loaded.model,
        [[loaded.tokenizer.separator_id]] * SAMPLES,
        max_new_tokens=SAMPLE_TOKENS,
        sampling=SamplingSettings(temperature=settings.temperature, top_p=settings.top_p, seed=0),
        stop=StopRules(token_ids=frozenset({loaded.tokenizer.separator_id})),
    )
    return [loaded.tokenizer.decode(result.token_ids) for result in results]


def python_share(samples: list[str]) -> tuple[float, list[str]]:
    """Share of the non-empty lines that tokenize, each on its own; and those that do not."""
    lines = [line.strip() for sample in samples for line in sample.splitlines() if line.strip()]
    bad = [line for line in lines if not tokenizes(line)]
    return (1 - len(bad) / len(lines) if lines else 0.0), bad


def tokenizes(line: str) -> bool:
    """True when Python's tokenizer takes the line; an open bracket or an open triple quote goes on in the next line."""
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(line + "\n").readline)]
    except tokenize.TokenError as error:
        return "EOF in multi-line" in str(error)
    except SyntaxError:
        return False
    return tokenize.ERRORTOKEN not in kinds


def training_text(run: Path) -> str:
    """All text that the run trained on."""
    corpus = open_sources(load_config([str(run / "config.yaml")]).config)
    reader = SliceReader(corpus, make_plan(corpus))
    try:
        return "\0".join(document.text for document in reader.documents(TRAIN))
    finally:
        reader.close()


def longest_copy(samples: list[str], text: str) -> int:
    """Length of the longest stretch of a sample found in the text, in characters.

    Only stretches that hold a whole block of 50 characters of the sample's own grid are found, so 99 is the least that is told
    apart from nothing; any copy of 100 or more is seen.
    """
    longest = 0
    for sample in samples:
        for start in range(0, len(sample) - BLOCK + 1, BLOCK):
            if sample[start : start + BLOCK] not in text:
                continue
            low, high = start, start + BLOCK
            while high < len(sample) and sample[low : high + 1] in text:
                high += 1
            while low > 0 and sample[low - 1 : high] in text:
                low -= 1
            longest = max(longest, high - low)
    return longest


def main(arguments: list[str]) -> int:
    """Measure and write the result."""
    return run_benchmark("default_job", measure, DESCRIPTION, arguments=arguments, add_options=add_options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
