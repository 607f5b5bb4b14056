import sys

import pytest

from llm_training.errors import ConfigError, DataError
from llm_training.jobs.plot import plot
from llm_training.monitoring.jsonl import MetricsLog
from llm_training.monitoring.panels import PER_BYTE_ONLY, STYLE
from llm_training.monitoring.plots import plot_loss_curve, plot_training_progress
from tests.monitoring import runs_of_events as made

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "a$_run_1$", made.whole_run())


def write_run(folder, events):
    log = MetricsLog(folder / "metrics.jsonl")
    for event in events:
        log(event)
    return folder


def test_the_loss_curve_of_a_run(run):
    path = plot_loss_curve(run)
    assert path == run / "plots" / "loss.png"
    assert path.read_bytes().startswith(PNG)


def test_one_run_by_its_directory(run):
    assert plot_training_progress(run) == run / "plots" / "training.png"
    assert (run / "plots" / "training.png").read_bytes().startswith(PNG)


def test_several_runs_in_one_figure_as_svg(run, tmp_path, monkeypatch):
    other = write_run(tmp_path / "runs" / "b_run_1", [made.step(number, 9, tokens=100, memory_bytes=10**9) for number in range(1, 10)])
    monkeypatch.chdir(tmp_path)
    path = plot([str(run), other.name], "both.svg")
    text = (tmp_path / path).read_text()
    assert "<svg" in text
    assert plot([str(run), other.name], "again.svg") and (tmp_path / "again.svg").read_text() == text


def test_a_run_of_one_step_that_is_not_finite(tmp_path):
    run = write_run(tmp_path / "x", [made.step(1, loss_nats=float("nan"), tokens=0)])
    assert plot_loss_curve(run).read_bytes().startswith(PNG)


def test_an_unknown_picture_type_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"type '\.gif'.*\.png, \.svg, \.pdf"):
        plot_training_progress(tmp_path / "missing", tmp_path / "x.gif")
    with pytest.raises(ConfigError, match="no run to plot"):
        plot_training_progress([], tmp_path / "x.png")


def test_without_matplotlib_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"llm-training\[plots\]"):
        plot_loss_curve(run)


def tokenized_run(folder, name, tokenizer, *, bits=True):
    events = [made.events.PlanReady(run_name=name, total_steps=9, warmup_steps=0, tokens_per_step=100, facts={"tokenizer": tokenizer})]
    for number in range(1, 10):
        events.append(made.step(number, 9, tokens=100))
        if number % 3 == 0:
            events.append(made.evaluation(number, bits_per_byte=2.5 - number / 10 if bits else None))
    return write_run(folder / name, events)


def test_runs_with_different_tokenizers_compare_in_bits_per_byte_only(tmp_path, monkeypatch):
    """E-6: the loss per token of the one is not that of the other."""
    monkeypatch.setitem(STYLE, "svg.fonttype", "none")  # letters as text, so that they can be read here
    first, same, other = (tokenized_run(tmp_path, name, name[:3]) for name in ("aaa-1", "aaa-2", "bbb-1"))
    alike = plot_training_progress([first, same], tmp_path / "alike.svg").read_text()
    assert "loss, nats per token" in alike and "training loss: mean" in alike and PER_BYTE_ONLY not in alike
    different = plot_training_progress([first, other], tmp_path / "different.svg").read_text()
    assert PER_BYTE_ONLY in different and "bits per byte (validation)" in different
    assert "nats per token" not in different and "training loss" not in different


def test_runs_with_different_tokenizers_and_no_bits_per_byte_are_refused(tmp_path):
    runs = [tokenized_run(tmp_path, "aaa", "a"), tokenized_run(tmp_path, "bbb", "b", bits=False)]
    with pytest.raises(DataError, match="different tokenizers compare in bits per byte only, and this one has none recorded; at bbb"):
        plot_training_progress(runs, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
