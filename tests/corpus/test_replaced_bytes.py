"""Bytes that are no UTF-8 become U+FFFD where the user asks for that: in every form, counted, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_training.corpus import CorpusSettings, SliceReader, located, make_plan, open_corpus
from llm_training.errors import DataError, IntegrityError

from .forms import FORMS, TEXTS, as_array, as_arrow, as_csv, as_lines, as_parquet, as_wet

GOOD = ["a good text, é", "the bad one: MARK here, and MARK", "the last one, 😀"]
BAD = b"\xe2\x82"
REPLACED = GOOD[1].replace("MARK", "\ufffd")
# How a form is written, and what the place of its first bad byte is called.
WRITTEN = {
    "x.jsonl": (lambda texts: b" " + as_lines(texts).replace(b"\\u00e9", "é".encode()), "line 2, byte offset"),
    "x.json": (as_array, "line 7, byte offset"),
    "x.csv": (as_csv, "line 3, byte offset"),
    "x.tsv": (lambda texts: as_csv(texts, "\t"), "line 3, byte offset"),
    "x.wet": (as_wet, "byte offset"),
    "x.parquet": (lambda texts: as_parquet(texts, compression="none", use_dictionary=False, write_statistics=False), "row 1"),
    "x.arrow": (as_arrow, "row 1"),
}


def with_bad_bytes(name: str) -> bytes:
    """The mark takes as many bytes as what replaces it in the file, so that lengths in its structure stay true."""
    content = WRITTEN[name][0]([text.replace("MARK", "@~") for text in GOOD])
    assert content.count(b"@~") == 2
    return content.replace(b"@~", BAD)


def opened(path: Path, **settings: object) -> SliceReader:
    corpus = open_corpus([str(path)], CorpusSettings(**settings))  # pyright: ignore[reportArgumentType]
    return SliceReader(corpus, make_plan(corpus))


@pytest.mark.parametrize("name", WRITTEN)
def test_every_form_has_them_replaced_and_counted(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(with_bad_bytes(name))
    with pytest.raises(DataError, match=r"^undecodable "):
        list(opened(path).documents())
    reader = opened(path, replace_bad_bytes=True)
    assert [document.text for document in reader.documents()] == [GOOD[0], REPLACED, GOOD[2]]
    assert reader.report.num_replaced == 1 and reader.report.num_documents == 3 and not reader.report.num_bad
    assert reader.report.first_replaced is not None
    key, offset = reader.report.first_replaced
    corpus = open_corpus([str(path)], CorpusSettings())
    place = located(corpus, key, offset)
    assert place.startswith(f"{path}, ") and WRITTEN[name][1] in place
    if "byte offset" in place:
        assert place.endswith(f"byte offset {path.read_bytes().index(BAD)}")
    path.unlink()
    gone = f"{name}, offset {offset}" if "byte offset" in place else place
    assert located(corpus, key, offset) == gone, "a file that is gone meanwhile stops nothing"


@pytest.mark.parametrize("name", FORMS)
def test_good_documents_are_not_touched(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(FORMS[name](TEXTS))
    reader = opened(path, replace_bad_bytes=True, slice_bytes=500)
    assert list(reader.documents()) == list(opened(path, slice_bytes=500).documents())
    assert reader.report.num_replaced == 0 and reader.report.first_replaced is None


@pytest.mark.parametrize("last", [b'{"text": "one \xff"}', b'{"text": "one \xff"', b"[\xff}"])
def test_a_last_line_that_is_whole_but_for_its_bytes_does_not_wait(folder: Path, last: bytes) -> None:
    """It would wait for ever; what is not whole waits as before."""
    path = folder / "x.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + last)
    is_whole = last.startswith(b"{") and last.endswith(b"}")
    if is_whole:
        with pytest.raises(DataError, match=r"^undecodable .*line 2, byte offset 31"):
            list(opened(path).documents())
    texts = [document.text for document in opened(path, replace_bad_bytes=True).documents()]
    assert "".join(texts) == ("goodone \ufffd" if is_whole else "good")


def test_bad_bytes_beside_the_text_are_counted_too(folder: Path) -> None:
    (folder / "x.jsonl").write_bytes(b'\xef\xbb\xbf {"text": "good", "name": "a\xff"}\n{"t\xffext": "x"}\n')
    reader = opened(folder / "x.jsonl", replace_bad_bytes=True, skip_bad=True)
    assert [document.metadata for document in reader.documents()] == [{"name": "a\ufffd"}]
    assert reader.report.num_replaced == 1 and reader.report.first_replaced == ("x.jsonl", 31)
    assert reader.report.dropped == {"missing text": 1}


def test_python_source_in_an_encoding_of_its_own(folder: Path) -> None:
    (folder / "x.py").write_bytes(b"# coding: ascii\nx = '\xe9'\n")
    reader = opened(folder / "x.py", replace_bad_bytes=True)
    assert "".join(document.text for document in reader.documents()) == "# coding: ascii\nx = '\ufffd'\n"
    assert reader.report.num_replaced == 1


@pytest.mark.parametrize("source", [b"#!/usr/bin/python\n# caf\xe9\nx = 1\n", b"x = '\xff'\ny = 1\n"])
def test_the_first_lines_of_python_source_are_no_exception(folder: Path, source: bytes) -> None:
    """There the encoding is looked for, which bad bytes must not stop; an encoding that there is not stays an error."""
    (folder / "x.py").write_bytes(source)
    reader = opened(folder / "x.py", replace_bad_bytes=True)
    assert "".join(document.text for document in reader.documents()) == source.decode(errors="replace")
    assert reader.report.num_replaced == 1
    bad = next(offset for offset, byte in enumerate(source) if byte > 127)
    with pytest.raises(DataError, match=rf"undecodable .*byte offset {bad}\b"):
        list(opened(folder / "x.py").documents())
    (folder / "x.py").write_bytes(b"# coding: no-such\nx = 1\n")
    with pytest.raises(DataError, match=r"undecodable .*unknown encoding"):
        list(opened(folder / "x.py", replace_bad_bytes=True).documents())


def test_the_switch_is_part_of_the_plan_and_of_the_fingerprint_only_when_it_is_on(folder: Path) -> None:
    path = folder / "a.txt"
    path.write_text("x\n")
    on = open_corpus([str(path)], CorpusSettings(replace_bad_bytes=True), folder)
    off = open_corpus([str(path)], CorpusSettings(), folder)
    assert off.fingerprint == "80e8f64fea56c618ee0cc21c2159f040f2282129006107409fc8a4615b2adf1b" != on.fingerprint
    plan = make_plan(off)
    assert "replace_bad_bytes" not in plan.settings and make_plan(on).settings["replace_bad_bytes"] is True
    with pytest.raises(IntegrityError, match=r"made with other settings \(replace_bad_bytes\)"):
        make_plan(on, plan)
