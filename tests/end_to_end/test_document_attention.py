"""Document-limited attention as a run's own choice: it changes what is learned, holds over resumes and ranks, and says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_training.config.root import Config
from llm_training.errors import IntegrityError, StoppedEarly
from llm_training.events import Event, EventBus, PlanReady
from llm_training.jobs.train import train
from llm_training.training.documents import DocumentChoice
from tests.end_to_end.ranks import run_one, run_ranks, training
from tests.end_to_end.test_exactness import run_chain, stop_at
from tests.end_to_end.tiny import recorded_steps, tiny_config, write_corpus

STEPS = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def config_in(folder: Path, source: Path, name: str, wanted: str, **changes: Any) -> Config:
    values = {"training.output_dir": str(folder / name), "cache.document_attention": wanted, "training.max_steps": STEPS}
    return tiny_config(folder, source, **(values | changes))


def start_record(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name / "decisions.jsonl").read_text().splitlines()[0])


def test_it_changes_what_is_learned_and_the_plan_says_which(folder: Path, source: Path) -> None:
    lines: dict[str, str] = {}
    chains = {}
    for wanted in ("true", "false", "auto"):
        bus = EventBus()

        def keep(event: Event, wanted: str = wanted) -> None:
            if isinstance(event, PlanReady):
                lines[wanted] = next(line for line in event.lines if line.startswith("Attention: "))

        bus.subscribe(keep)
        with recorded_steps() as chain:
            train(config_in(folder, source, f"plain-{wanted}", wanted), bus=bus)
        chains[wanted] = chain.links
    assert [link[0] for link in chains["true"].values()] == [link[0] for link in chains["false"].values()], "rows and labels are the same"
    assert chains["true"][STEPS][2:] != chains["false"][STEPS][2:]
    assert chains["auto"] == chains["false"]
    assert lines["true"] == "Attention: within each document (as asked)"
    assert lines["false"] == "Attention: across the documents of a row (switched off)"
    assert lines["auto"] == "Attention: across the documents of a row (documents are longer than rows)"
    assert [start_record(folder, f"plain-{wanted}")["document_attention"] for wanted in lines] == [True, False, False]
    state = json.loads(next((folder / "plain-true" / "checkpoints").glob("step-*/training_state/state.json")).read_text())
    assert state["facts"]["document_attention"] is True


def test_documents_shorter_than_rows_are_kept_apart_without_asking(folder: Path, source: Path) -> None:
    """Rows of 1,024 tokens hold several of the same documents."""
    changes = {"cache.sequence_length": 1_024, "training.gradient_accumulation_steps": 1, "training.max_steps": 2}
    expected = run_chain(config_in(folder, source, "asked", "true", **changes))
    assert run_chain(config_in(folder, source, "not-asked", "auto", **changes)).links == expected.links
    record = start_record(folder, "not-asked")
    assert record["document_attention"] is True
    assert re.search(r"Attention: within each document \(\d+\.\d documents for each row\)", "\n".join(record["lines"]))


@pytest.mark.parametrize("length", [32, 520], ids=["mask", "split"])
def test_stopping_and_resuming_changes_nothing(folder: Path, source: Path, length: int) -> None:
    changes = {"cache.sequence_length": length, "training.gradient_accumulation_steps": 1}
    expected = run_chain(config_in(folder, source, f"straight-{length}", "true", **changes))
    config = config_in(folder, source, f"stopped-{length}", "true", **changes)
    with recorded_steps() as chain:
        for step in (3, 7):
            with pytest.raises(StoppedEarly):
                train(config, bus=stop_at(step))
        train(config)
    assert chain.links == expected.links


@pytest.mark.parametrize(("first", "then"), [("true", "false"), ("auto", "true")])
def test_another_setting_is_refused_on_resume(folder: Path, source: Path, first: str, then: str) -> None:
    with pytest.raises(StoppedEarly):
        train(config_in(folder, source, f"from-{first}", first), bus=stop_at(3))
    with pytest.raises(IntegrityError, match=f"document_attention: {first == 'true'} -> {then == 'true'}"):
        train(config_in(folder, source, f"from-{first}", then))


def test_auto_keeps_what_the_start_recorded(folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begun where it was on goes on with it on a machine where auto would choose otherwise."""
    expected = run_chain(config_in(folder, source, "all-on", "true"))
    config = config_in(folder, source, "auto-on", "auto")
    with monkeypatch.context() as patch:
        patch.setattr("llm_training.jobs.planning.choose_document_attention", lambda *_, **__: DocumentChoice(True, "elsewhere"))
        with recorded_steps() as chain, pytest.raises(StoppedEarly):
            train(config, bus=stop_at(3))
    with recorded_steps() as rest:
        train(config)
    assert chain.links | rest.links == expected.links


def test_auto_keeps_what_a_checkpoint_of_another_run_was_trained_with(folder: Path, source: Path) -> None:
    """Rows of 1,024 tokens, where auto would keep documents apart; the checkpoint was trained across them."""
    changes = {"cache.sequence_length": 1_024, "training.gradient_accumulation_steps": 1, "training.max_steps": 4}
    expected = run_chain(config_in(folder, source, "all-across", "false", **changes))
    with recorded_steps() as chain, pytest.raises(StoppedEarly):
        train(config_in(folder, source, "begun-across", "false", **changes), bus=stop_at(2))
    checkpoint = folder / "begun-across" / "checkpoints" / "latest"
    with recorded_steps() as rest:
        train(config_in(folder, source, "elsewhere", "auto", **changes, **{"training.resume": str(checkpoint)}))
    assert chain.links | rest.links == expected.links
    assert start_record(folder, "elsewhere")["document_attention"] is False


def test_two_ranks_reach_the_same_loss(folder: Path, source: Path) -> None:
    changes = {"training.global_batch_tokens": 8 * 32, "training.batch_size": 4, "training.gradient_accumulation_steps": None}
    one = run_one(training(lambda _: config_in(folder, source, "one-rank", "true", **changes)))
    two = run_ranks(2, folder / "records", training(lambda _: config_in(folder, source, "two-ranks", "true", **changes)))
    assert [rank.code for rank in two] == [0, 0], [rank.error for rank in two]
    assert len(one.losses) == STEPS
    for step, loss in one.losses.items():
        assert two[0].losses[step] == pytest.approx(loss, rel=1e-5), step
    assert two[0].weights == two[1].weights
