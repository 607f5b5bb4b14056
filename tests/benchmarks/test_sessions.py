import json
import sys

import pytest
import torch
from benchmarks.session import Load, TimedSession, default_load, gpt_shape
from benchmarks.worker import Worker

from benchmarks import gpu, plain, save_stall, train_throughput
from llm_training.model import layers
from llm_training.model.spec import ModelSpec
from llm_training.runtime.device import Precision, choose_device

TINY = Load(spec=ModelSpec(vocab_size=64, hidden_size=32, num_layers=1, num_attention_heads=2, max_seq_len=16), rows=4, micro_rows=2)


def test_a_session_steps_and_counts():
    session = TimedSession(TINY, choose_device("cpu"), Precision("fp32", ""))
    assert session.num_steps == 1
    assert session.seconds_per_step(2) > 0
    assert session.num_steps == 3
    session.close()


def test_flops_of_a_step_are_those_of_the_model():
    width, inner, length, vocabulary = 32, TINY.spec.intermediate_size, 16, 64
    matrices = 4 * width * width + 3 * width * inner + vocabulary * width
    attention = 2 * width * (length + 1) / 2
    assert TINY.flops_per_step == pytest.approx(TINY.tokens * 6 * (matrices + attention))


def test_numbers_that_mean_nothing_are_refused():
    session = TimedSession(TINY, choose_device("cpu"), Precision("fp32", ""))
    with torch.no_grad():
        next(iter(session.model.parameters())).fill_(float("nan"))
    with pytest.raises(RuntimeError, match="not finite"):
        session.step()


def test_shapes_have_the_sizes_they_are_named_for():
    from llm_training.model.sizes import count_parameters

    assert 100e6 < count_parameters(gpt_shape("124M", max_seq_len=1024)).total < 170e6
    assert 0.9e9 < count_parameters(gpt_shape("1B", max_seq_len=1024)).total < 1.2e9
    load = default_load(train_throughput.REFERENCE_PEAK_FLOPS)
    assert 5e6 < count_parameters(load.spec).total < 9e6


def test_the_yardstick_trains_the_same_model_by_the_textbook(monkeypatch):
    monkeypatch.setattr(layers, "_is_eager_cpu", layers._is_eager_cpu)  # what plain_session patches is undone after the test
    session = plain.plain_session(TINY)
    try:
        assert session.seconds_per_step(1) > 0
        assert sum(p.numel() for p in session.model.parameters()) == sum(
            p.numel() for p in TimedSession(TINY, choose_device("cpu"), Precision("fp32", "")).model.parameters()
        )
    finally:
        plain.mock.patch.stopall()


def test_a_worker_answers_until_its_pipe_closes(tmp_path, monkeypatch):
    (tmp_path / "echo_worker.py").write_text(
        "import sys, json\nprint(json.dumps({'settings': json.loads(sys.argv[2])}), flush=True)\n"
        "for line in sys.stdin:\n    print(json.dumps({'seconds': json.loads(line)['steps'] * 2}), flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker("echo_worker", {"variant": "a"}) as worker:
        assert worker.facts == {"settings": {"variant": "a"}}
        assert worker.ask(steps=3) == {"seconds": 6}
    with pytest.raises(RuntimeError, match="exit code 1"):
        Worker("no_such_module_at_all", {})


def test_saves_are_measured_on_real_checkpoints(tmp_path):
    stalls, writes = save_stall.measure_large(tmp_path, num_bytes=1e6, num_saves=2)
    assert len(stalls) == len(writes) == 2


def test_every_part_of_the_gpu_benchmark_runs_small_on_a_cpu(monkeypatch):
    monkeypatch.setitem(gpu.SMALL_TRAINING, "10M", (16, 2, None, None))
    monkeypatch.setattr(gpu, "gpt_shape", lambda name, max_seq_len: TINY.spec)
    monkeypatch.setattr(gpu, "VARIANTS", (("eager", False),))
    backends = {
        name: backend for name, backend in gpu.attention.BACKENDS.items() if name in ("eager", "sdpa", "split")
    }  # flex would compile
    monkeypatch.setattr(gpu.attention, "BACKENDS", backends)
    result = gpu.measure_on(choose_device("cpu"), quick=True)
    assert not [remark for remark in result.remarks if not remark.startswith("attention")]
    assert {"train 10M", "attention", "documents", "train within documents", "loss", "save"} <= set(result.details)
    assert isinstance(result.details["documents"]["256"]["split"], float)
    assert result.details["documents"]["256"]["varlen"] != "TypeError", "the probe must not hide a call that is wrong everywhere"
    assert isinstance(result.details["attention"]["256"]["sdpa"], float)
    assert json.dumps(result.details)


def test_without_a_cuda_device_one_line_and_exit_code_1(repository):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    import subprocess

    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], cwd=repository, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "error: no CUDA device here; run make bench-gpu on a machine with one\n"
