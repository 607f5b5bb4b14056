import json
import logging
import math
import os

import pytest

from llm_training import events
from llm_training.errors import StorageError
from llm_training.monitoring import jsonl
from llm_training.monitoring.jsonl import MetricsLog, make_record
from llm_training.storage.append import JsonlAppender, read_jsonl
from tests.monitoring import runs_of_events as made


def records(path):
    return list(read_jsonl(path))


def steps(path):
    return [record["step"] for record in records(path) if record["kind"] == "step"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def play(path, produce, **settings):
    log = MetricsLog(path, clock=lambda: 1_700_000_000.1234, **settings)
    for event in produce:
        log(event)
    log.close()


def test_a_step_record_has_the_figures_of_the_step():
    record = make_record(made.step(mfu_fraction=0.3, epoch=0.5, memory_bytes=7, data_wait_seconds=0.01), 5.0)
    assert record == {
        "kind": "step",
        "time": 5.0,
        "step": 770,
        "total_steps": 26_235,
        "loss": 5.583,
        "lr": 3e-4,
        "grad_norm": 1.1,
        "tokens": 36_864,
        "tokens_per_second": 106_212.0,
        "elapsed_seconds": 770.0,
        "eta_seconds": 15_780.0,
        "mfu": 0.3,
        "data_wait_seconds": 0.01,
        "memory_bytes": 7,
        "epoch": 0.5,
        "skipped": False,
    }


def test_every_event_but_progress_is_recorded_as_legal_json(path):
    play(path, made.whole_run())
    kinds = {json.loads(line, parse_constant=pytest.fail)["kind"] for line in path.read_text().splitlines()}
    assert kinds == set(jsonl.KINDS.values())
    assert steps(path) == list(range(1, 41))


def test_what_is_not_finite_is_null_and_named(path):
    plan = events.PlanReady(
        run_name="x",
        total_steps=1,
        warmup_steps=0,
        tokens_per_step=1,
        facts={"peak": {"bf16": math.inf}, "list": (1, -math.inf), "path": path},
    )
    play(path, [made.step(loss_nats=math.nan, grad_norm=math.inf, is_skipped=True), plan])
    step, shown = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert step["loss"] is None and step["grad_norm"] is None and step["skipped"] is True
    assert step["nonfinite"] == {"loss": "nan", "grad_norm": "inf"}
    assert shown["facts"] == {"peak": {"bf16": None}, "list": [1, None], "path": str(path)}
    assert shown["nonfinite"] == {"facts.peak.bf16": "inf", "facts.list.1": "-inf"}


def test_a_resumed_run_has_one_record_per_step(path):
    play(path, made.whole_run(40))
    play(path, [made.step(number, 60) for number in range(21, 61)], resume_step=20)
    assert steps(path) == list(range(1, 61))
    assert [record["step"] for record in records(path) if record["kind"] == "evaluation"] == [10, 20]
    play(path, [made.step(1)], resume_step=0)
    assert steps(path) == [1]


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_torn_tail_costs_one_record_at_most(path, cut):
    play(path, [made.step(number) for number in range(1, 6)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    play(path, [made.step(6)], resume_step=5)
    assert steps(path) in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6])


def test_records_wait_while_the_disk_refuses_and_follow_in_order(path, monkeypatch, caplog):
    log = MetricsLog(path)
    append = JsonlAppender.append
    is_full = True

    def refuse(self, record):
        if is_full:
            raise StorageError("cannot append to a log (disk full)")
        append(self, record)

    monkeypatch.setattr(JsonlAppender, "append", refuse)
    with caplog.at_level(logging.INFO):
        for number in range(1, 6):
            log(made.step(number))
        assert steps(path) == []
        is_full = False
        log(made.step(6))
    assert steps(path) == [1, 2, 3, 4, 5, 6]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_log_rotated_by_others_is_followed(path):
    log = MetricsLog(path)
    log(made.step(1))
    path.rename(path.with_suffix(".1"))
    log(made.step(2))
    assert steps(path) == [2]
    os.truncate(path, 0)
    log(made.step(3))
    assert steps(path) == [3]
    log.close()


def test_the_disk_is_waited_for_at_checkpoints_and_at_the_end(path, monkeypatch):
    log = MetricsLog(path)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    log(made.step(1))
    log(made.evaluation(1))
    assert synced == []
    log(made.checkpoint(1))
    assert len(synced) == 1
    log(events.RunFinished(step=1, reason="finished", elapsed_seconds=1.0))
    assert len(synced) == 2
    log.close()


def test_an_unwritable_place_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        MetricsLog(tmp_path / "file" / "metrics.jsonl")
    assert caught.value.exit_code == 5


def test_equal_runs_differ_in_volatile_fields_alone(tmp_path):
    def stable(path, speed):
        play(path, [made.step(tokens_per_second=speed, elapsed_seconds=speed, memory_bytes=int(speed))])
        return [{key: value for key, value in record.items() if key not in jsonl.VOLATILE_FIELDS} for record in records(path)]

    assert stable(tmp_path / "a", 1.0) == stable(tmp_path / "b", 2.0)
