from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llm_training.errors import ConfigError, StorageError
from llm_training.storage.faults import FAULT_VARIABLE, Fault, crash_point, forget_visits, parse_faults


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    forget_visits()
    yield
    forget_visits()


def test_unset_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAULT_VARIABLE, raising=False)
    started = time.perf_counter()
    for _ in range(10_000):
        crash_point("ckpt.before_model")
    assert time.perf_counter() - started < 1


def test_only_the_named_visit_of_the_named_point_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT_VARIABLE, "a.b:raise@3, c:sleep=0.01")
    crash_point("a.b")
    crash_point("other")
    crash_point("a.b")
    with pytest.raises(StorageError, match="injected fault"):
        crash_point("a.b")
    crash_point("a.b")
    started = time.perf_counter()
    crash_point("c")
    assert time.perf_counter() - started >= 0.01


def test_without_a_number_every_visit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT_VARIABLE, "a:raise")
    for _ in range(2):
        with pytest.raises(StorageError):
            crash_point("a")


def test_the_words_are_parsed() -> None:
    assert parse_faults("ckpt.after_write:kill@3") == (Fault("ckpt.after_write", "kill", 0.0, 3),)
    assert parse_faults("a:sleep=1.5") == (Fault("a", "sleep", 1.5, None),)


@pytest.mark.parametrize("text", ["a", "a:explode", "a:kill@0", "a:sleep", "a:kill=3", "a:kill,,b:kill", "A:kill"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a fault") as caught:
        parse_faults(text)
    assert caught.value.where == FAULT_VARIABLE
