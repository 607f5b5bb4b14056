"""Runs over a mixture of sources: shares, caps, resume, growth, and figures by source."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_training.config.root import Config
from llm_training.errors import IntegrityError, StoppedEarly
from llm_training.events import CacheGrown, EvaluationCompleted, Event, EventBus, PlanReady, StepCompleted
from llm_training.jobs.evaluate import evaluate
from llm_training.jobs.provenance import documents_of_step
from llm_training.jobs.train import train
from llm_training.storage.append import read_jsonl
from llm_training.storage.reading import read_json
from tests.end_to_end.tiny import recorded_steps, tiny_config, write_corpus

pytestmark = pytest.mark.slow
ROWS_A_STEP = 8


@pytest.fixture(autouse=True)
def fast_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_corpus(folder / "books", documents=40, seed=1)
    write_corpus(folder / "web", documents=60, seed=2)
    return folder


def mixed_config(folder: Path, texts: Path, books: str, web: str, **changes: Any) -> Config:
    sources = [f"{texts / 'books'}{books}", f"{texts / 'web'}{web}"]
    return tiny_config(folder, texts, **({"data.sources": sources, "cache.chunk_bytes": 10_000} | changes))


def recorded(config: Config, *, stop_at: int | None = None) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    bus = EventBus()

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    bus.subscribe(watch)
    if stop_at is None:
        return train(config, bus=bus), events
    with pytest.raises(StoppedEarly):
        train(config, bus=bus)
    return None, events


def sources_of_steps(run: Path, steps: range) -> Counter[str]:
    """Rows by the folder their documents lie in; a row never mixes folders, since a chunk is of one source."""
    found: Counter[str] = Counter()
    for step in steps:
        of_row = {row: source.split("/")[0] for row, _, source, *_ in documents_of_step(str(run), step)}
        found.update(of_row.values())
    return found


def test_a_mixture_is_taken_by_its_weights_and_told(texts: Path, tmp_path: Path) -> None:
    config = mixed_config(tmp_path, texts, "#weight=3", "#weight=1", **{"training.max_steps": 40})
    _, events = recorded(config)
    counted = sources_of_steps(tmp_path / "run", range(1, 41))
    assert counted.total() == 40 * ROWS_A_STEP
    assert counted["books"] == pytest.approx(240, abs=3)
    [plan] = [event for event in events if isinstance(event, PlanReady)]
    told = [line for line in plan.lines if line.startswith("Mixture: ")]
    assert [line.split("% of the samples (weight ")[1][0] for line in told] == ["3", "1"]
    assert "books: 75" in told[0]


def test_figures_by_source(texts: Path, tmp_path: Path) -> None:
    """In the evaluations of training, the log, the final figures and `llm-evaluate`, whether weighted or not."""
    config = mixed_config(tmp_path, texts, "", "", **{"training.max_steps": 20, "evaluation.final_max_tokens": 100_000})
    _, events = recorded(config)
    names = {str(texts / "books"), str(texts / "web")}
    evaluations = [event for event in events if isinstance(event, EvaluationCompleted)]
    assert len(evaluations) == 2
    assert all(set(event.loss_by_source) == names for event in evaluations)
    logged = [record for record in read_jsonl(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "evaluation"]
    assert [record["loss_by_source"] for record in logged] == [dict(event.loss_by_source) for event in evaluations]
    final = read_json(tmp_path / "run" / "evaluation.json")
    parts = final["by_source"].values()
    assert sum(part["num_tokens"] for part in parts) == final["num_tokens"]
    mean = sum(part["loss_nats"] * part["num_tokens"] for part in parts) / final["num_tokens"]
    assert mean == pytest.approx(final["loss_nats"], rel=1e-9)
    assert all(part["bits_per_byte"] > 0 for part in parts)
    again = evaluate(str(tmp_path / "run"), max_tokens=100_000, device="cpu")
    assert {name: part["num_tokens"] for name, part in again.figures["by_source"].items()} == {
        name: part["num_tokens"] for name, part in final["by_source"].items()
    }
    assert {f"Loss of {name}" for name in names} <= again.facts().keys()


def test_validation_sources_are_reported_one_by_one(texts: Path, tmp_path: Path) -> None:
    held_out = [str(write_corpus(tmp_path / name, documents=6, seed=seed)) for name, seed in (("poems", 3), ("letters", 4))]
    changes = {"data.validation_sources": held_out, "training.max_steps": 4, "training.eval_steps": 2}
    _, events = recorded(mixed_config(tmp_path, texts, "#weight=1", "#weight=2", **changes))
    evaluations = [event for event in events if isinstance(event, EvaluationCompleted)]
    assert [set(event.loss_by_source) for event in evaluations] == [set(held_out)] * len(evaluations)


def test_caps_bound_the_run_and_epochs_count_samples(texts: Path, tmp_path: Path) -> None:
    changes = {"training.max_steps": None, "training.num_epochs": 3}
    capped = mixed_config(tmp_path, texts, "#max_epochs=1", "#max_epochs=0.5", **changes)
    result, _ = recorded(capped)
    rows = read_jsonl(tmp_path / "run" / "decisions.jsonl")
    sequences = next(iter(rows))["plan"]["sequences"]
    seen = sources_of_steps(tmp_path / "run", range(1, result.step + 1))
    assert result.step < sequences // ROWS_A_STEP, "less than one pass: the caps end it"
    free = mixed_config(tmp_path, texts, "#weight=1", "#weight=1", **changes, **{"training.output_dir": str(tmp_path / "free")})
    assert recorded(free)[0].step == 3 * sequences // ROWS_A_STEP
    total = sources_of_steps(tmp_path / "free", range(30, 61))
    assert abs(total["books"] - total["web"]) <= 5
    assert seen["books"] + seen["web"] == result.step * ROWS_A_STEP


def test_a_mixture_resumes_exactly_and_is_not_changed_on_the_way(texts: Path, tmp_path: Path) -> None:
    def config(name: str, books: str = "#weight=3,max_epochs=2") -> Config:
        changes = {"training.max_steps": 30, "training.output_dir": str(tmp_path / name)}
        return mixed_config(tmp_path, texts, books, "", **changes)

    with recorded_steps() as straight:
        train(config("straight"))
    with recorded_steps() as stopped:
        recorded(config("stopped"), stop_at=13)
        for other in ("#weight=2,max_epochs=2", "#weight=3", ""):
            with pytest.raises(IntegrityError, match="mixture") as refused:
                train(config("stopped", other))
            assert refused.value.exit_code == 4
        train(config("stopped"))
    assert stopped.links == straight.links


def test_a_mixture_grows(texts: Path, tmp_path: Path) -> None:
    """New text of one source joins on resume; the shares stay, and a second resume replays it."""
    grown = shutil.copytree(texts, tmp_path / "texts")

    def config() -> Config:
        changes = {"training.max_steps": None, "training.num_epochs": 1, "training.save_steps": 4, "training.eval_steps": 1_000}
        changes["training.save_total_limit"] = 100
        return mixed_config(tmp_path, grown, "#weight=1", "#weight=3,max_epochs=3", **changes)

    with recorded_steps() as chain:
        recorded(config(), stop_at=9)
        for path in write_corpus(tmp_path / "more", documents=60, seed=9).iterdir():
            shutil.copy(path, grown / "web" / f"more-{path.name}")
        result, events = recorded(config())
    [joined] = [event for event in events if isinstance(event, CacheGrown)]
    assert (joined.step, joined.new_total_steps) == (9, result.step)
    assert joined.new_total_steps > joined.old_total_steps
    counted = sources_of_steps(tmp_path / "run", range(1, 41))
    assert counted["web"] == pytest.approx(0.75 * counted.total(), abs=5)
    checkpoints = tmp_path / "run" / "checkpoints"
    for path in checkpoints.glob("step-*"):
        if path.name != "step-00000004":
            shutil.rmtree(path)
    for pointer in ("latest", "final", "best_model"):
        (checkpoints / pointer).unlink(missing_ok=True)
    with recorded_steps() as replayed:
        train(config())
    assert replayed.links == {step: chain.links[step] for step in replayed.links}
    assert min(replayed.links) == 5
