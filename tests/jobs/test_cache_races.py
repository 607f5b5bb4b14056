"""Commands over one cache at the same time, and a forced rebuild that is killed: plan and store never contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.tiny import tiny_config

from llm_training.config.root import Config
from llm_training.jobs import cache, datasets


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in (1, 2, 3):
        put(folder, number)
    return folder


def put(folder: Path, number: int, lines: int = 120) -> None:
    (folder / f"{number}.txt").write_text("".join(f"The quick brown fox {1000 * number + line} jumps. " for line in range(lines)))


def configured(tmp_path: Path, sources: Path, **changes: Any) -> Config:
    fixed = {"tokenizer.vocab_size": None, "tokenizer.path": "bytes", "cache.chunk_bytes": 10_000}
    return tiny_config(tmp_path, sources, **fixed, **changes)


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, action: Any) -> None:
    """Do ``action`` once, after the first call of a function of `datasets`."""
    real = getattr(datasets, name)

    def call(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        monkeypatch.setattr(datasets, name, real)
        action()
        return result

    monkeypatch.setattr(datasets, name, call)


@pytest.mark.parametrize("has_plan", [False, True], ids=["first plan", "continued plan"])
def test_a_file_that_arrives_between_two_commands_is_planned_once(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, has_plan: bool
) -> None:
    config = configured(tmp_path, sources)
    if has_plan:
        cache.build(config)
        put(sources, 4)

    def other_command() -> None:
        put(sources, 0)
        assert cache.build(config).built

    meanwhile(monkeypatch, "make_plan", other_command)
    first = cache.build(config)
    assert first.built == () and first.left == 0
    assert cache.build(config).built == ()
    put(sources, 9)
    assert cache.build(config).left == 0
    assert cache.build(config, verify=True).verified


def test_a_plan_that_is_continued_after_the_scan_is_taken_up(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, sources)
    cache.build(config)
    longer: list[int] = []

    def other_command() -> None:
        put(sources, 0)
        longer.extend(cache.build(config).built)

    meanwhile(monkeypatch, "load_or_train_tokenizer", other_command)
    assert cache.build(config).built == ()
    assert longer and cache.build(config, verify=True).verified
