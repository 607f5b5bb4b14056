"""Faults during training: signals at every phase, numbers that are not finite, time limits, locks, damaged checkpoints."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from llm_training.config.root import Config
from llm_training.errors import ConfigError, IntegrityError, LockedError, NumericError, StoppedEarly, StorageError
from llm_training.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    EventBus,
    Notice,
    PlanReady,
    Progress,
    StepCompleted,
    StepSkipped,
)
from llm_training.jobs.generate import generate
from llm_training.jobs.train import train
from llm_training.model.loss import TokenLoss
from llm_training.storage.append import read_jsonl
from llm_training.storage.faults import forget_visits
from llm_training.training.step import Stepper
from tests.end_to_end.test_exactness import recorded_steps, run_chain
from tests.end_to_end.tiny import tiny_config, write_corpus


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def fast_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's speed decides nothing in these runs: their length and shape are given."""
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)


def watching(react: Callable[[Event], None]) -> tuple[EventBus, list[Event]]:
    bus, seen = EventBus(), list[Event]()

    def watch(event: Event) -> None:
        seen.append(event)
        react(event)

    bus.subscribe(watch)
    return bus, seen


PHASES: dict[str, Callable[[Event], bool]] = {
    "packing": lambda event: isinstance(event, Progress) and event.task == "Tokenise and pack",
    "plan": lambda event: isinstance(event, PlanReady),
    "first step": lambda event: isinstance(event, StepCompleted) and event.step == 1,
    "evaluation": lambda event: isinstance(event, EvaluationCompleted) and event.step == 20,
    "save": lambda event: isinstance(event, CheckpointSaved) and event.step == 20,
    "last step": lambda event: isinstance(event, StepCompleted) and event.step == 40,
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_in_any_phase_ends_resumable(tmp_path: Path, source: Path, phase: str, number: signal.Signals) -> None:
    straight = run_chain(tiny_config(tmp_path / "straight", source))
    config, sent = tiny_config(tmp_path, source), list[bool]()

    def react(event: Event) -> None:
        if PHASES[phase](event) and not sent:
            sent.append(True)
            signal.raise_signal(number)

    bus, _ = watching(react)
    with recorded_steps() as chain:
        with pytest.raises(StoppedEarly) as stopped:
            train(config, bus=bus)
        assert stopped.value.exit_code == 75
        assert train(config).figures, "also what follows the last step is made up for"
    assert sent
    assert chain.links == straight.links


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once_and_keeps_the_last_checkpoint(tmp_path: Path, source: Path) -> None:
    """The second one comes while the first one's save is being written."""
    config = tiny_config(tmp_path, source, **{"training.max_steps": 100_000, "training.save_steps": 20})
    child = os.fork()
    if not child:
        forget_visits()
        os.environ["LLM_TRAINING_FAULT"] = "ckpt.after_model:sleep=20@2"
        try:
            train(config)
        finally:
            os._exit(99)
    checkpoints = tmp_path / "run" / "checkpoints"

    def wait_for(is_there: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not is_there() and time.monotonic() < deadline:
            time.sleep(0.01)

    wait_for((checkpoints / "latest").exists)
    first = (checkpoints / "latest").resolve().name
    os.kill(child, signal.SIGINT)
    wait_for(lambda: len(list(checkpoints.glob(".*/model.safetensors*"))) or len(list(checkpoints.glob(".*"))) > 0)
    time.sleep(0.3)
    os.kill(child, signal.SIGINT)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert (checkpoints / "latest").resolve().name == first
    assert (checkpoints / "latest" / "manifest.json").is_file()


def poisoned_loss(steps: set[int]) -> Any:
    """The loss of these updates is NaN."""
    original, calls = TokenLoss.forward, [0]

    def forward(self: TokenLoss, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = original(self, *args, **kwargs)
        calls[0] += 1
        return loss * math.nan if (calls[0] - 1) // 2 in steps else loss  # two micro-batches a step

    return mock.patch.object(TokenLoss, "forward", forward)


def poisoned(where: str, at_step: int) -> Any:
    """Write a NaN into a weight or an optimizer moment before an update."""
    original = Stepper.run

    def run(self: Stepper, step: int, *args: Any) -> Any:
        if step == at_step:
            tensors = self.optimizer.tensors() if where == "moment" else dict(self.loss_module.named_parameters())
            name = next(name for name in tensors if (where != "moment" or "exp_avg_sq" in name) and tensors[name].numel() > 4)
            with torch.no_grad():
                tensors[name].view(-1)[0] = math.nan
        return original(self, step, *args)

    return mock.patch.object(Stepper, "run", run)


def test_one_bad_loss_is_skipped_logged_as_nan_and_leaves_the_weights(tmp_path: Path, source: Path) -> None:
    bus, seen = watching(lambda _: None)
    with poisoned_loss({7}), recorded_steps() as chain:
        train(tiny_config(tmp_path, source), bus=bus)
    assert chain.links[8][3] == chain.links[7][3], "the skipped step moved the weights"
    assert chain.links[9][3] != chain.links[8][3]
    skipped = [event for event in seen if isinstance(event, StepSkipped)]
    assert [(event.step, event.consecutive) for event in skipped] == [(8, 1)]
    assert skipped[0].remedies
    records = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    record = next(record for record in records if record.get("step") == 8 and record["kind"] == "step")
    assert record["loss"] is None
    assert record["skipped"] is True


@pytest.mark.parametrize("where", ["loss", "weight", "moment"])
def test_nan_for_ever_stops_with_exit_6_and_a_good_checkpoint(tmp_path: Path, source: Path, where: str) -> None:
    fault = poisoned_loss(set(range(14, 1000))) if where == "loss" else poisoned(where, 14)
    with fault, pytest.raises(NumericError) as stopped:
        train(tiny_config(tmp_path, source))
    assert stopped.value.exit_code == 6
    latest = (tmp_path / "run" / "checkpoints" / "latest").resolve()
    assert latest.name == "step-00000010"
    assert train(tiny_config(tmp_path, source)).step == 40


def test_the_hard_limit_ends_with_75_and_its_label_and_counts_over_sessions(tmp_path: Path, source: Path) -> None:
    def config(hours: float) -> Config:
        return tiny_config(tmp_path, source, **{"training.max_steps": 100_000, "training.max_training_hours": hours})

    began = time.monotonic()
    with pytest.raises(StoppedEarly, match="time limit"):
        train(config(3.0 / 3600))
    assert time.monotonic() - began < 15
    label = tmp_path / "run" / "checkpoints" / "time-limit"
    first = label.resolve().name
    with recorded_steps() as chain, pytest.raises(StoppedEarly, match="time limit"):
        train(config(3.0 / 3600))
    assert len(chain.links) <= 1, "the time was used up by the first session"
    with pytest.raises(StoppedEarly, match="time limit"):
        train(config(5.0 / 3600))
    assert label.resolve().name > first


def test_the_same_run_cannot_be_started_twice(tmp_path: Path, source: Path) -> None:
    config = tiny_config(tmp_path, source)

    def react(event: Event) -> None:
        if isinstance(event, StepCompleted) and event.step == 5:
            child = os.fork()
            if not child:
                try:
                    train(config)
                except LockedError as error:
                    os._exit(error.exit_code if str(os.getppid()) in str(error) else 98)
                except BaseException:
                    os._exit(97)
                os._exit(96)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    codes: list[int] = []
    bus, _ = watching(react)
    train(config, bus=bus)
    assert codes == [9]


CHANGES: dict[str, dict[str, Any]] = {
    "hidden_size": {"model.hidden_size": 32},
    "sequence_length": {"cache.sequence_length": 16},
    "effective_batch": {"training.gradient_accumulation_steps": 4},
    "optimizer": {"training.optimizer": "adamw"},
    "seed": {"training.seed": 43},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_resume_with_other_settings_is_refused_with_old_and_new(tmp_path: Path, source: Path, name: str) -> None:
    bus, _ = watching(lambda event: signal.raise_signal(signal.SIGTERM) if isinstance(event, StepCompleted) and event.step == 3 else None)
    with pytest.raises(StoppedEarly):
        train(tiny_config(tmp_path, source), bus=bus)
    with pytest.raises(IntegrityError, match=f"{name}: .* -> ") as refused:
        train(tiny_config(tmp_path, source, **CHANGES[name]))
    assert refused.value.exit_code == 4


def test_edited_text_is_refused_and_appended_text_is_not(tmp_path: Path, source: Path) -> None:
    texts = shutil.copytree(source, tmp_path / "texts")
    config = tiny_config(tmp_path, texts)
    train(config)
    (texts / "doc-000.txt").write_text("something else entirely, but of any size\n")
    with pytest.raises(IntegrityError, match="changed"):
        train(config)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit": lambda path: _flip(path / "model.safetensors"),
    "truncated": lambda path: os.truncate(path / "training_state" / "optimizer.safetensors", 100),
    "missing file": lambda path: (path / "config.json").unlink(),
    "empty file": lambda path: os.truncate(path / "model.safetensors", 0),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_and_ends_equal(tmp_path: Path, source: Path, damage: str) -> None:
    straight = run_chain(tiny_config(tmp_path / "straight", source))
    config = tiny_config(tmp_path, source)
    bus, _ = watching(lambda event: signal.raise_signal(signal.SIGTERM) if isinstance(event, StepCompleted) and event.step == 25 else None)
    with pytest.raises(StoppedEarly):
        train(config, bus=bus)
    DAMAGES[damage]((tmp_path / "run" / "checkpoints" / "latest").resolve())
    bus, seen = watching(lambda _: None)
    with recorded_steps() as chain:
        train(config, bus=bus)
    assert min(chain.links) == 21
    assert chain.links == {step: link for step, link in straight.links.items() if step > 20}
    notices = [event.message for event in seen if isinstance(event, Notice)]
    assert any("step-00000025" in line for line in notices), notices


def test_never_resuming_into_a_run_is_refused(tmp_path: Path, source: Path) -> None:
    train(tiny_config(tmp_path, source, **{"training.max_steps": 2}))
    with pytest.raises(ConfigError, match="holds a run"):
        train(tiny_config(tmp_path, source, **{"training.resume": "never"}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_full_disk_loses_nothing(tmp_path: Path, source: Path) -> None:
    """The file size limit makes every larger write fail, as a full disk does."""
    import resource

    straight = run_chain(tiny_config(tmp_path / "straight", source))
    config = tiny_config(tmp_path, source)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def react(event: Event) -> None:
            if isinstance(event, StepCompleted) and event.step == 12:
                resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

        bus, _ = watching(react)
        try:
            train(config, bus=bus)
        except StorageError as error:
            os._exit(error.exit_code)
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert (tmp_path / "run" / "checkpoints" / "latest").resolve().name == "step-00000010"
    with recorded_steps() as chain:
        train(config)
    assert chain.links == {step: link for step, link in straight.links.items() if step > 10}


def test_no_pickle_is_read_in_a_whole_run(tmp_path: Path, source: Path) -> None:
    """In a child process, since an audit hook cannot be taken away again."""
    child = os.fork()
    if not child:
        found: list[object] = []
        sys.addaudithook(lambda name, args: found.append(args) if name == "pickle.find_class" else None)
        config = tiny_config(tmp_path, source, **{"evaluation.num_samples": 1, "evaluation.sample_tokens": 4})
        bus, _ = watching(
            lambda event: signal.raise_signal(signal.SIGTERM) if isinstance(event, StepCompleted) and event.step == 5 else None
        )
        try:
            train(config, bus=bus)
        except StoppedEarly:
            train(config)
        "".join(generate(str(tmp_path / "run"), "the", max_tokens=3, seed=1))
        os.write(2, str(found).encode() if found else b"")
        os._exit(1 if found else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
