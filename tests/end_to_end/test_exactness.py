"""Stopping and resuming changes nothing: order, rates, losses and weights are those of the uninterrupted run."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from llm_training.config.root import Config
from llm_training.errors import ConfigError, StoppedEarly
from llm_training.events import CacheGrown, Event, EventBus, StepCompleted
from llm_training.jobs import rates
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
@pytest.mark.parametrize(
    "variant", [{}, {"model.dropout": 0.1, "model.family": "gpt2", "training.optimizer": "adamw"}], ids=["muon", "dropout"]
)
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


def test_a_run_that_goes_on_keeps_the_rates_it_began_with(shared: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other defaults, as of another version of the program, do not reach it; what is asked for does."""
    expected = run_chain(config_in(shared, source, "rates"))
    configs = [
        config_in(shared, source, "rates-2"),
        config_in(shared, source, "rates-3"),
        config_in(shared, source, "rates-3", **{"training.muon_learning_rate": 0.2}),
    ]
    with recorded_steps() as chain, pytest.raises(StoppedEarly):
        train(configs[0], bus=stop_at(10))
    with recorded_steps() as changed, pytest.raises(StoppedEarly):
        train(configs[1], bus=stop_at(10))
    monkeypatch.setattr(rates, "MUON_RATE", 0.5)
    monkeypatch.setattr(rates, "MUON_ADAMW_RATE", 0.5)
    monkeypatch.setattr(rates, "EMBEDDING_RATE_RATIO", 99.0)
    chain.links |= run_chain(configs[0]).links
    assert chain.links == expected.links
    changed.links |= run_chain(configs[2]).links
    assert changed.links[11] != expected.links[11] or changed.links[12] != expected.links[12]


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


def test_a_longer_length_on_resume_stretches_the_rest_of_the_run(shared: Path, source: Path) -> None:
    short = config_in(shared, source, "longer", **{"training.max_steps": 40})
    with pytest.raises(StoppedEarly):
        train(short, bus=stop_at(10))
    with recorded_steps() as chain:
        result = train(config_in(shared, source, "longer", **{"training.max_steps": 60}))
    assert result.step == 60
    assert sorted(chain.links) == list(range(11, 61))
    # Bit for bit the same when that session is stopped and resumed in turn.
    with pytest.raises(StoppedEarly):
        train(config_in(shared, source, "longer-2", **{"training.max_steps": 40}), bus=stop_at(10))
    with recorded_steps() as again:
        for step in (15, 50):
            with pytest.raises(StoppedEarly):
                train(config_in(shared, source, "longer-2", **{"training.max_steps": 60}), bus=stop_at(step))
        train(config_in(shared, source, "longer-2", **{"training.max_steps": 60}))
    assert {step: link for step, link in again.links.items() if step > 10} == chain.links


def test_growth_on_resume_takes_in_new_rows_once_and_replays(source: Path, tmp_path: Path) -> None:
    """Two joins, then a resume from before the second: order and weights are those of the run that saw both."""
    texts = shutil.copytree(source, tmp_path / "texts")
    epochs = {"training.max_steps": None, "training.num_epochs": 6, "cache.chunk_bytes": 10_000}

    def config(name: str) -> Config:
        return tiny_config(tmp_path, texts, **epochs, **{"training.output_dir": str(tmp_path / name)})

    def grow(number: int) -> None:
        for path in write_corpus(tmp_path / f"more-{number}", documents=20, seed=number).iterdir():
            shutil.copy(path, texts / f"more-{number}-{path.name}")

    events: list[Event] = []
    with recorded_steps() as chain:
        for number, step in ((1, 7), (2, 19)):
            with pytest.raises(StoppedEarly):
                train(config("grown"), bus=stop_at(step))
            grow(number)
        bus = EventBus()
        bus.subscribe(events.append)
        final = train(config("grown"), bus=bus)
    grown = [event for event in events if isinstance(event, CacheGrown)]
    assert [event.step for event in grown] == [19]
    assert grown[0].new_sequences > grown[0].old_sequences
    assert final.step == grown[0].new_total_steps
    # The resume that replays: go back to the checkpoint of step 10 and run to the end again.
    with recorded_steps() as again:
        train(config("grown"), bus=EventBus())
    assert again.links == {}
    checkpoints = tmp_path / "grown" / "checkpoints"
    for path in checkpoints.glob("step-*"):
        if path.name not in ("step-00000010", "step-00000007"):
            shutil.rmtree(path)
    for pointer in ("latest", "final", "best_model"):
        (checkpoints / pointer).unlink(missing_ok=True)
    with recorded_steps() as replayed:
        train(config("grown"))
    assert replayed.links, "nothing was replayed"
    assert replayed.links == {step: chain.links[step] for step in replayed.links}


def test_a_run_can_start_from_the_weights_of_another(shared: Path, source: Path) -> None:
    """The optimizer is then AdamW, shape and tokenizer are the other model's, and the loss goes on from where it was."""
    first = train(config_in(shared, source, "origin"))
    given = {"model.init_from": str(shared / "origin"), "model.hidden_size": None, "model.num_layers": None}
    with recorded_steps() as chain:
        tuned = train(config_in(shared, source, "tuned", **given, **{"training.max_steps": 5, "model.num_attention_heads": None}))
    assert chain.links[1][2] < 5.0, "an untrained model begins at ln 300 = 5.7"
    assert tuned.figures["loss_nats"] < first.figures["loss_nats"] + 0.05
    seen = dict(chain.links[1][1])
    assert set(seen) == {"adamw", "embedding", "muon"} and seen["embedding"] == seen["adamw"] > 0
    with pytest.raises(ConfigError, match="reads 32 tokens"):
        train(config_in(shared, source, "too-long", **given, **{"cache.sequence_length": 64}))


def test_a_project_folder_that_was_moved_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, cache and run in one folder, named from within it: another place of the folder is no other data."""
    home = tmp_path / "here"
    home.mkdir()
    monkeypatch.chdir(home)
    write_corpus(Path("texts"))
    config = tiny_config(Path(), Path("texts"))
    with pytest.raises(StoppedEarly):
        train(config, bus=stop_at(3))
    monkeypatch.chdir(tmp_path)
    home.rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    with recorded_steps() as chain:
        finished = train(config)
    assert finished.reason == "finished" and min(chain.links) == 4
    assert len(list(Path("cache/store").glob("*/cache_metadata.json"))) == 1
