"""Growth while a run is going on: a builder and a trainer, two processes on one cache.

The builder is forked and builds when the trainer reaches given steps, so that joins fall where the test wants them; the
last test lets two commands race. The corpus makes ten chunks; three are there when training begins.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from llm_training.config.root import Config
from llm_training.errors import LockedError
from llm_training.events import CacheGrown, Event, EventBus, Notice, StepCompleted
from llm_training.jobs import cache, datasets
from llm_training.jobs.train import train
from llm_training.storage.append import read_jsonl
from tests.end_to_end.ranks import RankRecord, run_one, run_ranks
from tests.end_to_end.tiny import tiny_config, write_corpus

CHUNKS, FIRST_CHUNKS = 10, 3
JOINS: Mapping[int, int] = {8: 2, 16: 2, 24: 3}  # step: chunks that the builder adds just before the trainer looks
EPOCHS = 1.25
ROWS_A_STEP = 8

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


@pytest.fixture(autouse=True)
def fast_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), documents=160)


def live_config(folder: Path, source: Path, **changes: Any) -> Config:
    values = {
        "cache.growth": "live",
        "cache.growth_check_steps": 8,
        "cache.chunk_bytes": 10_000,
        "training.max_steps": None,
        "training.num_epochs": EPOCHS,
        "training.batch_size": ROWS_A_STEP,
        "training.gradient_accumulation_steps": 1,
        "training.save_steps": 1_000,
        "training.eval_steps": 1_000,
    }
    return tiny_config(folder, source, **(values | changes))


class Builder:
    """A process that builds so many chunks whenever it is asked to."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True)
        self._child = os.fork()
        if self._child == 0:
            self._serve(config)

    def _serve(self, config: Config) -> None:
        try:
            for turn in range(1_000):
                wanted = self._folder / f"wanted-{turn}"
                while not wanted.exists():
                    time.sleep(0.005)
                cache.build(config, max_chunks=int(wanted.read_text()))
                (self._folder / f"built-{turn}").touch()
        finally:
            os._exit(99)

    def build(self, turn: int, chunks: int) -> None:
        """Return once the builder has committed these chunks; a turn that it has done already costs nothing."""
        part = self._folder / f"part-{turn}"
        part.write_text(str(chunks))
        part.rename(self._folder / f"wanted-{turn}")
        deadline = time.monotonic() + 60
        while not (self._folder / f"built-{turn}").exists():
            assert time.monotonic() < deadline, "the builder is dead or hangs"
            time.sleep(0.005)

    def end(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


@contextlib.contextmanager
def building(config: Config, folder: Path) -> Iterator[Builder]:
    """A builder that has built the first chunks."""
    builder = Builder(config, folder)
    try:
        builder.build(0, FIRST_CHUNKS)
        yield builder
    finally:
        builder.end()


def growing(config: Config, builder: Builder, *, kill_at: int | None = None, events: list[Event] | None = None) -> Any:
    """Work that trains while the builder adds chunks at the steps of JOINS; with ``kill_at`` it is killed there."""

    def work(rank: int, bus: EventBus) -> None:
        def watch(event: Event) -> None:
            if events is not None:
                events.append(event)
            if not isinstance(event, StepCompleted) or rank:
                return
            if event.step in JOINS:
                builder.build(list(JOINS).index(event.step) + 1, JOINS[event.step])
            if event.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        bus.subscribe(watch)
        train(config, bus=bus)

    return work


def in_order(ranks: list[RankRecord]) -> list[str]:
    steps = sorted(ranks[0].rows, key=int)
    return [row for step in steps for rank in ranks for row in rank.rows[step]]


def growths(run: Path) -> list[Mapping[str, Any]]:
    return [record for record in read_jsonl(run / "decisions.jsonl") if record["kind"] == "growth"]


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RankRecord, list[Event], Path]:
    """The run that nobody kills."""
    folder = tmp_path_factory.mktemp("straight")
    config, events = live_config(folder, source), list[Event]()
    with mock.patch("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11), building(config, folder / "builder") as builder:
        record = run_one(growing(config, builder, events=events))
    assert record.code == 0, record.error
    return record, events, folder


def test_a_run_takes_in_what_a_builder_adds(straight: tuple[RankRecord, list[Event], Path]) -> None:
    """At recorded steps, with old and new totals, each row at most once an epoch."""
    record, events, folder = straight
    joined = [event for event in events if isinstance(event, CacheGrown)]
    assert [event.step for event in joined] == list(JOINS) == [entry["step"] for entry in growths(folder / "run")]
    assert growths(folder / "run")[-1]["pin"]["ranges"] == [[0, CHUNKS - 1]]
    for before, after in itertools.pairwise(joined):
        assert (before.new_sequences, before.new_total_steps) == (after.old_sequences, after.old_total_steps)
    num_rows = joined[-1].new_sequences
    assert [event.new_total_steps for event in joined] == [int(EPOCHS * event.new_sequences / ROWS_A_STEP) for event in joined]
    assert record.total_steps == len(record.rows) == joined[-1].new_total_steps
    rows = in_order([record])
    first_epoch, second_epoch = rows[:num_rows], rows[num_rows:]
    assert len(set(first_epoch)) == num_rows, "an epoch of a cache that grew in it takes each row once"
    assert len(set(second_epoch)) == len(second_epoch) > 0
    assert set(second_epoch) <= set(first_epoch)
    assert any("training starts with 3 of 10 chunks" in event.message for event in events if isinstance(event, Notice))


def test_the_rate_is_continuous_at_each_join(straight: tuple[RankRecord, list[Event], Path]) -> None:
    record, events, _ = straight
    rates = {event.step: event.learning_rate for event in events if isinstance(event, StepCompleted)}
    warm = [step for step in JOINS if rates[step] == max(rates.values())]
    assert warm, "the first join comes after the warm-up"
    for step in warm:
        assert rates[step + 1] == rates[step]
    assert rates[record.total_steps] < 0.1 * max(rates.values())


@pytest.mark.parametrize("save_steps", [1_000, 12], ids=["from-the-start", "between-the-joins"])
def test_killed_after_two_joins_the_run_replays_them(
    save_steps: int, straight: tuple[RankRecord, list[Event], Path], source: Path, tmp_path: Path
) -> None:
    """``kill -9`` at step 20; the next session starts before a join, with more data in the cache than the run then had."""
    config = live_config(tmp_path, source, **{"training.save_steps": save_steps})
    with building(config, tmp_path / "builder") as builder:
        [killed] = run_ranks(1, tmp_path / "killed", growing(config, builder, kill_at=20))
        assert killed.code == -signal.SIGKILL
        assert [entry["step"] for entry in growths(tmp_path / "run")] == [8, 16]
        resumed = run_one(growing(config, builder))
    expected = straight[0]
    assert resumed.code == 0, resumed.error
    assert min(map(int, resumed.rows)) == (13 if save_steps == 12 else 1)
    assert resumed.rows == {step: expected.rows[step] for step in resumed.rows}
    assert resumed.weights == {step: expected.weights[step] for step in resumed.weights}
    assert resumed.total_steps == expected.total_steps == max(map(int, resumed.rows))
    assert growths(tmp_path / "run") == growths(straight[2] / "run")


def test_two_ranks_take_the_rows_of_one(straight: tuple[RankRecord, list[Event], Path], source: Path, tmp_path: Path) -> None:
    config = live_config(tmp_path, source, **{"training.batch_size": 4})
    with building(config, tmp_path / "builder") as builder:
        ranks = run_ranks(2, tmp_path / "records", growing(config, builder))
    assert [rank.code for rank in ranks] == [0, 0], [rank.error for rank in ranks]
    assert in_order(ranks) == in_order([straight[0]])
    assert ranks[0].weights == ranks[1].weights
    for step in map(str, range(1, 41)):
        assert ranks[0].losses[step] == pytest.approx(straight[0].losses[step], rel=1e-5), step


def test_data_that_comes_when_the_rate_falls_waits(source: Path, tmp_path: Path) -> None:
    config = live_config(tmp_path, source, **{"training.decay_fraction": 1.0})
    events: list[Event] = []
    with building(config, tmp_path / "builder") as builder:
        record = run_one(growing(config, builder, events=events))
    assert record.code == 0, record.error
    assert growths(tmp_path / "run") == []
    assert not any(isinstance(event, CacheGrown) for event in events)
    said = [event.message for event in events if isinstance(event, Notice) and "wait for the next run" in event.message]
    assert len(said) == 1


def test_a_run_waits_for_the_first_chunk_of_a_builder_at_work(source: Path, tmp_path: Path) -> None:
    """An empty cache that somebody builds is waited for; one that nobody builds is built."""
    config = live_config(tmp_path, source, **{"training.max_steps": 2, "training.num_epochs": None})
    original, refused = datasets.build_cache, list[str]()

    def build(*args: Any, **options: Any) -> Any:
        if not refused:
            refused.append("once")
            raise LockedError("the cache is in use by process 1", where="here", remedy="wait")
        return original(*args, **options)

    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    with mock.patch.object(datasets, "build_cache", build):
        assert train(config, bus=bus).step == 2
    assert any("waiting for the first chunk" in event.message for event in events if isinstance(event, Notice))


def test_two_commands_on_one_cache(source: Path, tmp_path: Path) -> None:
    """As a user types them, with nothing that keeps them in step."""
    common = [str(source), "--cache.dir", str(tmp_path / "cache"), "--cache.chunk-bytes", "10000", "--sequence-length", "32"]
    common += ["--tokenizer.vocab-size", "300"]
    build = [sys.executable, "-m", "llm_training", "build-cache", *common]
    done = subprocess.run([*build, "--chunks", str(FIRST_CHUNKS)], capture_output=True, text=True, timeout=120, check=True)
    assert "7 chunks are left" in done.stdout
    run = tmp_path / "run"
    words = [
        "--cache.growth",
        "live",
        "--growth-check-steps",
        "5",
        "--hidden-size",
        "16",
        "--num-layers",
        "2",
        "--num-attention-heads",
        "2",
    ]
    words += ["--num-epochs", "40", "--batch-size", "8", "--precision", "fp32", "--evaluation.num-samples", "0", "--output-dir", str(run)]
    trainer = subprocess.Popen(
        [sys.executable, "-m", "llm_training", "train", *common, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 90
        while not any(record["kind"] == "step" for record in read_jsonl(run / "metrics.jsonl")):
            assert trainer.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        subprocess.run(build, capture_output=True, text=True, timeout=120, check=True)
        while not growths(run) or growths(run)[-1]["pin"]["ranges"] != [[0, CHUNKS - 1]]:
            assert trainer.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        trainer.send_signal(signal.SIGTERM)
        output = trainer.communicate(timeout=60)[0]
    finally:
        trainer.kill()
        trainer.wait()
    assert trainer.returncode == 75, output
    assert "Dataset expanded" in output
