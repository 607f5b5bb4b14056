import json
import logging

import pytest

from llm_training import events
from llm_training.errors import StorageError
from llm_training.monitoring import run_log
from llm_training.monitoring.jsonl import MetricsLog
from llm_training.monitoring.run_log import RunLog, model_name, run_log_path
from tests.monitoring import runs_of_events as made

NOON = 1_700_000_000.0


def make_log(tmp_path, **settings):
    return RunLog(tmp_path / "logs" / "a_run_1.json", name="415M_FineWeb_512", clock=lambda: NOON, **settings)


def read(log):
    return json.loads(log.path.read_text(), parse_constant=pytest.fail)


def test_the_document_has_the_keys_of_the_specification(tmp_path):
    log = make_log(tmp_path)
    log(made.plan())
    log(made.step(770, memory_bytes=22_100_000_000))
    log(events.RunFinished(step=770, reason="finished", elapsed_seconds=1.0))
    document = read(log)
    assert list(document) == ["metadata", "training_data"]
    assert document["metadata"] == {
        "model_name": "415M_FineWeb_512",
        "start_time": run_log._timestamp(NOON),
        "total_steps": 26_235,
        "target_tokens": 967_127_040,
    }
    assert document["training_data"] == [
        {
            "step": 770,
            "timestamp": run_log._timestamp(NOON),
            "loss": 5.583,
            "lr": 3e-4,
            "tokens_per_sec": 106_212,
            "gpu_memory_gb": 22.1,
            "progress_pct": 2.9,
        }
    ]


def test_points_are_the_logging_steps_the_first_and_the_newest(tmp_path):
    log = make_log(tmp_path, logging_steps=10)
    for event in made.whole_run(37):
        log(event)
    assert [point["step"] for point in read(log)["training_data"]] == [1, 10, 20, 30, 37]


def test_the_number_of_points_is_bounded(tmp_path):
    log = make_log(tmp_path, logging_steps=1, max_points=10)
    for number in range(1, 1_001):
        log(made.step(number, 1_000))
    points = log.document()["training_data"]
    assert len(points) <= 11
    assert points[0]["step"] == 1 and points[-1]["step"] == 1_000


def test_it_is_written_at_intervals_not_at_steps(tmp_path, monkeypatch):
    writes = []
    monkeypatch.setattr(run_log, "write_bytes", lambda path, data: writes.append(len(data)))
    log = make_log(tmp_path)
    log(made.plan())
    for number in range(1, 500):
        log(made.step(number))
    assert len(writes) == 1
    eager = make_log(tmp_path, interval_seconds=0.0)
    monkeypatch.setattr(run_log, "_COST_FACTOR", 0)
    for number in range(1, 11):
        eager(made.step(number))
    assert len(writes) == 11


def test_a_resumed_run_continues_it_without_gap_or_overlap(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    first, recorder = make_log(tmp_path), MetricsLog(metrics, clock=lambda: NOON)
    for event in [made.plan(60), *(made.step(number, 60) for number in range(1, 48))]:
        recorder(event)
        first(event)  # killed here: the document is older than the metrics
    assert read(first)["training_data"] == []

    second = RunLog(first.path, name="415M_FineWeb_512", metrics=metrics, resume_step=40, clock=lambda: NOON + 1_000)
    second(made.plan(60))
    for number in range(41, 61):
        second(made.step(number, 60))
    second(events.RunFinished(step=60, reason="finished", elapsed_seconds=1.0))
    document = read(second)
    assert [point["step"] for point in document["training_data"]] == [1, 10, 20, 30, 40, 50, 60]
    assert document["metadata"]["start_time"] == run_log._timestamp(NOON)
    assert document["training_data"][4]["timestamp"] == run_log._timestamp(NOON)
    assert document["training_data"][-1]["progress_pct"] == 100.0


def test_a_damaged_document_is_begun_again(tmp_path):
    path = tmp_path / "a_run_1.json"
    path.write_text('{"metadata": ')
    log = RunLog(path, name="a", metrics=tmp_path / "none.jsonl", resume_step=5, clock=lambda: NOON)
    log(made.plan())
    assert read(log)["metadata"]["start_time"] == run_log._timestamp(NOON)


def test_growth_changes_the_totals(tmp_path):
    log = make_log(tmp_path)
    log(made.plan(19_567))
    log(events.CacheGrown(step=7, old_sequences=352_217, new_sequences=472_240, old_total_steps=19_567, new_total_steps=26_235))
    assert log.document()["metadata"]["total_steps"] == 26_235
    assert log.document()["metadata"]["target_tokens"] == 26_235 * 36_864


def test_values_that_are_not_finite_are_null(tmp_path):
    log = make_log(tmp_path)
    log(made.step(1, loss_nats=float("nan"), learning_rate=float("inf"), tokens_per_second=float("nan")))
    point = log.document()["training_data"][0]
    assert point["loss"] is None and point["lr"] is None and point["tokens_per_sec"] == 0


def test_a_full_disk_is_one_warning(tmp_path, monkeypatch, caplog):
    def refuse(path, data):
        raise StorageError("disk full")

    monkeypatch.setattr(run_log, "write_bytes", refuse)
    log = make_log(tmp_path)
    with caplog.at_level(logging.WARNING):
        log(made.plan())
        log(events.RunFinished(step=1, reason="finished", elapsed_seconds=1.0))
    assert len(caplog.records) == 1


def test_names(tmp_path):
    assert run_log_path(tmp_path, "7M_stdlib_256_run_3").name == "7M_stdlib_256_run_3.json"
    assert run_log_path(tmp_path, "my run").name == "my-run_run_1.json"
    assert model_name("7M_stdlib_256_run_3") == "7M_stdlib_256"
    assert model_name("my run") == "my run"
