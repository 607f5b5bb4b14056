import math

import numpy as np
import pytest

from llm_training.errors import DataError, IntegrityError
from llm_training.monitoring.jsonl import MetricsLog
from llm_training.monitoring.run_log import RunLog
from llm_training.monitoring.series import read_run
from tests.monitoring import runs_of_events as made


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "7M_x_256_run_1"
    metrics = MetricsLog(folder / "metrics.jsonl")
    log = RunLog(folder / "training_logs" / "7M_x_256_run_1.json", name="7M_x_256")
    for event in made.whole_run():
        metrics(event)
        log(event)
    return folder


def test_a_directory_and_its_metrics_are_the_same_run(run):
    series = read_run(run)
    assert series.name == "415M_FineWeb_512_run_1"
    assert series.total_steps == 40
    np.testing.assert_array_equal(series.step, np.arange(1, 41))
    np.testing.assert_allclose(series.loss_nats, 8 - np.arange(1, 41) / 10)
    assert series.cumulative_tokens[-1] == 40 * 36_864
    assert series.progress_percent[-1] == 100
    assert [each.step for each in series.evaluations] == [10, 20, 30, 40]
    assert series.best is not None and series.best.bits_per_byte == 2.412
    assert series.growth_steps == (40,)
    np.testing.assert_array_equal(read_run(run / "metrics.jsonl").step, series.step)


def test_the_json_run_log_gives_the_same_curve(run):
    (run / "metrics.jsonl").unlink()
    series = read_run(run)
    assert series.name == "7M_x_256_run_1"
    np.testing.assert_array_equal(series.step, [1, 10, 20, 30, 40])
    assert series.loss_nats[-1] == 4.0
    assert series.best is None


def test_final_figures_are_the_headline(run):
    MetricsLog(run / "metrics.jsonl", resume_step=40)(made.evaluation(40, source="final", loss_nats=5.5))
    series = read_run(run)
    assert series.headline is not None and series.headline.loss_nats == 5.5
    assert [each.loss_nats for each in series.evaluations] == [5.412] * 4


def test_missing_values_are_nan(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log(made.step(1, loss_nats=math.nan))
    log(made.evaluation(1, loss_nats=math.nan))
    series = read_run(tmp_path)
    assert math.isnan(series.loss_nats[0])
    assert series.best is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"metadata": {}, "training_data": []}', '{"metadata": 1, "training_data": [1]}'])
def test_another_json_document_is_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(IntegrityError, match="not a JSON run log"):
        read_run(path)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match="no such run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither metrics\.jsonl nor"):
        read_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no recorded step yet"):
        read_run(tmp_path)
