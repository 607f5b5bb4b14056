"""Stopping and resuming changes nothing: order, rates, losses and weights are those of the uninterrupted run."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from llm_training.config.root import Config
from llm_training.errors import StoppedEarly
from llm_training.events import Event, EventBus, StepCompleted
from llm_training.jobs.train import train
from tests.end_to_end.tiny import Chain, recorded_steps, tiny_config, write_corpus


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def shared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache is built, so that runs only train."""
    folder = tmp_path_factory.mktemp("shared")
    train(tiny_config(folder, source, **{"training.max_steps": 1, "training.output_dir": str(folder / "first")}))
    return folder


def config_in(shared: Path, source: Path, name: str, **changes: Any) -> Config:
    return tiny_config(shared, source, **({"training.output_dir": str(shared / name)} | changes))


def stop_at(step: int) -> EventBus:
    """A bus with a subscriber that sends this process SIGTERM when the step completes."""
    bus = EventBus()

    def watch(event: Event) -> None:
        if isinstance(event, StepCompleted) and event.step == step:
            signal.raise_signal(signal.SIGTERM)

    bus.subscribe(watch)
    return bus


def run_chain(config: Config) -> Chain:
    with recorded_steps() as chain:
        train(config)
    return chain


@pytest.mark.slow
@pytest.mark.parametrize("variant", [{}, {"model.dropout": 0.1, "model.family": "gpt2", "training.optimizer": "adamw"}], ids=["muon", "dropout"])
def test_stop_and_resume_at_every_step(shared: Path, source: Path, variant: dict[str, Any]) -> None:
    name = f"straight-{len(variant)}"
    expected = run_chain(config_in(shared, source, name, **variant))
    assert sorted(expected.links) == list(range(1, 41))
    for step in range(1, 40):
        config = config_in(shared, source, f"stopped-{len(variant)}-{step}", **variant)
        with recorded_steps() as chain:
            with pytest.raises(StoppedEarly) as stopped:
                train(config, bus=stop_at(step))
            assert stopped.value.exit_code == 75
            assert max(chain.links) == step
            train(config)
        assert chain.links == expected.links, f"stopped at step {step}"
        shutil.rmtree(str(config.training.output_dir))


@pytest.mark.slow
def test_the_order_does_not_depend_on_micro_batches(shared: Path, source: Path) -> None:
    """Same effective batch, another split: same rows in the same order, losses equal to rounding."""
    whole = run_chain(config_in(shared, source, "micro-8", **{"training.batch_size": 8, "training.gradient_accumulation_steps": 1}))
    split = run_chain(config_in(shared, source, "micro-1", **{"training.batch_size": 1, "training.gradient_accumulation_steps": 8}))
    for step in range(1, 41):
        assert whole.links[step][2] == pytest.approx(split.links[step][2], rel=1e-5), step


def test_resuming_a_finished_run_does_nothing(shared: Path, source: Path) -> None:
    config = config_in(shared, source, "finished", **{"training.max_steps": 3})
    assert train(config).step == 3
    with recorded_steps() as chain:
        assert train(config).reason == "finished"
    assert chain.links == {}
