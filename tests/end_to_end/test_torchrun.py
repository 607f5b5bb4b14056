"""The main job under torchrun itself: one voice, one run directory, and what SIGTERM and its exit code mean there.

torchrun answers for its ranks with exit code 0 or 1 only: a rank's own code (75, 2, ...) is in the lines that it prints. So a
launcher should look for the run's checkpoint, and start the same command again to resume.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_training.checkpoint.load import verify_checkpoint
from llm_training.jobs.train import train
from llm_training.storage.append import read_jsonl
from tests.end_to_end.tiny import tiny_config, write_corpus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def start(folder: Path, source: Path, **changes: Any) -> tuple[subprocess.Popen[str], Any]:
    """Start two ranks of the tiny run by the command that users type."""
    config = tiny_config(folder, source, **changes)
    path = folder / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json", exclude_defaults=True)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [*launcher, "-m", "llm_training.main", "--config", str(path)]
    return subprocess.Popen(words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE), config


def test_one_rank_speaks_and_one_writes(tmp_path: Path, source: Path) -> None:
    process, _ = start(tmp_path, source, **{"training.max_steps": 12, "evaluation.num_samples": 1, "evaluation.sample_tokens": 8})
    output, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    for line in ("Model ", "Compile ", "Final evaluation", "Next:"):
        assert sum(text.strip().startswith(line) for text in output.splitlines()) == 1, (line, output)
    assert "Traceback" not in errors and "Warning" not in errors, errors
    records = [record for record in read_jsonl(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert len(list((tmp_path / "run" / "training_logs").glob("*.json"))) == 1


def test_sigterm_to_torchrun_leaves_one_checkpoint_and_one_rank_goes_on(tmp_path: Path, source: Path) -> None:
    changes = {"training.max_steps": 100_000, "training.save_steps": 100_000}
    process, config = start(tmp_path, source, **changes)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 2_000) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, output + errors
    assert errors.count("error[E75]: stopped by SIGTERM") == 2, errors
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    step = verify_checkpoint(checkpoint).step
    assert [record["step"] for record in read_jsonl(metrics) if record["kind"] == "step"] == list(range(1, step + 1))
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": step + 5})})
    assert train(longer).step == step + 5
