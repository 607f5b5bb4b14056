"""Bad bytes and bad records: refused by place in a strict reading, counted by reason in a lenient one."""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.errors import DataError

from .forms import as_array, as_csv, as_lines, as_wet

BAD_TEXTS = {
    "lone byte": (b"abc\n\xffdef", 2, 4),
    "cut at the end": ("abc\né".encode()[:-1], 2, 4),
    "overlong": (b"ok\n\xc0\x80", 2, 3),
    "utf-16": ("text".encode("utf-16"), 1, 0),
    "surrogate": (b"a\n\n\xed\xa0\x80", 3, 3),
    "continuation": (b"\x80", 1, 0),
    "beyond": (b"x\xf4\x90\x80\x80", 1, 1),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_text_is_named_with_file_line_and_byte(folder: Path, name: str) -> None:
    content, line, offset = BAD_TEXTS[name]
    (folder / "bad.txt").write_bytes(content)
    (folder / "good.txt").write_text("good text\n" * 10)
    with pytest.raises(DataError, match=f"undecodable .*bad.txt, line {line}, byte offset {offset}"):
        _read(folder)
    reader = _read(folder, skip_bad=True)
    assert reader.report.dropped == {"undecodable": 1} and reader.report.num_documents == 1


def test_parts_never_divide_a_character(folder: Path) -> None:
    text = "é€😀" * 500
    (folder / "a.txt").write_bytes(text.encode())
    for size in range(7, 15):
        corpus = open_corpus([str(folder / "a.txt")], CorpusSettings(slice_bytes=size))
        reader = SliceReader(corpus, make_plan(corpus))
        assert "".join(document.text for document in reader.documents()) == text
        reader.close()


def test_text_is_kept_byte_for_byte(folder: Path) -> None:
    content = b"\xef\xbb\xbfnul \x00 bell \x07 esc \x1b[31m\r\nbidi \xe2\x80\xae end\r\n"
    (folder / "a.txt").write_bytes(content)
    (folder / "b.jsonl").write_text(json.dumps({"text": "a\u0000b\u2028c"}) + "\r\n")
    corpus = open_corpus([str(folder)], CorpusSettings())
    reader = SliceReader(corpus, make_plan(corpus))
    texts = [document.text for document in reader.documents()]
    reader.close()
    assert texts == [content[3:].decode(), "a\u0000b\u2028c"]


@pytest.mark.parametrize(
    "content",
    [
        b"# coding: rot13\nprint(1)\n",
        b"# coding: hex\nprint(1)\n",
        b"# coding: undefined\nprint(1)\n",
        b"# coding: utf-7\nx = '+2AA-'\n",
        b"# coding: unicode_escape\nx = '\\ud800'\n",
    ],
)
def test_coding_lines_that_give_no_text_make_one_bad_document(folder: Path, content: bytes) -> None:
    (folder / "bad.py").write_bytes(content)
    (folder / "good.py").write_bytes("# coding: latin-1\nx = 'é'\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"^undecodable .*bad.py, line 1, byte offset 0") as told:
        _read(folder)
    assert str(told.value).isprintable()
    reader = _read(folder, skip_bad=True)
    assert reader.report.dropped == {"undecodable": 1} and reader.report.num_documents == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only there a file name is any bytes")
def test_a_file_name_that_is_not_utf8_is_one_bad_file(folder: Path) -> None:
    good, bad = folder / "good.txt", Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt"))
    for path in (good, bad, bad.with_suffix(os.fsdecode(b".\xe9"))):
        path.write_text("some words of text\n" * 9)
    for source in (folder, folder / "*.txt", bad):
        with pytest.raises(DataError, match=r"file name is not UTF-8; at .*caf\\udce9.txt; rename it") as told:
            open_corpus([str(source)], CorpusSettings())
        assert str(told.value).isprintable()
    plan = make_plan(open_corpus([str(folder)], CorpusSettings(skip_bad=True)))
    assert [file.key for file in plan.files] == ["texts/good.txt"]
    assert plan.skipped == {"file name is not UTF-8": 1, "of unknown kind .\\udce9": 1}
    assert orjson.dumps(plan.to_json())
    home = Path(os.fsdecode(os.fsencode(folder.parent) + b"/\xe9"))
    folder.rename(home)
    with pytest.raises(DataError, match="file name is not UTF-8"):
        open_corpus([str(home)], CorpusSettings(skip_bad=True))


BAD_LINES = [
    (b'{"text": "cut', "invalid json"),
    (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "invalid json"),
    (b"[" * 5000, "invalid json"),
    (b'{"body": "x"}', "missing text"),
    (b'{"text": null}', "text not a string"),
    (b'{"text": 123}', "text not a string"),
    (b'{"text": []}', "text not a string"),
    (b'["text"]', "not an object"),
    (b'{"text": "\\ud800"}', "lone surrogate"),
    (b'{"text": "x", "id": "\\ud800"}', "lone surrogate"),
    (b'{"text": "x", "title": "\\udfff"}', "lone surrogate"),
    (b'{"text": "x", "\\ud800": 1}', "lone surrogate"),
    (b'{"text": "x", "n": NaN, "m": ' + b"9" * 30 + b"}", "invalid json"),
    (b'{"text": "a\xff"}', "undecodable"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[f"{number} {reason}" for number, (_, reason) in enumerate(BAD_LINES)])
def test_bad_lines_are_named_by_number_and_reason(folder: Path, line: bytes, reason: str) -> None:
    path = folder / "r.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n' + line + b'\n{"text": "two"}\n')
    with pytest.raises(DataError, match=rf"^{reason} .*r.jsonl, line 3, byte offset"):
        _read(path)
    reader = _read(path, skip_bad=True)
    assert reader.report.dropped == {reason: 1, "blank line": 1} and reader.report.num_documents == 2
    assert reader.report.examples == [f"{reason} at r.jsonl, line 3"]


def test_what_is_unusual_but_right_is_read(folder: Path) -> None:
    rows = [
        b'{"text": "first", "text": "second"}',
        b'{"text": "nan", "score": NaN}',
        b'  {"text": "spaces"}  \r',
        b'\xef\xbb\xbf{"text": "mark"}',
    ]
    path = folder / "r.jsonl"
    path.write_bytes(b"\n".join([rows[3], *rows[:3]]))
    reader = _read(path)
    assert reader.report.num_documents == 4 and not reader.report.dropped


def test_a_torn_last_line_waits_for_its_end(folder: Path) -> None:
    path = folder / "r.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "tw')
    said: list[str] = []
    corpus = open_corpus([str(path)], CorpusSettings())
    plan = make_plan(corpus, notify=said.append)
    assert plan.slices[0].num_records == 1 and said == ["the last line of r.jsonl is not whole: left out until it is (line 2)"]
    path.write_bytes(b'{"text": "one"}\n{"text": "two"}\n')
    grown = make_plan(corpus, plan)
    assert grown.slices[0] == plan.slices[0] and [span.count for span in grown.slices[1].spans] == [1]


@pytest.mark.parametrize("newline", [b"\n", b""])
def test_lines_over_the_limit_are_passed_over(folder: Path, newline: bytes) -> None:
    path = folder / "r.jsonl"
    long_line = b'{"text": "' + b"x" * 300_000 + b'"}'
    path.write_bytes(b'{"text": "one"}\n' + long_line + b'\n{"text": "two"}\n' + long_line + newline)
    limits = {"max_document_bytes": 10_000, "slice_bytes": 1_000}
    with pytest.raises(DataError, match=r"longer than data.max_document_bytes \(300,01\d bytes, the limit is 10,000\).*line 2"):
        _read(path, **limits)
    reader = _read(path, skip_bad=True, **limits)
    assert reader.report.num_documents == 2 and reader.report.num_bad >= 1
    assert _read(path, slice_bytes=1_000).report.num_documents == 4


def test_json_arrays_are_bounded_and_must_be_closed(folder: Path) -> None:
    path = folder / "r.json"
    path.write_bytes(b'[{"text": "one"}, {"text": "two"}')
    with pytest.raises(DataError, match="JSON array is not closed"):
        _read(path)
    path.write_bytes(b"[" * 3_000_000)
    with pytest.raises(DataError, match=r"JSON is nested deeper than 1,000 levels; at .*r.json, byte offset 0"):
        _read(path)
    path.write_bytes(b'[{"text": "' + b"x" * 3_000_000)
    with pytest.raises(DataError, match="JSON record is longer than 10,000 bytes"):
        _read(path, max_document_bytes=10_000, slice_bytes=1_000)
    tricky = [{"text": 'quote " bracket ] comma , brace } \\'}, {"text": "é", "n": [1, {"a": [2]}]}, {"text": "z"}]
    path.write_text(json.dumps(tricky, ensure_ascii=False, indent=2))
    assert _read(path).report.num_documents == 3


def test_small_elements_beside_a_long_one_are_kept(folder: Path) -> None:
    texts = [f"small {number} " * 50 for number in range(50)]
    path = folder / "r.json"
    path.write_text(json.dumps([{"text": text} for text in [*texts, "x" * 90_000, "last", "y" * 120_000, "end"]]))
    corpus = open_corpus([str(path)], CorpusSettings(skip_bad=True, slice_bytes=80_000, max_document_bytes=100_000))
    reader = SliceReader(corpus, make_plan(corpus))
    kept = [document.text for document in reader.documents()]
    assert kept == [*texts, "x" * 90_000, "last", "end"]
    assert reader.report.dropped == {"longer than data.max_document_bytes": 1}
    reader.close()


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.wet"])
def test_the_limit_of_a_document_holds_below_the_size_of_a_slice(folder: Path, name: str) -> None:
    texts = ["short", "y" * 50_000, "brief"]
    path = folder / name
    path.write_bytes({"r.jsonl": as_lines, "r.json": as_array, "r.csv": as_csv, "r.wet": as_wet}[name](texts))
    reader = _read(path, max_document_bytes=1_000, skip_bad=True)
    reader.report.dropped.pop("not a page", None)
    assert reader.report.num_documents == 2 and reader.report.dropped == {"longer than data.max_document_bytes": 1}
    with pytest.raises(DataError, match=r"longer than data.max_document_bytes \(50,0\d\d bytes, the limit is 1,000\); at .*byte offset"):
        _read(path, max_document_bytes=1_000)


@pytest.mark.parametrize("unit", ["abc d ", "\n", '"', "\\"])
def test_a_long_string_in_an_array_takes_time_and_memory_in_proportion(folder: Path, unit: str) -> None:
    text = unit * (20_000_000 // len(json.dumps(unit)[1:-1]))
    path = folder / "r.json"
    path.write_text(json.dumps([{"text": text}, {"text": "a b"}]))
    tracemalloc.start()
    began = time.process_time()
    try:
        plan = make_plan(open_corpus([str(path)], CorpusSettings(validation_fraction=0.0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [span.count for piece in plan.slices for span in piece.spans] == [1, 1]
    assert peak < 100_000_000 and time.process_time() - began < 4


ANY_TEXTS = st.lists(st.text('ab"\\\n[]{},é ', max_size=30), min_size=1, max_size=12)


@given(texts=ANY_TEXTS, block=st.integers(1, 40), indent=st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_elements_are_found_whatever_the_blocks(
    texts: list[str], block: int, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = [f"x{text}" for text in texts]
    path = tmp_path_factory.mktemp("blocks") / "r.json"
    path.write_text(json.dumps([{"text": text, "n": [1, {"a": text}]} for text in texts], ensure_ascii=False, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_training.corpus.sources.json_array._BLOCK_BYTES", block)
        corpus = open_corpus([str(path)], CorpusSettings(validation_fraction=0.0, slice_bytes=50))
        reader = SliceReader(corpus, make_plan(corpus))
        assert [document.text for document in reader.documents()] == texts
        reader.close()


def test_array_elements_are_judged_one_by_one(folder: Path) -> None:
    path = folder / "r.json"
    path.write_bytes(b'[{"text": "one"}, 5, {"text": null}, {"text": "two"}]')
    reader = _read(path, skip_bad=True)
    assert reader.report.dropped == {"not an object": 1, "text not a string": 1} and reader.report.num_documents == 2


def test_too_large_a_share_of_bad_documents_stops_a_lenient_reading(folder: Path) -> None:
    path = folder / "r.jsonl"
    path.write_bytes(b'{"text": "good"}\n' * 90 + b"bad\n" * 10)
    with pytest.raises(DataError, match=r"10 of 100 documents are bad, .* \(first: invalid json at r.jsonl, line 91\)"):
        _read(path, skip_bad=True)
    assert _read(path, skip_bad=True, max_bad_fraction=0.2).report.num_bad == 10


@pytest.mark.data
def test_the_labelled_messy_set(test_data: Path) -> None:
    path = test_data / "messy" / "messy.jsonl.gz"
    labels = json.loads((test_data / "messy" / "malformed_lines.json").read_bytes())
    reader = _read(path, skip_bad=True, max_bad_fraction=0.02)
    bad_lines = Counter(entry["why"] for entry in labels)
    ours = reader.report.dropped
    assert ours["invalid json"] == bad_lines["invalid json"] and ours["lone surrogate"] == bad_lines["lone surrogate"]
    assert ours["undecodable"] == bad_lines["invalid utf-8"] and ours["missing text"] == bad_lines["missing text"]
    assert ours["text not a string"] == bad_lines["text not a string"] + bad_lines["null text"]
    first_bad = min(entry["line"] for entry in labels if entry["why"] != "missing id")
    with pytest.raises(DataError, match=rf"line {first_bad}, byte offset"):
        _read(path)


def _read(path: Path, **settings: object) -> SliceReader:
    corpus = open_corpus([str(path)], CorpusSettings(**settings))  # pyright: ignore[reportArgumentType]
    reader = SliceReader(corpus, make_plan(corpus))
    list(reader.documents())
    reader.close()
    return reader
