"""Start-up: how long ``llm-train --help`` and ``import llm_training`` take in a fresh process."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Figure, Result, alternate, run_benchmark, seconds_of, summarize

DESCRIPTION = "fresh processes in turn: python -c pass, import llm_training, llm-train --help"


def measure(options: argparse.Namespace) -> Result:
    """Alternate the three commands; the interpreter alone is the floor."""
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import llm_training"],
        "help": [*_llm_train(), "--help"],
    }
    samples = alternate(
        {name: lambda words=words: seconds_of(lambda: _run(words)) for name, words in commands.items()}, 3 if options.quick else 15
    )
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return Result(
        figures=[
            Figure(what="llm-train --help", value=medians["help"], unit="s", bar=0.5, aim=0.3, is_ceiling=True),
            Figure(what="import llm_training, whole process", value=medians["import"], unit="s", bar=0.2, aim=0.05, is_ceiling=True),
            Figure(what="import llm_training, above python -c pass", value=medians["import"] - medians["python"], unit="s"),
        ],
        details={name: summarize(values) for name, values in samples.items()},
    )


def _llm_train() -> list[str]:
    """The installed command beside this interpreter, else the same through ``-m``."""
    script = Path(sys.executable).with_name("llm-train")
    return [str(script)] if script.exists() else [sys.executable, "-m", "llm_training.main"]


def _run(words: list[str]) -> None:
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(run_benchmark("startup", measure, DESCRIPTION))
