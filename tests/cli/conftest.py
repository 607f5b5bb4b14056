"""An empty working directory and a caller of commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_training.__main__ import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("LOG_LEVEL", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``python -m llm_training WORDS`` and hand back exit code and texts."""

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(list(words))
        found = capsys.readouterr()
        return Outcome(code, found.out, found.err)

    return call
