"""Commands on a finished run: its log, the documents of its steps, its checkpoints."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from tests.end_to_end.tiny import tiny_config, write_corpus

from llm_training.errors import ConfigError, LockedError
from llm_training.jobs import logs
from llm_training.jobs.cleanup import cleanup
from llm_training.jobs.provenance import documents_of_step
from llm_training.jobs.system import check_system
from llm_training.jobs.tokenizer import train_tokenizer_job
from llm_training.jobs.train import train
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.locks import FileLock
from llm_training.storage.runs import RunLayout
from llm_training.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps with a checkpoint every 3."""
    folder = tmp_path_factory.mktemp("finished")
    source = write_corpus(folder / "texts")
    changes = {"training.max_steps": 12, "training.save_steps": 3, "training.eval_steps": 3, "training.save_total_limit": None}
    train(tiny_config(folder, source, **{"training.output_dir": str(folder / "run")} | changes))
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def test_log_lines_for_people_and_for_scripts(run: Path) -> None:
    lines = list(logs.log_lines(str(run)))
    records = [json.loads(line) for line in logs.log_lines(str(run), as_json=True)]
    assert records == list(read_jsonl(run / "metrics.jsonl"))
    assert len(lines) == len(records)
    steps = [line for line in lines if "  step  " in line]
    assert len(steps) == 12 and "12/12 loss " in steps[-1] and "tok/s" in steps[-1]
    assert any("  evaluation  " in line and "perplexity" in line for line in lines)
    assert any("  finish  " in line for line in lines)
    assert list(logs.log_lines(str(run), last=2)) == lines[-2:]
    assert list(logs.log_lines(str(run), last=0)) == []


def test_follow_shows_what_is_appended_until_the_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(logs, "QUIET_SECONDS", 0.3)
    shown: list[str] = []
    reader = threading.Thread(target=lambda: shown.extend(logs.log_lines(str(run), follow=True, last=0, as_json=True)))
    reader.start()
    time.sleep(0.1)
    with JsonlAppender(run / "metrics.jsonl") as log:
        log.append({"kind": "step", "step": 13, "time": 1.0})
        log.append({"kind": "finish", "step": 13, "time": 2.0, "reason": "finished"})
    reader.join(timeout=20)
    assert not reader.is_alive()
    assert [json.loads(line)["kind"] for line in shown] == ["step", "finish"]


def test_lines_survive_values_that_are_not_finite_and_unknown_kinds() -> None:
    step = {
        "kind": "step",
        "time": 0.0,
        "step": 1,
        "total_steps": 2,
        "loss": None,
        "lr": 1e-3,
        "nonfinite": {"loss": "nan"},
        "skipped": True,
    }
    assert "loss nan" in logs.log_line(step) and logs.log_line(step).endswith("skipped")
    assert '"a": 1' in logs.log_line({"kind": "future", "a": 1})
    assert "\x1b" not in logs.log_line({"kind": "notice", "time": 0.0, "message": "\x1b[31mred"})


def test_runs_are_found_by_name_and_the_newest_by_itself(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no run under"):
        logs.newest_run()
    name = "1.0K_texts_32_run_1"
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / name)
    assert logs.newest_run() == str(Path("runs") / name)
    assert logs.locate_run(name).path == Path("runs") / name
    with pytest.raises(ConfigError, match=f"known runs: {name}"):
        logs.locate_run("other")


def test_documents_of_a_step(finished: Path) -> None:
    rows = documents_of_step(str(finished), 1)
    assert len({row for row, *_ in rows}) == 8  # sequences of a step
    assert all(source.startswith("texts/doc-") and tokens > 0 for _, _, source, _, first, tokens in rows if first >= 0)
    assert rows == documents_of_step(str(finished), 1) != documents_of_step(str(finished), 2)
    for step in (0, 13):
        with pytest.raises(ConfigError, match="steps 1 to 12"):
            documents_of_step(str(finished), step)


def test_cleanup_only_says_until_it_is_told_to(run: Path) -> None:
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    shown = cleanup(str(run), keep_best=1, keep_last=1)
    assert shown.is_dry_run and len(shown.entries) == 4 and "add --yes" in shown.summary()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    done = cleanup(str(run / "checkpoints"), keep_best=1, keep_last=1, is_dry_run=False)
    assert done.removed == shown.removed
    left = {path.name for path in (run / "checkpoints").iterdir() if path.is_dir() and not path.is_symlink()}
    assert left == {entry.name for entry in shown.entries if not entry.reason}
    assert cleanup(str(run), is_dry_run=False).summary() == "Nothing to remove."


def test_cleanup_removes_leftovers_and_leaves_the_damaged_alone(run: Path) -> None:
    checkpoints = run / "checkpoints"
    shutil.copytree(checkpoints / "step-00000003", checkpoints / ".quarantine-step-00000002-0000")
    (checkpoints / "step-00000003" / "model.safetensors").write_bytes(b"damaged")
    (checkpoints / ".tmp-0-step-00000004").mkdir()
    found = cleanup(str(run), keep_best=9, keep_last=9, is_dry_run=False)
    damaged = ("step-00000003", ".quarantine-step-00000002-0000")
    assert found.invalid == damaged and [name for name, _ in found.leftovers] == [".tmp-0-step-00000004"]
    assert all((checkpoints / name).exists() for name in damaged) and not (checkpoints / ".tmp-0-step-00000004").exists()


def test_cleanup_refuses_what_is_no_run_and_what_is_locked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="not a directory of checkpoints"):
        cleanup(str(tmp_path / "other"), is_dry_run=False)
    with pytest.raises(ConfigError, match="no such directory"):
        cleanup(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="negative"):
        cleanup(str(run), keep_last=-1)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(run / "checkpoints")
    with pytest.raises(ConfigError, match="not a directory of checkpoints"):
        cleanup(str(tmp_path / "linked"), is_dry_run=False)
    with FileLock(RunLayout(run).lock), pytest.raises(LockedError):
        cleanup(str(run), is_dry_run=False)


def test_tokenizer_job(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "texts")
    result = train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
    assert load_tokenizer(tmp_path / "tok").fingerprint == result.report.fingerprint
    assert result.report.vocab_size == 300 and result.report.held_out.num_documents > 0 and result.report.held_out.bytes_per_token > 1
    with FileLock(tmp_path / "tok" / ".tokenizer.lock"), pytest.raises(LockedError):
        train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
    with pytest.raises(ConfigError, match="no source"):
        train_tokenizer_job([], str(tmp_path / "tok"), vocab_size=300)


def test_system_report() -> None:
    report = check_system(with_speed=False)
    names = [fact.name for fact in report.facts]
    assert report.is_able and {"Python", "torch", "device", "precision", "memory", "disk", "compiler"} <= set(names)
    assert all(fact.found and fact.mark for fact in report.facts)
