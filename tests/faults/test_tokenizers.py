"""T-1 to T-7: sizes that cannot be, words without an end, damaged files, control text in data, and a tokenizer that was exchanged."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import sysconfig
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.__main__ import main
from llm_training.cache.store import ChunkStore
from llm_training.errors import IntegrityError, StoppedEarly
from llm_training.events import EventBus, StepCompleted
from llm_training.jobs import cache
from llm_training.jobs.train import train
from llm_training.storage.append import read_jsonl
from llm_training.storage.manifest import verify
from llm_training.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.end_to_end.tiny import tiny_config, write_corpus
from tests.faults.commands import in_a_process


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    folder = Path(sysconfig.get_path("stdlib"))
    return train_tokenizer([(folder / name).read_text() for name in ("argparse.py", "typing.py", "datetime.py")], 500)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer as the command leaves it: with a manifest."""
    write_corpus(tmp_path / "texts", documents=20)
    assert main(["train-tokenizer", str(tmp_path / "texts"), "--vocab-size", "300", "--output", str(tmp_path / "tok")]) == 0
    return tmp_path / "tok"


@pytest.mark.parametrize("size", ["-1", "0", "256", "1000000000"])
def test_impossible_sizes_end_with_exit_2_and_the_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    """T-1."""
    (tmp_path / "a.txt").write_text("some words\n" * 50)
    words = [str(tmp_path / "a.txt"), "--vocab-size", size, "--output", str(tmp_path / "out")]
    for command in ("train-tokenizer", "prepare-data"):
        assert main([command, *words, *(["--cleaning", "none"] if command == "prepare-data" else [])]) == 2
        assert "the range is 257 (256 bytes and the separator) to 1,048,576" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name[0] != "."]


@pytest.mark.parametrize("text", ["one two three\n" * 30, "a" * 20_000])
def test_too_little_text_ends_with_exit_3_and_the_size_that_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """T-1: and that size can be."""
    (tmp_path / "a.txt").write_text(text)
    words = ["train-tokenizer", str(tmp_path / "a.txt"), "--output", str(tmp_path / "out"), "--vocab-size"]
    assert main([*words, "5000"]) == 3
    size = capsys.readouterr().err.partition("5,000 entries: ")[2].partition(" ")[0]
    assert main([*words, size]) == 0
    assert load_tokenizer(tmp_path / "out").vocab_size == int(size)


WORD_PROGRAM = """
import json, random, sys, time
from llm_training.tokenizer import load_tokenizer, train_tokenizer
from tests.faults.source_memory import peak_bytes
word = "".join(random.Random(2).choices("abcdefghij", k=1000)) * int(sys.argv[1])
lines, began = [], time.process_time()
tokenizer = train_tokenizer([word], 500, notify=lines.append)
trained = time.process_time() - began
ids, offsets = tokenizer.encode_documents([word])
print(json.dumps({"peak": peak_bytes() / 1e6, "trained": trained, "encoded": time.process_time() - began - trained, "lines": lines,
    "same": tokenizer.decode(ids.tolist()[:3000]) == word[:len(tokenizer.decode(ids.tolist()[:3000]))]}))
"""


@pytest.mark.parametrize("thousands", [5_000, pytest.param(50_000, marks=pytest.mark.nightly)])
def test_a_word_without_an_end_takes_bounded_time_and_memory_and_a_warning(thousands: int) -> None:
    """T-2: a word of 5 MB, nightly of 50 MB."""
    found = in_a_process(WORD_PROGRAM, thousands)
    assert found["trained"] < 30 and found["encoded"] < 30 and found["same"], found
    assert found["peak"] < (400 if thousands < 10_000 else 1_500), found
    assert len(found["lines"]) == 1 and "longer than 256 characters" in found["lines"][0], found


def flip(data: bytearray, at: int, rng: random.Random) -> bytearray:
    data[at] ^= 1 << rng.randrange(8)
    return data


def lose(data: bytearray, at: int, rng: random.Random) -> bytearray:
    return data[:at] + data[at + rng.randrange(1, 200) :]


def truncate(data: bytearray, at: int, rng: random.Random) -> bytearray:
    return data[:at]


def repeat(data: bytearray, at: int, rng: random.Random) -> bytearray:
    return data[:at] + data[at : at + rng.randrange(1, 50)] + data[at:]


def test_five_hundred_damages_are_named_by_their_hash_before_anything_is_parsed(folder: Path) -> None:
    """T-3."""
    rng = random.Random(13)
    path = folder / "tokenizer.json"
    whole = path.read_bytes()
    for _ in range(500):
        change: Callable[..., bytearray] = rng.choice([flip, lose, truncate, repeat])
        damaged = bytes(change(bytearray(whole), rng.randrange(len(whole)), rng))
        path.write_bytes(damaged)
        if damaged != whole:
            with pytest.raises(IntegrityError, match="the manifest says") as caught:
                load_tokenizer(folder)
            assert caught.value.exit_code == 4


def without_manifest(folder: Path, content: bytes) -> Path:
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / "tokenizer.json").write_bytes(content)
    return folder


FORGED: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "token twice": lambda data: json.dumps(data).replace('"B": 66', '"A": 66').encode(),
    "id twice": lambda data: json.dumps(data).replace('"B": 66', '"B": 65').encode(),
    "merge to an unknown token": lambda data: json.dumps(data).replace('"merges": [', '"merges": [["q", "qq"], ').encode(),
    "id hole": lambda data: json.dumps(data).replace('"id": 299', '"id": 2990').encode(),
    "id of 33 bits": lambda data: json.dumps(data).replace('"B": 66', f'"B": {2**32}').encode(),
    "huge id": lambda data: json.dumps(data).replace('"B": 66', '"B": 1' + "0" * 50).encode(),
    "100 levels": lambda data: json.dumps(data | {"normalizer": json.loads("[" * 100 + "]" * 100)}).encode(),
    "300 levels": lambda data: json.dumps(data | {"decoder": json.loads('{"a":[' * 150 + "]}" * 150)}).encode(),
    "100,000 levels": lambda data: b"[" * 100_000,
    "not json": lambda data: b"\x80\x04not json",
    "empty": lambda data: b"",
    "truncated": lambda data: json.dumps(data).encode()[:-20],
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_end_every_command_with_exit_4(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """T-3: without a manifest the content itself is judged."""
    data = json.loads((folder / "tokenizer.json").read_bytes())
    content = FORGED[name](data)
    assert content != json.dumps(data).encode()
    without_manifest(folder, content)
    texts = str(tmp_path / "texts")
    for words in (
        ["build-cache", texts, "--tokenizer", str(folder), "--sequence-length", "16", "--cache-dir", str(tmp_path / "cache")],
        ["prepare-data", texts, "--tokenizer", str(folder), "--output", str(tmp_path / "out"), "--cleaning", "none"],
    ):
        capsys.readouterr()
        assert main(words) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert "tokenizer.json" in line and len(line) < 600


def test_a_file_of_200_megabytes_ends_with_exit_4_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """T-3."""
    with (without_manifest(folder, b"") / "tokenizer.json").open("wb") as file:
        file.truncate(200_000_000)
    assert main(["build-cache", str(folder.parent / "texts"), "--tokenizer", str(folder), "--sequence-length", "16"]) == 4
    assert "200,000,000 bytes, the limit is" in capsys.readouterr().err


def test_control_text_in_documents_makes_no_boundaries(tmp_path: Path) -> None:
    """T-4: through the cache: as many separators as documents, whatever the documents say."""
    rng = random.Random(4)
    texts = [" <|endoftext|>".join("".join(rng.choices("ab <|>\n", k=12)) for _ in range(rng.randrange(1, 6))) for _ in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{number}{text}"}) + "\n" for number, text in enumerate(texts)))
    report = cache.build(tiny_config(tmp_path, tmp_path / "a.jsonl", **{"tokenizer.vocab_size": None, "tokenizer.path": "bytes"}))
    store = ChunkStore.open(Path(report.directory))
    separators, found = 0, []
    for split, records in store.records.items():
        for number in records:
            chunk = store.read(split, number)
            separators += int((chunk.tokens == store.settings.separator_id).sum())
            pieces = np.split(chunk.tokens, np.flatnonzero(chunk.tokens == store.settings.separator_id) + 1)
            found += [bytes(piece[:-1].astype(np.uint8)).decode() for piece in pieces if len(piece)]
    assert separators == len(texts) and sorted(found) == sorted(f"{number}{text}" for number, text in enumerate(texts))


ASSIGNED = [chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000 and unicodedata.category(chr(point)) != "Cn"]


def test_ten_thousand_texts_come_back(trained: Tokenizer) -> None:
    """T-5: of any characters, and of few, which make long runs."""
    rng = random.Random(10)
    alphabets = [
        ASSIGNED,
        list("ab \n"),
        list("0123456789 .,"),
        list(" \t\r\n\u00a0\u3000"),
        list("e\u0301\u0308a"),
        list("'sST<|>endoftxt"),
    ]
    texts = ["".join(rng.choices(rng.choice(alphabets), k=rng.randrange(60))) for _ in range(10_000)]
    ids, offsets = trained.encode_documents(texts)
    for text, start, stop in zip(texts, offsets[:-1], offsets[1:], strict=True):
        assert trained.decode(ids[start:stop].tolist()) == text
    assert trained.separator_id not in ids


@pytest.mark.nightly
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=300))
@settings(max_examples=10_000, deadline=None)
def test_ten_thousand_searched_texts_come_back(trained: Tokenizer, text: str) -> None:
    """T-5: hypothesis looks for the one that does not."""
    assert trained.decode(trained.encode(text)) == text


def stopped_run(tmp_path: Path, source: Path, **changes: Any) -> None:
    bus = EventBus()
    bus.subscribe(lambda event: signal.raise_signal(signal.SIGTERM) if isinstance(event, StepCompleted) and event.step == 3 else None)
    with pytest.raises(StoppedEarly):
        train(tiny_config(tmp_path, source, **changes), bus=bus)


def test_a_run_goes_on_with_its_own_tokenizer_only(folder: Path, tmp_path: Path) -> None:
    """T-6: another one named on resume, and another one in the place of the checkpoint's own, end with exit 4."""
    source = tmp_path / "texts"
    assert main(["train-tokenizer", str(source), "--vocab-size", "290", "--output", str(tmp_path / "other")]) == 0
    changes: dict[str, Any] = {"tokenizer.vocab_size": None, "training.max_steps": 5}
    stopped_run(tmp_path, source, **changes, **{"tokenizer.path": str(folder)})
    (plan, *_) = [record for record in read_jsonl(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "plan"]
    assert plan["facts"]["tokenizer"] == load_tokenizer(folder).fingerprint, "what comparisons of runs look at"
    with pytest.raises(IntegrityError, match=r"cannot be resumed with another tokenizer \(\w{8} -> \w{8}\); at .*other") as caught:
        train(tiny_config(tmp_path, source, **changes, **{"tokenizer.path": str(tmp_path / "other")}))
    assert caught.value.exit_code == 4
    latest = (tmp_path / "run" / "checkpoints" / "latest").resolve()
    own = (latest / "tokenizer.json").read_bytes()
    shutil.copy(tmp_path / "other" / "tokenizer.json", latest / "tokenizer.json")
    with pytest.raises(IntegrityError, match="the manifest says") as caught:
        train(tiny_config(tmp_path, source, **changes, **{"tokenizer.path": str(folder)}))
    assert caught.value.exit_code == 4
    (latest / "tokenizer.json").write_bytes(own)
    shutil.rmtree(folder)  # the checkpoint has its own: what it was made from may go
    assert train(tiny_config(tmp_path, source, **changes, **{"tokenizer.path": str(folder)})).step == 5


def test_a_cache_of_another_tokenizer_is_refused_by_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """T-6."""
    assert main(["train-tokenizer", str(tmp_path / "texts"), "--vocab-size", "290", "--output", str(tmp_path / "other")]) == 0
    words = [
        "build-cache",
        str(tmp_path / "texts"),
        "--dataset-name",
        "mine",
        "--sequence-length",
        "16",
        "--cache-dir",
        str(tmp_path / "c"),
    ]
    assert main([*words, "--tokenizer", str(folder)]) == 0
    capsys.readouterr()
    assert main([*words, "--tokenizer", str(tmp_path / "other")]) == 4
    assert "mine" in capsys.readouterr().err


def _train_to(output: str, source: str, size: int, ready: Any, codes: Any) -> None:
    ready.wait()
    codes.put(main(["train-tokenizer", source, "--vocab-size", str(size), "--output", output]))


def test_two_commands_train_to_one_path(tmp_path: Path) -> None:
    """T-7: eight at once; each ends with 0 or 9, and what is left is one of theirs, whole."""
    source = write_corpus(tmp_path / "texts", documents=20)
    context = multiprocessing.get_context("fork")
    ready, codes = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=_train_to, args=(str(tmp_path / "tok"), str(source), 290 + number, ready, codes)) for number in range(8)
    ]
    for worker in workers:
        worker.start()
    found = [codes.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert set(found) <= {0, 9} and 0 in found and 9 in found, found
    assert verify(tmp_path / "tok").extra["fingerprint"] == load_tokenizer(tmp_path / "tok").fingerprint
    assert not list((tmp_path / "tok").glob(".tmp*"))
