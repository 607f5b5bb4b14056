"""The plan: sizes of slices, growth, and what an edit does."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.corpus import Corpus, CorpusSettings, Plan, SliceReader, make_plan, open_corpus
from llm_training.errors import DataError, IntegrityError

from .conftest import read_all
from .forms import TEXTS, as_array, as_csv, as_lines, as_parquet

SMALL = CorpusSettings(slice_bytes=1000)


def _open(*uris: Path, settings: CorpusSettings = SMALL) -> Corpus:
    return open_corpus([str(uri) for uri in uris], settings)


def _rows(first: int, last: int) -> bytes:
    return b"".join(orjson.dumps({"text": f"document {number} " + "w " * (number % 40)}) + b"\n" for number in range(first, last))


def _texts(corpus: Corpus, plan: Plan) -> list[str]:
    return [document.text for document in read_all(corpus, plan)]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_slices_are_even_and_cover_every_record_once(folder: Path, name: str) -> None:
    content = _rows(0, 500)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    corpus = _open(folder / name)
    plan = make_plan(corpus)
    assert plan.num_bytes == len(content) and sum(piece.num_records for piece in plan.slices) == 500
    assert all(500 <= piece.num_bytes <= 1500 for piece in plan.slices[:-1])
    positions = [document.position for document in read_all(corpus, plan)]
    assert positions == list(range(500))
    assert plan.slices[0].first_position == (name, 0) and plan.slices[-1].last_position == (name, 499)


def test_small_files_share_a_slice(folder: Path) -> None:
    for number in range(200):
        (folder / f"{number:03}.txt").write_text(f"text {number}\n" * 5)
    plan = make_plan(_open(folder))
    assert 5 < len(plan.slices) < 25
    assert [span.file for piece in plan.slices for span in piece.spans] == [f"texts/{number:03}.txt" for number in range(200)]


def test_a_plan_survives_json(folder: Path) -> None:
    (folder / "r.jsonl").write_bytes(_rows(0, 100))
    plan = make_plan(_open(folder))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert len({piece.identity for piece in plan.slices}) == len(plan.slices)


@pytest.mark.parametrize("damage", ["{}", "[]", "3", '{"format_version": 2}', '{"format_version": 1, "slices": [{"number": 1}]}'])
def test_a_damaged_plan_is_refused(damage: str) -> None:
    with pytest.raises(IntegrityError, match="plan is malformed"):
        Plan.from_json(json.loads(damage))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_mutated_plans_never_escape_as_another_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "r.jsonl").write_bytes(_rows(0, 20))
    plain = json.loads(json.dumps(make_plan(_open(folder)).to_json()))
    node: dict | list = plain
    while True:
        key = data.draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else data.draw(st.integers(0, len(node) - 1))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = data.draw(st.sampled_from([None, -1, "x", [], {}]))
            break
        node = node[key]
    try:
        Plan.from_json(plain)
    except IntegrityError as error:
        assert "plan is malformed" in error.what


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.json", "t.txt", "t.md.gz", "m.py"])
def test_appended_bytes_make_new_slices_and_leave_the_old(folder: Path, name: str) -> None:
    def write(last: int) -> None:
        if name.endswith(".json"):
            content = json.dumps([{"text": f"document {number} " + "w " * (number % 40)} for number in range(last)]).encode()
            (folder / name).write_bytes(content)
        elif name.endswith(".gz"):
            steps = [(0, 100), (100, 160)] if last > 100 else [(0, 100)]
            (folder / name).write_bytes(b"".join(gzip.compress(_rows(*step), mtime=0) for step in steps))
        else:
            (folder / name).write_bytes(_rows(0, last))

    write(100)
    (folder / "other.txt").write_text("another document\n" * 20)
    corpus = _open(folder)
    plan = make_plan(corpus)
    before = _texts(corpus, plan)
    assert make_plan(corpus, plan) == plan
    write(160)
    (folder / "zz-new.txt").write_text("a new document\n" * 20)
    grown_corpus = _open(folder)
    grown = make_plan(grown_corpus, plan)
    assert grown.slices[: len(plan.slices)] == plan.slices and len(grown.slices) > len(plan.slices)
    after = _texts(grown_corpus, grown)
    assert after[: len(before)] == before
    fresh = _texts(grown_corpus, make_plan(grown_corpus))
    assert sorted("".join(after)) == sorted("".join(fresh))
    assert make_plan(grown_corpus, grown) == grown


@pytest.mark.parametrize(
    ("name", "line_end"),
    [*product(["r.jsonl", "r.jsonl.gz", "r.csv", "r.csv.gz"], ["\n", "\r\n"]), *product(["r.csv", "r.csv.gz"], ["\r"])],
)
def test_a_line_end_that_comes_later_is_no_line(folder: Path, name: str, line_end: str) -> None:
    def write(content: str) -> None:
        (folder / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())

    rows = [json.dumps({"text": f"text {number}"}) if "jsonl" in name else f"{number},text {number}" for number in range(4)]
    head = [] if "jsonl" in name else ["n,text"]
    whole = line_end.join([*head, *rows, ""])
    plan = None
    for lines in ([*head, *rows[:2]], [*head, *rows[:2], ""], [*head, *rows[:3]], [*head, *rows, ""]):
        write(line_end.join(lines))
        said: list[str] = []
        corpus = _open(folder / name)
        plan = make_plan(corpus, plan, notify=said.append)
        assert not said
    assert plan is not None
    documents = read_all(corpus, plan)
    assert [(document.position, document.text) for document in documents] == [(number, f"text {number}") for number in range(4)]
    write(whole + "{" + line_end)
    with pytest.raises(DataError, match=r", line 5, byte offset" if "jsonl" in name else rf"byte offset {len(whole)}"):
        grown = _open(folder / name)
        read_all(grown, make_plan(grown, plan))


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
def test_a_row_that_was_still_being_written_is_told(folder: Path, name: str) -> None:
    def write(content: bytes) -> None:
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    write(b"id,text\n1,hello there\n2,hello y")
    settings = CorpusSettings(skip_bad=True, max_bad_fraction=1.0)
    plan = make_plan(_open(folder, settings=settings))
    write(b"id,text\n1,hello there\n2,hello you all\n3,third\n")
    with pytest.raises(IntegrityError, match=r"the last row went on after it was planned.*line 3, byte offset 31"):
        make_plan(_open(folder, settings=settings), plan)


def test_a_grown_compressed_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "r.jsonl.gz"
    path.write_bytes(gzip.compress(_rows(0, 300)[:-1]))
    plan = make_plan(_open(folder))
    path.write_bytes(gzip.compress(_rows(0, 400)))
    opened: list[Path] = []
    real = gzip.GzipFile
    monkeypatch.setattr("llm_training.corpus.streams.gzip.GzipFile", lambda **arguments: opened.append(Path()) or real(**arguments))
    assert make_plan(_open(folder), plan).files[0].num_records == 400
    assert len(opened) == 1


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "t.txt"])
@pytest.mark.parametrize("kind", ["edit", "truncate", "insert"])
def test_changed_bytes_are_refused(folder: Path, name: str, kind: str) -> None:
    def write(content: bytes) -> None:
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    content = _rows(0, 100)
    write(content)
    corpus = _open(folder)
    plan = make_plan(corpus)
    write(
        {"edit": content.replace(b"document 5 ", b"document X "), "truncate": content[: len(content) // 2], "insert": b"\n" + content}[kind]
    )
    with pytest.raises(IntegrityError, match=r"bytes [\d,]+ to [\d,]+ changed after they were planned"):
        make_plan(_open(folder), plan)
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        read_all(corpus, plan)


def test_an_edit_that_keeps_size_and_time_is_caught_when_read(folder: Path) -> None:
    import os

    path = folder / "a.txt"
    path.write_text("one two three\n" * 20)
    corpus = _open(path)
    plan = make_plan(corpus)
    status = path.stat()
    path.write_text("one two thrEe\n" * 20)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        read_all(corpus, plan)


def test_other_settings_or_sources_are_refused(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(_rows(0, 50))
    plan = make_plan(_open(folder))
    with pytest.raises(IntegrityError, match=r"made with other settings .slice_bytes."):
        make_plan(_open(folder, settings=CorpusSettings(slice_bytes=2000)), plan)
    with pytest.raises(IntegrityError, match="source 0 of the plan is texts, not a"):
        make_plan(_open(folder / "a.jsonl"), plan)


def test_a_moved_folder_keeps_its_plan(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(_rows(0, 50))
    plan = make_plan(_open(folder))
    elsewhere = folder.parent / "elsewhere" / "texts"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    assert make_plan(_open(elsewhere), plan) == plan
    assert str(folder) not in json.dumps(plan.to_json())


def test_slices_read_in_any_order_are_the_same(folder: Path) -> None:
    (folder / "r.jsonl.gz").write_bytes(gzip.compress(_rows(0, 300)))
    (folder / "t.txt").write_bytes(_rows(300, 400))
    corpus = _open(folder)
    plan = make_plan(corpus)
    forward, backward = SliceReader(corpus, plan), SliceReader(corpus, plan)
    ordered = [list(forward.read_slice(piece.number)) for piece in plan.slices]
    reverse = [list(backward.read_slice(piece.number)) for piece in reversed(plan.slices)]
    assert ordered == reverse[::-1]
    forward.close()
    backward.close()


def test_slices_in_order_open_a_compressed_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "r.jsonl.gz").write_bytes(gzip.compress(_rows(0, 300)))
    corpus = _open(folder)
    plan = make_plan(corpus)
    opened: list[Path] = []
    real = gzip.GzipFile
    monkeypatch.setattr("llm_training.corpus.streams.gzip.GzipFile", lambda **arguments: opened.append(Path()) or real(**arguments))
    read_all(corpus, plan)
    assert len(opened) == 1 and len(plan.slices) > 5


LIMITED = {"x.jsonl": as_lines, "x.json": as_array, "x.csv": as_csv, "x.parquet": as_parquet}


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61, 66, 1000])
def test_a_limit_takes_the_first_documents_in_order(folder: Path, name: str, limit: int) -> None:
    whole = CorpusSettings(slice_bytes=1000, validation_fraction=0.0)
    limited = replace(whole, max_documents=limit)
    (folder / name).write_bytes(LIMITED[name](TEXTS))
    (folder / "y.jsonl").write_bytes(_rows(0, 5))
    (folder / "z.txt").write_text("a line of the last text\n" * 200)
    everything = read_all(_open(folder, settings=whole), make_plan(_open(folder, settings=whole)))
    corpus = _open(folder, settings=limited)
    plan = make_plan(corpus)
    documents = read_all(corpus, plan)
    expected = everything if limit >= 66 else everything[:limit]
    assert [(each.source, each.position, each.text) for each in documents] == [(each.source, each.position, each.text) for each in expected]
    assert plan.num_bytes <= make_plan(_open(folder, settings=whole)).num_bytes * min(1, (limit + 1) / 66) + 3000
    assert make_plan(corpus, plan) == plan
    with pytest.raises(IntegrityError, match=r"made with other settings .max_documents."):
        make_plan(_open(folder, settings=replace(limited, max_documents=limit + 1)), plan)


def test_a_limit_counts_over_sources_and_growth_and_not_what_is_held_out_by_name(folder: Path) -> None:
    for name, text in (("train-a.txt", "one\n"), ("train-b.txt", "two\n"), ("valid.txt", "held out\n"), ("test.jsonl", "")):
        (folder / name).write_text(text * 100)
    (folder / "test.jsonl").write_bytes(_rows(0, 9))
    single = folder.parent / "single.txt"
    single.write_text("a line\n" * 100)
    settings = CorpusSettings(slice_bytes=1000, max_documents=3)
    corpus = _open(folder, single, settings=settings)
    plan = make_plan(corpus)
    documents = read_all(corpus, plan)
    assert {document.source for document in documents} == {*(f"texts/{path.name}" for path in folder.iterdir()), "single.txt"}
    assert sum(document.split == "test" for document in documents) == 9
    assert {document.split for document in documents if document.source == "single.txt"} == {"train", "validation"}
    (folder / "train-c.txt").write_text("three\n" * 100)
    single.write_text("a line\n" * 200)
    assert make_plan(_open(folder, single, settings=settings), plan).slices == plan.slices
    fewer = replace(settings, max_documents=2)
    assert "single.txt" not in {file.key for file in make_plan(_open(folder, single, settings=fewer)).files}


@given(lines=st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=60), min_size=1, max_size=30), size=st.integers(8, 300))
@settings(max_examples=150, deadline=None)
def test_any_text_is_whole_again_for_any_slice_size(lines: list[str], size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = "start " + "\n".join(lines)
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(text.encode())
    corpus = _open(path, settings=CorpusSettings(slice_bytes=size))
    reader = SliceReader(corpus, make_plan(corpus))
    kept = "".join(document.text for document in reader.documents())
    reader.close()
    assert kept == text or reader.report.dropped["empty text"]
