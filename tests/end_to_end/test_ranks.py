"""Two ranks over gloo on the CPU: the run of one rank, shared out; and no rank is ever left waiting for another."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import llm_training.jobs.train as jobs_train
from llm_training.cache.loader import BatchLoader
from llm_training.checkpoint.load import verify_checkpoint
from llm_training.checkpoint.store import CheckpointStore
from llm_training.config.root import Config
from llm_training.errors import IntegrityError, LlmTrainingError, MemoryLimitError, NumericError, PeerError, StorageError
from llm_training.events import EventBus
from llm_training.model.loss import TokenLoss
from llm_training.training.step import Stepper
from tests.end_to_end.ranks import RankRecord, run_one, run_ranks, training
from tests.end_to_end.tiny import tiny_config, write_corpus

STEPS = 50
SAME_BATCH = {
    "training.max_steps": STEPS,
    "training.batch_size": 2,
    "training.gradient_accumulation_steps": None,
    "training.global_batch_tokens": 256,  # 8 rows of 32
}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fast_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's speed decides nothing in these runs: their length and shape are given."""
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def same_for_all(config: Config) -> Callable[[int], Config]:
    return lambda rank: config


def together(ranks: list[RankRecord]) -> dict[str, list[str]]:
    """Rows of every step over all ranks, in rank order."""
    return {step: [row for rank in ranks for row in rank.rows[step]] for step in ranks[0].rows}


def assert_same_run(one: RankRecord, ranks: list[RankRecord], *, tolerance: float = 1e-5) -> None:
    assert [rank.code for rank in ranks] == [one.code] * len(ranks), [rank.error for rank in ranks]
    assert together(ranks) == one.rows
    for step, loss in one.losses.items():
        for rank in ranks:
            assert rank.losses[step] == pytest.approx(loss, rel=tolerance), step
    for rank in ranks[1:]:
        assert rank.weights == ranks[0].weights


def test_ranks_that_see_another_amount_of_text_take_the_shape_of_the_first(tmp_path: Path, source: Path) -> None:
    """A builder extends the plan between the looks of two ranks at it."""
    dialled = {f"model.{name}": None for name in ("hidden_size", "num_layers", "num_attention_heads")}
    limits = {"training.max_steps": None, "training.num_epochs": 1, "tokenizer.vocab_size": None, "tokenizer.path": "bytes"}
    config = tiny_config(tmp_path, source, **dialled, **limits)
    real = jobs_train.scan_data

    def work(rank: int, bus: EventBus) -> None:
        def seen(*arguments: Any, **options: Any) -> Any:
            return replace(real(*arguments, **options), train_bytes=10 ** (5 + 4 * rank))

        with mock.patch.object(jobs_train, "scan_data", seen), mock.patch.object(jobs_train, "_only_plan", lambda *given: given[4]):
            chosen = jobs_train.train(config, bus=bus, dry_run=True)
        (tmp_path / f"choice-{rank}").write_text(str(chosen))

    assert [rank.code for rank in run_ranks(2, tmp_path / "records", work)] == [0, 0]
    first, second = ((tmp_path / f"choice-{rank}").read_text() for rank in (0, 1))
    assert first == second and "hidden_size" in first


def test_two_ranks_take_the_same_rows_and_reach_the_same_loss(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def config(name: str) -> Config:
        return tiny_config(tmp_path, source, **SAME_BATCH, **{"training.output_dir": str(tmp_path / name)})

    one = run_one(training(same_for_all(config("one"))))
    two = run_ranks(2, tmp_path / "records", training(same_for_all(config("two"))))
    assert len(one.losses) == STEPS
    assert_same_run(one, two)
    worst = max(abs(two[0].losses[step] / loss - 1) for step, loss in one.losses.items())
    with capsys.disabled():
        print(f"\nlargest relative difference of the loss between 1 and 2 ranks over {STEPS} steps: {worst:.1e}")


def test_shares_may_be_uneven(tmp_path: Path, source: Path) -> None:
    """Seven rows a step: one rank takes three of them, the other four."""
    changes: dict[str, Any] = SAME_BATCH | {"training.global_batch_tokens": 7 * 32, "training.max_steps": 8}

    def config(name: str) -> Config:
        return tiny_config(tmp_path, source, **changes, **{"training.output_dir": str(tmp_path / name)})

    one = run_one(training(same_for_all(config("one"))))
    two = run_ranks(2, tmp_path / "records", training(same_for_all(config("two"))))
    assert [len(rank.rows["1"]) for rank in two] == [3, 4]
    assert_same_run(one, two)


@pytest.mark.parametrize("batch", ["tokens", "accumulation"])
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_checkpoint_resumes_on_another_number_of_ranks(tmp_path: Path, source: Path, first: int, then: int, batch: str) -> None:
    """Also when the batch was given as batch x accumulation x ranks: it stays that of the ranks the run began with."""
    given = SAME_BATCH if batch == "tokens" else {"training.batch_size": 2, "training.gradient_accumulation_steps": 2}
    changes = {**given, "training.max_steps": 24}

    def config(name: str) -> Config:
        return tiny_config(tmp_path, source, **changes, **{"training.output_dir": str(tmp_path / name)})

    def run(size: int, name: str, **stop: int) -> list[RankRecord]:
        work = training(same_for_all(config(name)), **stop)
        return [run_one(work)] if size == 1 else run_ranks(size, tmp_path / f"records-{name}-{size}", work)

    straight = run(first, "straight")
    begun = run(first, "moved", stop_rank=0, stop_step=9)
    assert [rank.code for rank in begun] == [75] * first
    moved = run(then, "moved", stop_rank=0, stop_step=15)
    assert [rank.code for rank in moved] == [75] * then, moved[0].error
    last = run(then, "moved")
    assert [rank.code for rank in last] == [0] * then, last[0].error
    rows = {**together(begun), **together(moved), **together(last)}
    assert rows == together(straight)
    losses = {**begun[0].losses, **moved[0].losses, **last[0].losses}
    assert losses == pytest.approx(straight[0].losses, rel=1e-5)


def test_a_signal_to_one_rank_stops_all_at_one_checkpoint(tmp_path: Path, source: Path) -> None:
    config = tiny_config(tmp_path, source, **SAME_BATCH, **{"training.save_steps": 20})
    ranks = run_ranks(2, tmp_path / "records", training(same_for_all(config), stop_rank=1, stop_step=25))
    assert [rank.code for rank in ranks] == [75, 75]
    checkpoints = tmp_path / "run" / "checkpoints"
    assert (checkpoints / "latest").resolve().name == "step-00000025"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == ["step-00000020", "step-00000025"]
    again = run_ranks(2, tmp_path / "records", training(same_for_all(config)))
    assert [rank.code for rank in again] == [0, 0]
    assert sorted(map(int, again[1].losses)) == list(range(26, STEPS + 1))


def test_growth_and_a_new_length_are_the_same_on_all_ranks(tmp_path: Path, source: Path) -> None:
    """Stopped, grown, resumed, stopped, lengthened, resumed; on one rank and on two."""
    texts = shutil.copytree(source, tmp_path / "texts")
    changes = SAME_BATCH | {"training.max_steps": None, "training.epoch_dataset_fraction": 0.15, "cache.chunk_bytes": 10_000}

    def work(name: str, epochs: int, stop: int | None) -> Any:
        config = tiny_config(tmp_path, texts, **changes, **{"training.num_epochs": epochs, "training.output_dir": str(tmp_path / name)})
        return training(same_for_all(config), **({} if stop is None else {"stop_rank": 0, "stop_step": stop}))

    def session(epochs: int, stop: int | None) -> tuple[RankRecord, list[RankRecord]]:
        one = run_one(work("one", epochs, stop))
        return one, run_ranks(2, tmp_path / "records", work("two", epochs, stop))

    sessions = [session(4, 5)]
    for path in write_corpus(tmp_path / "more", documents=20, seed=1).iterdir():
        shutil.copy(path, texts / f"more-{path.name}")
    sessions += [session(4, 9), session(6, None)]
    for one, two in sessions:
        assert_same_run(one, two)
        assert two[0].total_steps == one.total_steps
    assert sessions[1][0].rows.keys() == {"6", "7", "8", "9"}
    totals = [one.total_steps for one, _ in sessions]
    assert totals[0] < totals[1] < totals[2]


def test_a_time_budget_plans_the_same_steps_on_all_ranks(tmp_path: Path, source: Path) -> None:
    changes = SAME_BATCH | {"training.max_steps": None, "training.time_budget_minutes": 0.05}
    ranks = run_ranks(2, tmp_path / "records", training(same_for_all(tiny_config(tmp_path, source, **changes))))
    assert [rank.code for rank in ranks] == [0, 0], [rank.error for rank in ranks]
    assert ranks[0].weights == ranks[1].weights
    assert ranks[0].seconds < 60


def test_the_dial_chooses_the_same_on_ranks_of_different_speed(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second rank measures a thousand times the speed of the first."""
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e9 * 1000 ** int(os.environ.get("RANK", "0")))
    free = dict.fromkeys(["model.hidden_size", "model.num_layers", "model.num_attention_heads", "training.batch_size"])
    changes = SAME_BATCH | free | {"training.global_batch_tokens": None, "training.max_steps": 2}
    config = tiny_config(tmp_path, source, **changes, **{"training.time_budget_minutes": 1.0})
    ranks = run_ranks(2, tmp_path / "records", training(same_for_all(config)))
    assert [rank.code for rank in ranks] == [0, 0], [rank.error for rank in ranks]
    assert ranks[0].weights == ranks[1].weights


DISAGREEMENTS: dict[str, dict[str, Any]] = {
    "training.seed": {"training.seed": 7},
    "training.resume": {"training.resume": "never"},
    "training.output_dir": {"training.output_dir": "elsewhere"},
    "training.max_steps": {"training.max_steps": 49},
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_ranks_with_other_configurations_are_refused(tmp_path: Path, source: Path, name: str) -> None:
    def config(rank: int) -> Config:
        return tiny_config(tmp_path, source, **(SAME_BATCH | (DISAGREEMENTS[name] if rank else {})))

    ranks = run_ranks(2, tmp_path / "records", training(config))
    assert [rank.code for rank in ranks] == [2, 2], [rank.error for rank in ranks]
    assert "ranks disagree" in ranks[0].error
    assert f"{name}: " in ranks[1].error, ranks[1].error
    assert not (tmp_path / "run").exists()


def failing_on(faulty: int, target: type, name: str, error: Exception, *, at_call: int) -> Any:
    """A patch for one rank: the method fails at the call given and after it."""
    original, calls = getattr(target, name), [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if os.environ.get("RANK") == str(faulty) and calls[0] >= at_call:
            raise error
        return original(*args, **kwargs)

    return mock.patch.object(target, name, call)


@pytest.mark.parametrize(
    ("faulty", "target", "name", "error"),
    [
        (1, BatchLoader, "fetch", IntegrityError("a chunk is damaged")),
        (0, BatchLoader, "fetch", IntegrityError("a chunk is damaged")),
        (0, CheckpointStore, "save_async", StorageError("the disk is full")),
        (1, CheckpointStore, "find", IntegrityError("damaged on this machine")),
        (1, Stepper, "run", MemoryLimitError("out of memory")),
    ],
    ids=["data", "data-first-rank", "save", "checkpoint", "memory"],
)
def test_a_failure_of_one_rank_ends_all_and_keeps_the_checkpoint(
    tmp_path: Path, source: Path, faulty: int, target: type, name: str, error: LlmTrainingError
) -> None:
    """The failed rank ends with its own error, the others with that of a lost peer; nobody waits for the time-out."""
    config = tiny_config(tmp_path, source, **SAME_BATCH)
    begun = run_ranks(2, tmp_path / "records", training(same_for_all(config), stop_rank=0, stop_step=15))
    assert [rank.code for rank in begun] == [75, 75]
    with failing_on(faulty, target, name, error, at_call=1 if name in ("find", "save_async") else 8):
        ranks = run_ranks(2, tmp_path / "records", training(same_for_all(config)))
    assert ranks[faulty].code == error.exit_code
    assert ranks[1 - faulty].code == PeerError.exit_code, ranks[1 - faulty].error
    assert max(rank.seconds for rank in ranks) < 30
    latest = (tmp_path / "run" / "checkpoints" / "latest").resolve()
    assert latest.name == ("step-00000015" if name in ("find", "save_async") else "step-00000020")
    verify_checkpoint(latest)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_other_and_the_run_goes_on(tmp_path: Path, source: Path, killed: int) -> None:
    config = tiny_config(tmp_path, source, **SAME_BATCH, **{"training.save_steps": 5})
    original = Stepper.run

    def run(self: Stepper, step: int, *args: Any) -> Any:
        if step == 17 and os.environ.get("RANK") == str(killed):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, step, *args)

    with mock.patch.object(Stepper, "run", run):
        ranks = run_ranks(2, tmp_path / "records", training(same_for_all(config)))
    assert ranks[killed].code == -signal.SIGKILL
    assert ranks[1 - killed].code == PeerError.exit_code
    assert ranks[1 - killed].seconds < 30
    again = run_ranks(2, tmp_path / "records", training(same_for_all(config)))
    assert [rank.code for rank in again] == [0, 0]
    # The save of step 15 may have been under way; that of step 10 was whole before it began.
    assert min(map(int, again[0].losses)) in (11, 16)


def test_numbers_that_are_not_finite_on_one_rank_are_skipped_and_stop_all(tmp_path: Path, source: Path) -> None:
    original, calls = TokenLoss.forward, [0]

    def forward(self: TokenLoss, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        loss = original(self, *args, **kwargs)
        step = (calls[0] - 1) // 2  # two micro-batches a rank and step
        is_bad = os.environ.get("RANK") == "1" and (step == 4 or step >= 12)
        return loss * math.nan if is_bad else loss

    config = tiny_config(tmp_path, source, **SAME_BATCH)
    with mock.patch.object(TokenLoss, "forward", forward):
        ranks = run_ranks(2, tmp_path / "records", training(same_for_all(config)))
    assert [rank.code for rank in ranks] == [NumericError.exit_code] * 2, [rank.error for rank in ranks]
    for rank in ranks:
        assert rank.weights == ranks[0].weights
        assert rank.weights["5"] == rank.weights["4"]
        assert rank.weights["6"] != rank.weights["5"]
