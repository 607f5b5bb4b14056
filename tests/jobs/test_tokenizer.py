"""llm-train-tokenizer as a job: its report, its folder, two at once, and what a changed tokenizer meets."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from tests.end_to_end.tiny import tiny_config, write_corpus

from llm_training.corpus import CorpusSettings, open_corpus
from llm_training.errors import ConfigError, IntegrityError, LockedError
from llm_training.events import EventBus, Notice
from llm_training.jobs import cache
from llm_training.jobs.prepare import TokenizerChoice, prepare
from llm_training.jobs.tokenizer import REPORT_FILE, train_tokenizer_job
from llm_training.storage.durable import write_bytes
from llm_training.storage.locks import FileLock
from llm_training.storage.manifest import verify
from llm_training.tokenizer import load_tokenizer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "texts")


def test_the_folder_holds_the_tokenizer_its_report_and_their_hashes(source: Path, tmp_path: Path) -> None:
    result = train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
    report = json.loads((tmp_path / "tok" / REPORT_FILE).read_text())
    assert report == json.loads(json.dumps(result.report.to_json())) and report["vocab_size"] == 300
    assert report["held_out"]["bytes_per_token"] > 1 and report["seconds"] > 0
    manifest = verify(tmp_path / "tok")
    assert set(manifest.files) == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", REPORT_FILE}
    assert manifest.extra["fingerprint"] == load_tokenizer(tmp_path / "tok").fingerprint == result.report.fingerprint
    again = train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=310)  # over what is there
    assert verify(tmp_path / "tok").extra["fingerprint"] == again.report.fingerprint != result.report.fingerprint


def test_replacing_another_tokenizer_is_said(source: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    bus = EventBus()
    bus.subscribe(lambda event: notices.append(event.message) if isinstance(event, Notice) else None)
    first = train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300, bus=bus).report.fingerprint
    train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300, bus=bus)
    assert not any("another tokenizer" in line for line in notices)
    train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=301, bus=bus)
    assert [line for line in notices if f"another tokenizer ({first[:8]}), which is replaced" in line]


@pytest.mark.parametrize(
    "names", [["tokenizer.json", "vocab.json", "merges.txt"], ["merges.txt"], ["tokenizer_config.json"], ["manifest.json"]]
)
def test_a_tokenizer_of_another_program_is_not_replaced(source: Path, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "gpt2").mkdir()
    for name in names:
        (tmp_path / "gpt2" / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"the folder holds {names[0]}, which llm-train-tokenizer did not write; at .*gpt2"):
        train_tokenizer_job([str(source)], str(tmp_path / "gpt2"), vocab_size=300)
    assert {path.name: path.read_text() for path in (tmp_path / "gpt2").iterdir()} == dict.fromkeys(names, "{}")


def test_prepared_data_are_not_replaced_by_a_tokenizer(source: Path, tmp_path: Path) -> None:
    prepare([str(source)], str(tmp_path / "data"), vocab_size=300)
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    with pytest.raises(ConfigError, match=r"the folder holds tokenizer\.json, which llm-train-tokenizer did not write"):
        train_tokenizer_job([str(source)], str(tmp_path / "data"), vocab_size=300)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before


def test_a_tokenizer_that_was_being_written_is_replaced(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each of its files: the next command knows whose folder it is."""
    from llm_training.jobs import tokenizer

    for count in range(4):
        left = count

        def killed(path: Path, content: bytes) -> object:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return write_bytes(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(tokenizer, "write_bytes", killed)
            with pytest.raises(KeyboardInterrupt):
                train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
        assert len(list(tmp_path.glob("tok/*"))) == count
    train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
    assert verify(tmp_path / "tok").extra["kind"] == "tokenizer"


def test_a_tokenizer_inside_of_its_source_is_no_text_of_it(source: Path, tmp_path: Path) -> None:
    before = [file.key for file in open_corpus([str(source)], CorpusSettings()).files]
    train_tokenizer_job([str(source)], str(source / "tok"), vocab_size=300)
    (source / "tok" / "notes.txt").write_text("somebody's own\n")
    for pattern in (str(source), f"{source}/**"):
        names = [file.path.name for file in open_corpus([pattern], CorpusSettings()).files]
        assert len(names) == len(before) + 1 and names[-1] == "notes.txt"
    (source / "tok" / "manifest.json").unlink()  # as of a killed command
    assert len(open_corpus([str(source)], CorpusSettings()).files) == len(before) + 1
    prepare([str(source)], str(source / "data"), tokenizer_files=TokenizerChoice("bytes"))
    assert {file.path.name for file in open_corpus([f"{source}/data/*"], CorpusSettings()).files} == {"train.json", "validation.json"}


def test_a_size_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for start in (
        lambda: train_tokenizer_job([str(tmp_path / "nothing")], str(tmp_path / "tok"), vocab_size=10**9),
        lambda: prepare([str(tmp_path / "nothing")], str(tmp_path / "out"), vocab_size=-1),
    ):
        with pytest.raises(ConfigError, match="the range is 257"):
            start()
    assert not list(tmp_path.iterdir())


def test_what_is_left_out_of_the_source_is_told(source: Path, tmp_path: Path) -> None:
    (source / "picture.png").touch()
    notices: list[str] = []
    bus = EventBus()
    bus.subscribe(lambda event: notices.append(event.message) if isinstance(event, Notice) else None)
    train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300, bus=bus)
    assert "left out of the sources: 1 of unknown kind .png" in notices


def test_fertility_is_told_by_source(source: Path, tmp_path: Path) -> None:
    (tmp_path / "digits.jsonl").write_text("".join(json.dumps({"text": f"{number * 7919} " * 40}) + "\n" for number in range(80)))
    result = train_tokenizer_job([str(source), str(tmp_path / "digits.jsonl")], str(tmp_path / "tok"), vocab_size=300)
    words, digits = (result.report.by_source[name] for name in ("texts", "digits"))
    assert words.bytes_per_token > digits.bytes_per_token and digits.tokens_per_word > words.tokens_per_word
    assert {row[0] for row in result.report.rows()} == {"texts", "digits", "all"}
    alone = train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
    assert all(name.startswith("doc-") for name in alone.report.by_source)


def test_words_too_long_to_learn_from_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text("".join(json.dumps({"text": f"{n} words and words " + "ab" * 900}) + "\n" for n in range(60)))
    notices: list[Notice] = []
    bus = EventBus()
    bus.subscribe(lambda event: notices.append(event) if isinstance(event, Notice) else None)
    train_tokenizer_job([str(tmp_path / "long.jsonl")], str(tmp_path / "tok"), vocab_size=258, bus=bus)
    assert any("learnt from their parts" in notice.message and notice.level == "warning" for notice in notices)


def test_patterns(source: Path, tmp_path: Path) -> None:
    train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300, pattern="gpt2")
    assert '"use_regex":true' in (tmp_path / "tok" / "tokenizer.json").read_text().replace(" ", "")
    with pytest.raises(ConfigError, match="no pre-tokenizer pattern 'x'"):
        train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300, pattern="x")


def _train(source: str, output: str, size: int, ready: object, outcomes: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    try:
        fingerprint = train_tokenizer_job([source], output, vocab_size=size).report.fingerprint
        outcomes.put((0, fingerprint))  # type: ignore[attr-defined]
    except LockedError as error:
        outcomes.put((error.exit_code, ""))  # type: ignore[attr-defined]


def test_two_processes_train_to_one_folder(source: Path, tmp_path: Path) -> None:
    """T-7: one wins, the other ends with exit code 9 (or comes after it), and the files belong together."""
    context = multiprocessing.get_context("fork")
    ready, outcomes = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_train, args=(str(source), str(tmp_path / "tok"), size, ready, outcomes)) for size in (290, 300)]
    for worker in workers:
        worker.start()
    found = [outcomes.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert {code for code, _ in found} <= {0, 9} and 0 in {code for code, _ in found}
    assert verify(tmp_path / "tok").extra["fingerprint"] in [fingerprint for code, fingerprint in found if code == 0]
    with FileLock(tmp_path / "tok" / ".tokenizer.lock"), pytest.raises(LockedError) as caught:
        train_tokenizer_job([str(source)], str(tmp_path / "tok"), vocab_size=300)
    assert caught.value.exit_code == 9


def test_another_tokenizer_is_refused_by_a_named_cache(source: Path, tmp_path: Path) -> None:
    """T-6: the fingerprint is in the cache."""
    for name, size in (("one", 290), ("two", 300)):
        train_tokenizer_job([str(source)], str(tmp_path / name), vocab_size=size)
    settings = {"cache.name": "mine", "tokenizer.vocab_size": None}
    cache.build(tiny_config(tmp_path, source, **settings, **{"tokenizer.path": str(tmp_path / "one")}))
    with pytest.raises(IntegrityError) as caught:
        cache.build(tiny_config(tmp_path, source, **settings, **{"tokenizer.path": str(tmp_path / "two")}))
    assert caught.value.exit_code == 4 and "mine" in str(caught.value)


def test_a_model_whose_tokenizer_was_changed_is_refused(tmp_path: Path) -> None:
    """T-6: a checkpoint's manifest has the hash of its tokenizer, so another file in its place is named before it is used."""
    source = write_corpus(tmp_path / "texts", documents=20)
    train_tokenizer_job([str(source)], str(tmp_path / "model"), vocab_size=300)
    train_tokenizer_job([str(source)], str(tmp_path / "other"), vocab_size=290)
    (tmp_path / "model" / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    with pytest.raises(IntegrityError, match="the manifest says"):
        load_tokenizer(tmp_path / "model")
