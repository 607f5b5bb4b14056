"""Cleaning as a job: what the labels of the messy set ask for, equal bytes for any workers, kills, what is counted and kept."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from llm_training.cleaning import CleaningSettings
from llm_training.config.data import DataConfig
from llm_training.corpus import VALIDATION, Document
from llm_training.corpus.split import split_of_digest, text_digest
from llm_training.errors import ConfigError, DataError
from llm_training.events import EventBus, Notice
from llm_training.jobs.clean_corpus import CleaningPlan, configured_cleaning
from llm_training.jobs.clean_reading import clean_reading
from llm_training.jobs.contamination_tests import texts_of_tests
from llm_training.jobs.prepare import PrepareResult, TokenizerChoice, prepare
from llm_training.storage.faults import FAULT_VARIABLE
from llm_training.storage.manifest import verify

BYTES = TokenizerChoice("bytes")
CONTENT_WORDS = (
    "harbour river market letter garden window captain winter teacher mountain station kitchen journey forest village bridge lantern "
    "summer church island doctor meadow engine picture soldier carpenter neighbour evening morning stranger question answer silence "
    "shadow orchard battle castle wagon feather pillow blanket bottle barrel candle ladder hammer needle thread basket bucket saddle "
    "watched crossed remembered followed painted carried opened described visited repaired gathered promised listened wandered waited "
    "laughed whispered counted borrowed studied climbed planted measured discovered believed answered finished pretended imagined "
    "quiet narrow ancient golden bitter gentle sudden distant broken curious patient hollow heavy crooked silver pleasant careful"
)
FUNCTION_WORDS = "the of and to in that with was for his her from by at which when they had not been after before under over because"
CONTENT, FUNCTION = CONTENT_WORDS.split(), FUNCTION_WORDS.split()


def sentence(rng: random.Random) -> str:
    words = [rng.choice(FUNCTION if place % 2 else CONTENT) for place in range(rng.randrange(9, 18))]
    return f"The {' '.join(words)}."


def document(rng: random.Random) -> str:
    return "\n\n".join(" ".join(sentence(rng) for _ in range(rng.randrange(5, 9))) for _ in range(rng.randrange(1, 4)))


def write_corpus(path: Path, *, seed: int = 1, count: int = 300) -> Path:
    """Documents of which some repeat, nearly repeat, are short, or are not records at all."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        roll = rng.random()
        if texts and roll < 0.1:
            texts.append(rng.choice(texts))
        elif texts and roll < 0.2:
            texts.append(rng.choice(texts).replace(". ", ".  "))
        elif texts and roll < 0.3:
            texts.append(f"{rng.choice(texts)}\n\nThe end of it.")
        elif roll < 0.35:
            texts.append("Home\nAbout\nContact")
        else:
            texts.append(document(rng))
    lines = [json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(texts)]
    lines.insert(7, '{"text": 3}')
    lines.insert(50, "not json")
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "noisy.jsonl")


def clean(source: Path, output: Path, **keywords) -> PrepareResult:
    return prepare([str(source)], str(output), tokenizer_files=BYTES, skip_bad=True, **({"cleaning": CleaningPlan()} | keywords))


def test_everything_is_accounted_for(noisy: Path, tmp_path: Path) -> None:
    result = clean(noisy, tmp_path / "out", keep_dropped=str(tmp_path / "dropped"))
    kept = read(tmp_path / "out" / "train.json") + read(tmp_path / "out" / "validation.json")
    gone = read(tmp_path / "dropped" / "dropped.jsonl")
    assert {row["id"] for row in kept} | {row["id"] for row in gone} - {None} == {f"d{number}" for number in range(300)}
    assert len(kept) + len(gone) == 302 == result.num_documents + len(result.bad)
    assert Counter(f"{row['step']}: {row['reason']}" for row in gone) == result.dropped
    assert set(result.dropped) >= {"duplicates: duplicate", "near_duplicates: near_duplicate", "gopher quality: gopher_short_doc"}
    assert result.bad == [("text not a string", "noisy.jsonl, line 8"), ("invalid json", "noisy.jsonl, line 51")]
    of_id = {row["id"]: row for row in kept}
    given = {
        row["id"]: row["text"] for row in map(json.loads, filter(lambda line: line.startswith('{"id"'), noisy.read_text().splitlines()))
    }
    assert all(0 <= row["quality"] <= 1 and row["text"] == given[row["id"]] for row in kept)
    for row in gone:
        assert row["id"] is None or (row["text"] and row["source"] == "noisy.jsonl")
        if row["reason"] == "duplicate":
            assert row["detail"].removeprefix("of ") in of_id or any(other["id"] == row["detail"].removeprefix("of ") for other in gone)
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["dropped"] == result.dropped and stats["unreadable"][0]["place"] == "noisy.jsonl, line 8"
    table = result.reasons()
    assert table[0][:2] == ("duplicates", "duplicate") and sum(int(row[2].replace(",", "")) for row in table) == len(gone)
    assert not (tmp_path / "out" / ".cleaning").exists()


def test_bad_records_and_blank_lines_are_listed_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_training.jobs.clean_slices.MAX_PLACES", 5)
    monkeypatch.setattr("llm_training.jobs.clean_slices.MAX_HARMLESS_PLACES", 2)
    source = tmp_path / "blank.jsonl"
    text = "The harbour lay still that morning, and the boats came back number "
    source.write_text("".join(f"{json.dumps({'text': text + str(number)})}\n\n" for number in range(300)) + "no\n" * 9)
    for what in (CleaningPlan(CleaningSettings(steps=()), near_similarity=None), None):
        result = clean(source, tmp_path / "out", cleaning=what, max_bad_fraction=0.5)
        assert result.dropped == {"read: blank line": 300, "read: invalid json": 9} and result.num_documents == 300
        assert [place for _, place in result.bad] == [f"blank.jsonl, line {number}" for number in (2, 4, *range(601, 606))]
        assert result.reasons()[0] == ("read", "blank line", "300", f"{300 / 609:.2%}")
    with pytest.raises(DataError, match=r"9 of 309 documents are bad, more than the 2\.0% allowed"):
        clean(source, tmp_path / "out", max_bad_fraction=0.02)


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_training.jobs import prepare as job

    monkeypatch.setattr(job, "_SLICE_BYTES", 60_000)
    source = tmp_path / "texts"
    source.mkdir()
    for number in range(3):
        write_corpus(source / f"{number}.jsonl", seed=number, count=200)
    for workers in (1, 2):
        clean(source, tmp_path / str(workers), workers=workers, keep_dropped=str(tmp_path / str(workers) / "gone"), format="parquet")
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(contents(tmp_path / "1")) > 5


PROGRAM = """
import sys
from tests.jobs.test_cleaning import clean
from pathlib import Path
clean(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def start(source: Path, output: Path, fault: str = "") -> subprocess.Popen[bytes]:
    environment = os.environ | {FAULT_VARIABLE: fault, "PYTHONPATH": os.pathsep.join(["src", "."])}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(source), str(output)], env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with SIGKILL")
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.chdir(repository)
    source = tmp_path / "texts"
    source.mkdir()
    for number in range(2):
        write_corpus(source / f"{number}.jsonl", seed=number, count=400)
    clean(source, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    output = tmp_path / "killed"
    for fault in ("prepare.after_slice:kill@1", "prepare.after_duplicates:kill"):
        assert start(source, output, fault).wait() == -signal.SIGKILL
        assert not (output / "manifest.json").exists() and (output / ".cleaning").exists()
    seed = int.from_bytes(os.urandom(4))
    rng = random.Random(seed)
    began = time.monotonic()
    assert start(source, output).wait() == 0
    duration = time.monotonic() - began
    assert contents(output) == expected
    for _ in range(4):
        running = start(source, tmp_path / "random")
        time.sleep(rng.uniform(0.3, 1.0) * duration)
        running.kill()
        running.wait()
    clean(source, tmp_path / "random")
    assert contents(tmp_path / "random") == expected, f"seed {seed}"


def test_other_settings_do_not_take_over_work(noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_training.jobs import clean_corpus

    monkeypatch.setattr(clean_corpus, "near_duplicates", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clean(noisy, tmp_path / "out")
    assert (tmp_path / "out" / ".cleaning" / "slice-000000.account.json").exists()
    monkeypatch.undo()
    strict = configured_cleaning(DataConfig(min_length=400))
    assert "length: too_short" in clean(noisy, tmp_path / "out", cleaning=strict).dropped
    assert "length: too_short" not in clean(noisy, tmp_path / "out").dropped


def test_nothing_left_says_why(tmp_path: Path) -> None:
    (tmp_path / "code.jsonl").write_text(json.dumps({"text": "x = 1"}) + "\n" + json.dumps({"text": "y = 2"}) + "\n")
    with pytest.raises(DataError, match=r"left none of 2 documents \(2 .*; choose other steps \(--cleaning none"):
        clean(tmp_path / "code.jsonl", tmp_path / "out")


def test_leaks_are_counted_and_need_a_flag(tmp_path: Path) -> None:
    rng = random.Random(5)
    texts = [document(rng) for _ in range(40)]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "test.jsonl").write_text("".join(json.dumps({"text": text.replace(" ", "  ")}) + "\n" for text in texts[:3]))
    with pytest.raises(DataError, match="3 training documents stand in held-out documents"):
        clean(folder, tmp_path / "out", cleaning=None)
    assert clean(folder, tmp_path / "out", cleaning=None, allow_leaks=True).num_leaks == 3
    result = clean(folder, tmp_path / "out")
    assert result.num_leaks == 0 and result.dropped["duplicates: duplicate"] == 3
    assert result.splits["test"]["num_documents"] == 3, "what is held out stays"


def test_decontamination_takes_training_documents_only(noisy: Path, tmp_path: Path) -> None:
    texts = [json.loads(line).get("text") for line in noisy.read_text().splitlines() if line.startswith('{"id"')]
    asked = next(text for text in texts if len(text) > 500)
    items = [{"question": asked[:300], "choices": ["yes", "no"]}, {"question": "Who?", "choices": []}]
    (tmp_path / "exam.json.gz").write_bytes(gzip.compress(json.dumps(items).encode()))
    plan = configured_cleaning(DataConfig(decontaminate=[str(tmp_path / "exam.json.gz")], cleaning=["none"]))
    result = clean(noisy, tmp_path / "out", cleaning=plan, allow_leaks=True)
    assert result.dropped["decontaminate: contaminated"] >= 1
    assert all(asked[:200] not in row["text"] for row in read(tmp_path / "out" / "train.json"))
    (tmp_path / "exam.json").write_text("{")
    with pytest.raises(DataError, match="a test file is not JSON"):
        clean(noisy, tmp_path / "out", cleaning=configured_cleaning(DataConfig(decontaminate=[str(tmp_path / "exam.json")])))


def test_tests_are_found_before_masking_and_in_any_form(tmp_path: Path) -> None:
    phone = "Please call our office number at (555) 123-4567 today."
    gare = "Le café était déjà fermé quand Éloïse arriva à la gare déserte hier soir."
    texts = {f"d{number}": document(random.Random(number)) for number in range(20)}
    texts |= {name: f"{document(random.Random(9))} {text}" for name, text in (("phone", phone), ("gare", gare))}
    source = tmp_path / "x.jsonl"
    source.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    tests = tmp_path / "tests.txt"
    tests.write_text(phone + "\n" + unicodedata.normalize("NFD", gare) + "\n")
    what = CleaningPlan(CleaningSettings(steps=("normalise", "pii")), near_similarity=None, tests=(str(tests),))
    result = clean(source, tmp_path / "out", cleaning=what, validation_fraction=0)
    assert result.dropped == {"decontaminate: contaminated": 2}
    kept = {row["id"]: row["text"] for row in read(tmp_path / "out" / "train.json")}
    assert set(kept) == texts.keys() - {"phone", "gare"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.json", json.dumps({"items": [{"q": "one two"}, {"q": "three"}]}, indent=1), ["one two", "three"]),
        ("t.json", json.dumps(["one", ["two"]], indent=1), ["one", "two"]),
        ("t.jsonl", '{"q": "one\u2028two\u0085"}\r\n\n{"q": "three"}\n', ["one\u2028two\u0085", "three"]),
        ("t.jsonl", '\ufeff{"q": "one"}\n"two"', ["one", "two"]),
        ("t.txt", "one\u2028two\nthree", ["one\u2028two", "three"]),
    ],
)
def test_forms_of_test_files(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert list(texts_of_tests([str(tmp_path / name)])) == expected
    if name != "t.txt":
        (tmp_path / name).write_bytes(content.encode() + b"\n{")
        with pytest.raises(DataError, match="a test file is not JSON"):
            list(texts_of_tests([str(tmp_path / name)]))


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_documents_keep_their_fields(tmp_path: Path, format: str) -> None:
    own = {"quality": "gold", "tags": ["a", {"b": 1}], "m": {"x": [1.5, None]}, "url": "http://x/" + "y" * 2_000, "n": 3, "is": True}
    source = tmp_path / "x.jsonl"
    others = own | {"null": None, "long": "z" * 9_000}
    records = [{"id": f"d{number}", "text": document(random.Random(number)), **others} for number in range(20)]
    records[3]["tags"] = ["t" * 3_000] * 3
    records[4].pop("quality")
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    clean(source, tmp_path / "out", cleaning=CleaningPlan(), format=format, validation_fraction=0)
    if format == "jsonl":
        rows = {row.pop("id"): row for row in read(tmp_path / "out" / "train.json") if row.pop("text")}
    else:
        from pyarrow import parquet

        table = parquet.read_table(tmp_path / "out" / "train-00000.parquet").to_pylist()
        rows = {row["id"]: json.loads(row["metadata"]) for row in table}
    assert len(rows) == 20
    for name, row in rows.items():
        score = row.pop("quality" if name == "d4" else "quality_score")
        missing = {"d3": {"tags"}, "d4": {"quality"}}.get(name, set())
        assert 0 <= score <= 1 and row == {key: value for key, value in own.items() if key not in missing}


def test_source_code_is_not_judged_as_prose(tmp_path: Path) -> None:
    code = "import os\n" + "".join(f"def f{number}(a):\n    return [a, {{{number}: os}}]\n" for number in range(40))
    folder = tmp_path / "texts"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.py.gz").write_bytes(gzip.compress(code.replace("def f", f"def {name}").encode()))
        (folder / name / "y.py").write_text(code.replace("def f", f"def y{name}"))
    (folder / "z.txt").write_text(code)
    paths = [folder / "z.txt", *sorted(folder.glob("*/*"))]
    steps = ("gopher", "repetition", "c4", "fineweb")
    what = CleaningPlan(CleaningSettings(steps=steps), deduplicate=False, near_similarity=None)
    result = prepare([str(path) for path in paths], str(tmp_path / "out"), tokenizer_files=BYTES, cleaning=what)
    assert sum(result.dropped.values()) <= 2 and result.num_documents > 5
    assert {row["id"].partition("#")[0] for row in read(tmp_path / "out" / "train.json")} == {"x.py.gz", "y.py"}
    cleaned = clean_reading(DataConfig(cleaning=list(steps))).opened()
    documents = [Document(name, code, name, 0) for name in ("x.py", "x.py.gz", "x.py#2", "x.py.xz#3", "x.txt", "x.pyc.txt")]
    assert [found.id for found in cleaned(iter(documents))] == ["x.py", "x.py.gz", "x.py#2", "x.py.xz#3"]


def held_out_variant(text: str) -> str:
    """A near-duplicate of the text that its hash holds out."""
    variants = (f"{text}\n\nThe end of it, number {number}." for number in range(1_000))
    return next(variant for variant in variants if split_of_digest(text_digest(variant), 0.05) == VALIDATION)


def test_of_copies_one_stays_beside_a_near_duplicate_that_is_held_out(tmp_path: Path) -> None:
    """What a hash holds out is no better than what trains: the text with the most copies stays, once."""
    rng = random.Random(5)
    text = "\n\n".join(document(rng) for _ in range(3))
    others = [{"id": f"other{number}", "text": document(rng)} for number in range(30)]
    copies = [{"id": "one", "text": text}, {"id": "two", "text": text.replace(". ", ".  ")}]
    variant = {"id": "like", "text": held_out_variant(text)}
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in (variant, *others, *copies)))
    clean(source, tmp_path / "out")
    kept = {row["id"] for name in ("train", "validation") for row in read(tmp_path / "out" / f"{name}.json")}
    assert kept & {"one", "two", "like"} == {"one"}
    # A validation file is another matter: it stays as it is.
    named = tmp_path / "named"
    named.mkdir()
    (named / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*others, *copies)))
    (named / "validation.jsonl").write_text(json.dumps(variant) + "\n")
    clean(named, tmp_path / "out2")
    assert [row["id"] for row in read(tmp_path / "out2" / "validation.json")] == ["like"]
    assert not {row["id"] for row in read(tmp_path / "out2" / "train.json")} & {"one", "two"}


def test_of_a_text_and_the_page_it_stands_on_the_text_stays(tmp_path: Path) -> None:
    text = document(random.Random(8))
    page = f"<html><body><nav>Home</nav><article>{''.join(f'<p>{part}</p>' for part in text.split(chr(10) * 2))}</article></body></html>"
    rows = [
        {"id": "page", "text": page},
        {"id": "text", "text": text},
        *({"id": f"{seed}", "text": document(random.Random(seed))} for seed in range(103, 109)),
    ]
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = clean(source, tmp_path / "out")
    assert result.changes["html extracted"] == 1 and result.dropped == {"duplicates: duplicate": 1}
    kept = {row["id"] for name in ("train", "validation") for row in read(tmp_path / "out" / f"{name}.json")}
    assert "text" in kept and "page" not in kept


def test_when_cleaning_drops_all_that_is_held_out_others_are(tmp_path: Path) -> None:
    texts = [document(random.Random(number)) for number in range(12)]
    lowest = min(map(text_digest, texts))
    texts[0] = next(short for number in range(100_000) if text_digest(short := f"x{number}") < lowest)
    source = tmp_path / "few.jsonl"
    source.write_text("".join(json.dumps({"id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts)))
    notices: list[str] = []
    bus = EventBus()
    bus.subscribe(lambda event: notices.append(event.message) if isinstance(event, Notice) else None)
    for format in ("jsonl", "parquet"):
        clean(source, tmp_path / format, bus=bus, format=format)
    held_out = read(tmp_path / "jsonl" / "validation.json")
    assert len(held_out) == 1 and len(read(tmp_path / "jsonl" / "train.json")) == 10
    assert (tmp_path / "parquet" / "validation-00000.parquet").exists()
    assert notices == ["cleaning left no held-out document: 1 of those that are left are held out instead"] * 2
    (tmp_path / "valid.jsonl").write_text(json.dumps({"text": "short"}) + "\n")
    clean(source, tmp_path / "named", bus=bus, validation_sources=[str(tmp_path / "valid.jsonl")])
    assert notices[2:] == ["no document is held out: validation.json is empty, so a training run has nothing to evaluate on"]


def test_parquet_shards_hold_the_documents(noisy: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    clean(noisy, tmp_path / "out")
    lines = {row["id"]: row["text"] for row in read(tmp_path / "out" / "train.json")}
    result = clean(noisy, tmp_path / "out", format="parquet")
    table = parquet.read_table(tmp_path / "out" / "train-00000.parquet").to_pylist()
    assert {row["id"]: row["text"] for row in table} == lines and "quality" in json.loads(table[0]["metadata"])
    assert not (tmp_path / "out" / "train.json").exists() and "train-00000.parquet" in result.files
    assert verify(tmp_path / "out").extra["documents"] == ["train-00000.parquet", "validation-00000.parquet"]
    clean(noisy, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_preparing_what_was_prepared_changes_no_field(noisy: Path, tmp_path: Path, format: str) -> None:
    clean(noisy, tmp_path / "first", format=format)
    clean(tmp_path / "first", tmp_path / "second")
    clean(noisy, tmp_path / "once")
    for name in ("train.json", "validation.json"):
        rows = {row["id"]: row for row in read(tmp_path / "once" / name)}
        assert {row["id"]: row for row in read(tmp_path / "second" / name)} == rows
        assert rows and all(set(row) == {"id", "text", "quality"} for row in rows.values())


def test_configured_steps() -> None:
    assert configured_cleaning(DataConfig(cleaning=["none"])) is None
    assert configured_cleaning(DataConfig()) == configured_cleaning(DataConfig(cleaning=["all"]))
    only = configured_cleaning(DataConfig(cleaning=["none"]), deduplicate=True)
    assert only is not None and only.settings.steps == () and only.deduplicate and only.near_similarity == 0.8
    without = configured_cleaning(DataConfig(), deduplicate=False)
    assert without is not None and not without.deduplicate and without.near_similarity is None and without.settings.steps
    with pytest.raises(ConfigError, match="no cleaning step soap"):
        configured_cleaning(DataConfig(cleaning=["soap"]))


def test_a_training_run_cleans_single_documents_only() -> None:
    assert clean_reading(DataConfig()).identity() == []
    assert clean_reading(DataConfig(min_length=10)).identity() != clean_reading(DataConfig(min_length=11)).identity() != []
    for wrong in (DataConfig(cleaning=["all"]), DataConfig(decontaminate=["x"])):
        with pytest.raises(ConfigError, match="run llm-prepare-data first"):
            clean_reading(wrong)


# What a labelled set asks for. Rows: share of each kind that must go.
MUST_GO = ("non_en", "gibberish", "repetition", "too_short", "boilerplate")


def judged(labels: dict[str, dict], kept: set[str]) -> dict[str, float]:
    """Figures of a cleaning against labels: exact clusters, near-duplicate recall, removal and loss by kind."""
    copies = {name: label["dup_of"] for name, label in labels.items() if label["category"] in ("exact_dup", "whitespace_dup")}
    clusters: dict[str, list[str]] = defaultdict(list)
    versions: dict[str, list[str]] = defaultdict(list)
    for name, label in labels.items():
        clusters[copies.get(name, name)].append(name)
        versions[label.get("dup_of") or label.get("same_text_as") or name].append(name)
    alike = [name for name, label in labels.items() if label["category"] == "near_dup" and label["word5gram_jaccard"] >= 0.8]
    both = [name for name in alike if name in kept and any(other in kept for other in clusters[labels[name]["dup_of"]])]
    clean_names = [name for name, label in labels.items() if label["category"] == "clean_en"]
    figures = {
        # Text that rules drop with all its versions counts as lost.
        "clusters of copies without one survivor": sum(
            sum(name in kept for name in members) != 1
            for root, members in clusters.items()
            if len(members) > 1 and any(name in kept for name in versions[root])
        ),
        "near-duplicate recall": 1 - len(both) / max(1, len(alike)),
        "clean text lost": sum(not any(other in kept for other in versions[name]) for name in clean_names) / max(1, len(clean_names)),
    }
    for kind in MUST_GO:
        names = [name for name, label in labels.items() if label["category"] == kind]
        figures[f"{kind} removed"] = sum(name not in kept for name in names) / max(1, len(names))
    return figures


def check(figures: dict[str, float]) -> None:
    assert figures["clusters of copies without one survivor"] == 0, figures
    assert figures["near-duplicate recall"] >= 0.97, figures
    assert figures["clean text lost"] <= 0.01, figures
    assert all(figures[f"{kind} removed"] >= 0.97 for kind in MUST_GO), figures


@pytest.mark.data
@pytest.mark.slow
def test_the_messy_set(test_data: Path, tmp_path: Path) -> None:
    labels = {label["id"]: label for label in map(json.loads, (test_data / "messy" / "labels.jsonl").read_text().splitlines())}
    source = test_data / "messy" / "messy.jsonl.gz"
    result = clean(source, tmp_path / "out")
    rows = read(tmp_path / "out" / "train.json") + read(tmp_path / "out" / "validation.json")
    check(judged(labels, {row["id"] for row in rows}))
    broken = {row["line"]: row["why"] for row in json.loads((test_data / "messy" / "malformed_lines.json").read_text())}
    named = {int(place.rpartition("line ")[2]) for _, place in result.bad}
    assert set(broken) - named == {line for line, why in broken.items() if why == "missing id"}, "a record without an id is given one"
    texts = {row["id"]: row["text"] for row in rows}
    masked = [label for name, label in labels.items() if label["category"] == "pii" and name in texts]
    for label in masked:
        text = texts[label["id"]]
        assert (text.count("[EMAIL]"), text.count("[PHONE]"), text.count("[IP]")) == (label["emails"], label["phones"], label["ips"])
    assert len(masked) > 55
    strict = clean(source, tmp_path / "strict", cleaning=configured_cleaning(DataConfig(min_quality=0.7)))
    check(judged(labels, {row["id"] for split in strict.splits for row in read(tmp_path / "strict" / f"{split}.json")}))
