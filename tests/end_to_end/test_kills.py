"""One hundred ``kill -9`` at random moments: every run ends equal to the one that was never killed.

Children are forked from this warm process, so that a start costs a fraction of a second. Twenty kills fall at named points
inside a save; of the others most come after the first checkpoint. Counts are printed. The nightly run draws other moments.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from llm_training.jobs.train import train
from llm_training.monitoring.jsonl import VOLATILE_FIELDS
from llm_training.storage.append import read_jsonl
from llm_training.storage.faults import forget_visits
from llm_training.storage.hashing import FileRecord
from llm_training.storage.reading import hash_file
from tests.end_to_end.tiny import tiny_config, write_corpus
from tests.faults.memory import memory_directory

STEPS = 64
POINTS_IN_A_SAVE = ("ckpt.before_model", "ckpt.after_model", "ckpt.before_manifest", "ckpt.after_manifest", "ckpt.after_rename")
SEED = 20_240_601
KILLS, KILLS_IN_A_SAVE, KILLS_AFTER_A_CHECKPOINT = 100, 20, 60
FILES = ("model.safetensors", "training_state/optimizer.safetensors", "config.json", "tokenizer.json")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


def start(config: Any, fault: str | None) -> int:
    """Fork a child that trains; its exit status is 0 only when the run finished."""
    child = os.fork()
    if child:
        return child
    forget_visits()
    if fault:
        os.environ["LLM_TRAINING_FAULT"] = fault
    try:
        train(config)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(99)


def ended_by_itself(child: int, *, within_seconds: float) -> int | None:
    """The child's exit status, or None when it still runs after the time given."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def result_of(run: Path) -> tuple[list[FileRecord], list[dict[str, Any]]]:
    """Hashes of the final checkpoint, and the step records without what timing decides."""
    final = run / "checkpoints" / "final"
    records = [record for record in read_jsonl(run / "metrics.jsonl") if record["kind"] == "step"]
    return [hash_file(final / name) for name in FILES], [
        {key: value for key, value in record.items() if key not in VOLATILE_FIELDS} for record in records
    ]


@pytest.mark.parametrize(
    ("seed", "times"), [(SEED, 1), pytest.param(None, 5, marks=pytest.mark.nightly)], ids=["a-hundred", "five-hundred"]
)
def test_kills(seed: int | None, times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)
    seed = time.time_ns() if seed is None else seed
    rng = random.Random(seed)
    with memory_directory(tmp_path) as folder:
        source = write_corpus(folder / "corpus")
        changes = {"training.max_steps": STEPS, "training.save_steps": 4, "training.eval_steps": 32}

        def config(name: str) -> Any:
            return tiny_config(folder, source, **changes, **{"training.output_dir": str(folder / name)})

        for name in ("first", "unkilled"):  # the first one also builds the cache
            child = start(config(name), None)
            began = time.monotonic()
            assert ended_by_itself(child, within_seconds=300) == 0
            whole = time.monotonic() - began
        expected = result_of(folder / "unkilled")
        assert [record["step"] for record in expected[1]] == list(range(1, STEPS + 1))
        kills = in_save = after_checkpoint = runs = 0

        def is_wanting() -> bool:
            wanted = (KILLS * times, KILLS_IN_A_SAVE * times, KILLS_AFTER_A_CHECKPOINT * times)
            return any(count < least for count, least in zip((kills, in_save, after_checkpoint), wanted, strict=True))

        while is_wanting():
            runs += 1
            run = folder / f"killed-{runs}"
            while True:
                has_checkpoint = (run / "checkpoints" / "latest").exists()
                aims_at_save = in_save < KILLS_IN_A_SAVE * times and rng.random() < 0.4
                fault = f"{rng.choice(POINTS_IN_A_SAVE)}:kill@{rng.randint(1, 3)}" if aims_at_save else None
                child = start(config(run.name), fault)
                status = ended_by_itself(child, within_seconds=rng.uniform(0.1, 0.9) * whole if is_wanting() and not fault else 300)
                if status == 0:
                    break
                if status is None:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                else:
                    assert status == -signal.SIGKILL, status
                    in_save += 1
                kills += 1
                after_checkpoint += has_checkpoint
            assert result_of(run) == expected, f"run {runs} of seed {seed} differs after kills"
    with capsys.disabled():
        print(f"\n{kills} kills over {runs} runs: {after_checkpoint} after the first checkpoint, {in_save} inside a save; all ended equal")
