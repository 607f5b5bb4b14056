"""Commands over one cache at the same time, and a forced rebuild that is killed: plan and store never contradict each other."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.end_to_end.tiny import tiny_config

from llm_training.config.root import Config
from llm_training.errors import StorageError
from llm_training.jobs import cache, datasets, plan_files
from llm_training.storage.faults import forget_visits


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


def meanwhile(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, action: Any) -> None:
    """Do ``action`` once, after the first call of a function of a module."""
    real = getattr(module, name)

    def call(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        monkeypatch.setattr(module, name, real)
        action()
        return result

    monkeypatch.setattr(module, name, call)


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

    meanwhile(monkeypatch, plan_files, "make_plan", other_command)
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

    meanwhile(monkeypatch, datasets, "load_or_train_tokenizer", other_command)
    assert cache.build(config).built == ()
    assert longer and cache.build(config, verify=True).verified


POINTS = ["cache.after_chunk", "cache.before_swap", "cache.in_swap", "cache.after_swap", "cache.before_plan"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("next_mode", ["normal", "inverse", "force_rebuild"])
def test_a_forced_rebuild_killed_anywhere_leaves_plan_and_store_in_agreement(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, point: str, next_mode: str
) -> None:
    """C-11: the slices of a plan that grew are others than those of one made anew, so the old plan goes with the old store."""
    config = configured(tmp_path, sources)
    cache.build(config)
    put(sources, 0, 40)
    grown = cache.build(config).num_sequences
    forget_visits()
    monkeypatch.setenv("LLM_TRAINING_FAULT", f"{point}:raise")
    with pytest.raises(StorageError, match="injected fault"):
        cache.build(config, force_rebuild=True)
    monkeypatch.delenv("LLM_TRAINING_FAULT")
    options: dict[str, Any] = {"force_rebuild": True} if next_mode == "force_rebuild" else {"mode": next_mode}
    report = cache.build(config, **options)
    assert report.left == 0 and abs(report.num_sequences - grown) < 20
    assert not report.built or next_mode == "force_rebuild"
    put(sources, 5)
    assert cache.build(config).built
    assert cache.build(config, verify=True).verified


def test_a_first_build_that_was_forced_and_killed_goes_on(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, sources)
    forget_visits()
    monkeypatch.setenv("LLM_TRAINING_FAULT", "cache.after_record:raise")
    with pytest.raises(StorageError, match="injected fault"):
        cache.build(config, force_rebuild=True)
    monkeypatch.delenv("LLM_TRAINING_FAULT")
    put(sources, 0)
    assert cache.build(config).left == 0
    assert [path.name for path in (tmp_path / "cache" / "plans").iterdir() if path.name.startswith(".")] == []


def test_a_plan_file_older_than_the_store_is_continued_from_the_store(tmp_path: Path, sources: Path) -> None:
    config = configured(tmp_path, sources)
    cache.build(config)
    (path,) = (tmp_path / "cache" / "plans").glob("*.json")
    older = path.read_bytes()
    for number in (9, 8):
        put(sources, number)
        assert cache.build(config).built
    (sources / "1.txt").write_text((sources / "1.txt").read_text() + "\n\nAnd this came after all. " * 40)
    cache.build(config)
    newer = path.read_bytes()
    path.write_bytes(older)
    assert cache.build(config).built == ()
    assert path.read_bytes() == newer
    put(sources, 7)
    assert cache.build(config).built
    assert cache.build(config, verify=True).verified
