"""Exit codes, one line for each error, help at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_training import errors
from llm_training.cli import door
from llm_training.cli.commands import COMMANDS
from tests.cli.conftest import Run

EXPECTED = [
    errors.ConfigError, errors.DataError, errors.IntegrityError, errors.StorageError, errors.NumericError, errors.PeerError,
    errors.MemoryLimitError, errors.LockedError, errors.StoppedEarly, errors.Interrupted,
]  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_expected_errors_are_one_line_and_their_own_exit_code(kind: type[errors.LlmTrainingError], capsys) -> None:
    def command() -> None:
        raise kind("the fact", where="the place", remedy="the remedy")

    assert door.run("train", command, []) == kind.exit_code
    found = capsys.readouterr()
    assert found.err == f"error[E{kind.exit_code:02d}]: the fact; at the place; the remedy\n"
    assert found.out == ""


def test_debug_shows_the_traceback_too(capsys) -> None:
    def command() -> None:
        raise errors.DataError("the fact")

    assert door.run("train", command, ["--debug"]) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith("error[E03]: the fact\n")


def test_anything_else_is_a_bug(capsys) -> None:
    def command() -> None:
        raise ZeroDivisionError("oops")

    assert door.run("train", command, []) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "ZeroDivisionError: oops" in err and "this is a bug" in err.splitlines()[-1]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 8)])
def test_interrupts_and_memory(error: BaseException, code: int, capsys) -> None:
    def command() -> None:
        raise error

    assert door.run("train", command, []) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_very_many_problems_are_cut(capsys) -> None:
    def command() -> None:
        raise errors.ConfigError("x", problems=[f"problem {number}" for number in range(70)])

    assert door.run("train", command, []) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == door.MAX_ERROR_LINES + 1 and lines[-1] == "error[E02]: and 20 more"


@pytest.mark.parametrize("word", COMMANDS)
def test_help_shows_usage_every_flag_and_one_example(word: str, run: Run) -> None:
    found = run(word, "--help")
    assert found.code == 0 and found.err == ""
    assert found.out.startswith(f"Usage: llm-{word} ")
    assert found.out.count("Example:\n") == 1
    assert f"    llm-{word}" in found.out
    assert run(word, "-h").out == found.out


@pytest.mark.parametrize("word", COMMANDS)
def test_unknown_flags_are_refused_in_one_line(word: str, run: Run) -> None:
    found = run(word, "--no-such-flag")
    assert found.code == 2
    (line,) = found.err.splitlines()
    assert line.startswith("error[E02]: ")
    assert "no-such-flag" in line or line == "error[E02]: --checkpoint-dir is required; see --help"


def test_version(run: Run) -> None:
    assert run("train", "--version").out.startswith("llm-training 0.")


def test_list_of_commands(run: Run) -> None:
    found = run()
    assert found.code == 0 and all(f"  {word} " in found.out for word in COMMANDS)
    found = run("nonsense")
    assert found.code == 2 and found.err.startswith("error[E02]: unknown command 'nonsense'")
    assert run("llm-check_system", "--help").code == 0


def _seconds(*words: str) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=60)
        best = min(best, time.perf_counter() - began)
    return best


@pytest.mark.parametrize("module", ["llm_training.main", "llm_training.cli.generate"])
def test_help_answers_at_once(module: str) -> None:
    """The bar is 0.5 s of wall time on an idle machine; a start of Python is part of it."""
    assert _seconds("-m", module, "--help") < 0.5


def test_importing_the_package_costs_next_to_nothing() -> None:
    assert _seconds("-c", "import llm_training") - _seconds("-c", "pass") < 0.2


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, llm_training.cli.train as t; t.main(['--help']); "
        "print([m for m in ('torch', 'pydantic', 'cyclopts', 'numpy', 'yaml', 'rich') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_leaves_is_no_error() -> None:
    """``llm-train --help | head -1``."""
    process = subprocess.Popen([sys.executable, "-m", "llm_training.main", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("script", ["train", "prepare_data"])
def test_scripts_are_the_commands(script: str, repository: Path) -> None:
    found = subprocess.run(
        [sys.executable, str(repository / "scripts" / f"{script}.py"), "--help"], check=True, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.startswith("Usage: llm-" + script.replace("_", "-"))
