"""CSV, Parquet, Arrow, WARC and WET: the same documents as JSON Lines give, growth, edits, damage."""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.corpus.sources import arrow as arrow_source
from llm_training.corpus.sources import parquet as parquet_source
from llm_training.errors import ConfigError, DataError, IntegrityError, LlmTrainingError

from .conftest import read_all
from .forms import FORMS, TEXTS, as_arrow, as_csv, as_parquet, as_table, as_wet, response, warc_record, write_forms

SMALL = {"slice_bytes": 1000}
ROW_FORMS = {"x.parquet": as_parquet, "x.arrow": as_arrow, "x.arrows": FORMS["g.arrows"], "x.csv": as_csv, "x.wet": as_wet}


def _open(path: Path, **settings: object):
    return open_corpus([str(path)], CorpusSettings(**(SMALL | settings)))  # pyright: ignore[reportArgumentType]


def _reader(path: Path, **settings: object) -> SliceReader:
    corpus = _open(path, **settings)
    reader = SliceReader(corpus, make_plan(corpus))
    list(reader.documents())
    reader.close()
    return reader


def test_counts_of_documents_and_bytes_are_equal_over_all_formats(folder: Path, read) -> None:
    expected = (len(TEXTS), sum(len(text.encode()) for text in TEXTS))
    for path in write_forms(folder):
        documents = read(path, **SMALL)
        assert [document.text for document in documents] == TEXTS, path.name
        assert (len(documents), sum(len(document.text.encode()) for document in documents)) == expected
        positions = [document.position for document in documents]
        assert positions == list(range(positions[0], positions[0] + 60))
        if ".wet" not in path.name:
            assert [int(str(document.metadata["n"])) for document in documents] == list(range(60)), path.name


def test_slices_of_every_format_are_even_and_read_in_any_order(folder: Path) -> None:
    for path in write_forms(folder, compressions=["", ".gz"]):
        corpus = _open(path)
        plan = make_plan(corpus)
        assert len(plan.slices) > 5 and all(piece.num_bytes <= 2000 for piece in plan.slices), path.name
        forward, backward = SliceReader(corpus, plan), SliceReader(corpus, plan)
        ordered = [list(forward.read_slice(piece.number)) for piece in plan.slices]
        assert [list(backward.read_slice(piece.number)) for piece in reversed(plan.slices)] == ordered[::-1]
        forward.close()
        backward.close()


@pytest.mark.parametrize("name", ROW_FORMS)
def test_more_rows_make_new_slices_and_an_edit_is_refused(folder: Path, name: str) -> None:
    path, form = folder / name, ROW_FORMS[name]
    path.write_bytes(form(TEXTS[:40]))
    corpus = _open(path)
    plan = make_plan(corpus)
    before = [document.text for document in read_all(corpus, plan)]
    path.write_bytes(form(TEXTS))
    grown = make_plan(_open(path), plan)
    assert grown.slices[: len(plan.slices)] == plan.slices and before == TEXTS[:40]
    assert [document.text for document in read_all(corpus, grown)] == TEXTS
    path.write_bytes(form([*TEXTS[:3], "edited " + TEXTS[3], *TEXTS[4:]]))
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        make_plan(_open(path), grown)
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        read_all(corpus, grown)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.arrow.gz", "x.feather", "x.wet", "x.wet.gz", "x.csv.gz"])
def test_a_file_cut_off_anywhere_never_passes_as_whole(folder: Path, name: str) -> None:
    form = {**ROW_FORMS, "x.feather": FORMS["h.feather"]}[name.removesuffix(".gz")]
    whole = form(TEXTS)
    content = gzip.compress(whole) if name.endswith(".gz") else whole
    path = folder / name
    for cut in random.Random(name).sample(range(1, len(content) - 8), 25):
        path.write_bytes(content[:cut])
        try:
            reader = _reader(path)
        except LlmTrainingError as error:
            assert error.exit_code in (3, 4) and "\n" not in str(error) and str(path) in error.where
        else:  # an archive without compression that ends exactly between two records
            assert name == "x.wet" and reader.report.num_documents < len(TEXTS)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather", "x.wet", "x.csv"])
def test_flipped_bytes_end_in_one_line(folder: Path, name: str) -> None:
    whole = {**ROW_FORMS, "x.feather": FORMS["h.feather"]}[name](TEXTS)
    path, choose = folder / name, random.Random(name)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            _reader(path)
        except LlmTrainingError as error:
            assert error.exit_code in (3, 4) and "\n" not in str(error)


def test_bad_rows_are_counted_with_file_and_row(folder: Path) -> None:
    path = folder / "bad.csv"
    path.write_bytes(b"id,text\na,good\nb\nc,one,two\nd,caf\xe9\n\ne,\nf,fine\n")
    reader = _reader(path, skip_bad=True, max_bad_fraction=1.0)
    assert reader.report.dropped == {"wrong number of fields": 2, "undecodable": 1, "blank line": 1, "empty text": 1}
    assert reader.report.examples[0] == "wrong number of fields at bad.csv, record 1" and reader.report.num_documents == 2
    with pytest.raises(DataError, match=r"wrong number of fields \(1, the header has 2\); at .*bad.csv, line 3, byte offset 15"):
        _reader(path)
    table = pa.table({"text": pa.array([b"good", b"\xff\xfe", None], pa.binary())}).cast(pa.schema([("text", pa.binary())]))
    strings = pa.StringArray.from_buffers(3, table["text"].chunk(0).buffers()[1], table["text"].chunk(0).buffers()[2])
    pq.write_table(pa.table({"text": strings}), folder / "bad.parquet")
    reader = _reader(folder / "bad.parquet", skip_bad=True)
    assert reader.report.dropped == {"undecodable": 1, "empty text": 1}
    with pytest.raises(DataError, match=r"undecodable \(not valid utf-8\); at .*bad.parquet, row 1"):
        _reader(folder / "bad.parquet")


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.arrow"])
def test_the_text_column_is_named_or_missing(folder: Path, read, name: str) -> None:
    path = folder / name
    path.write_bytes(ROW_FORMS[name](TEXTS))
    with pytest.raises(DataError, match=r"no column 'body' \(columns: n, text"):
        read(path, text_field="body")
    if name == "x.csv":
        path.write_bytes(b"\xef\xbb\xbfbody,n\nfirst text,1\nsecond text,2\n")
        assert [document.text for document in read(path, text_field="body")] == ["first text", "second text"]


@pytest.mark.parametrize("slice_bytes", [40, 1 << 20])
def test_csv_headers_may_hold_line_breaks_and_lines_may_end_in_cr(folder: Path, read, slice_bytes: int) -> None:
    path = folder / "x.csv"
    rows = [(number, f"text {number}\r\nand more, {number}") for number in range(9)]
    for line_end in ("\n", "\r\n"):
        path.write_bytes(as_csv([text for _, text in rows], line_end=line_end).replace(b"n,text", b'"n\nof row",text', 1))
        documents = read(path, slice_bytes=slice_bytes)
        assert [(document.metadata["n\nof row"], document.text) for document in documents] == [(str(n), text) for n, text in rows]
    texts = [f"one, two {number}\rthree" for number in range(9)]
    path.write_bytes(as_csv(texts, line_end="\r"))
    assert [document.text for document in read(path, slice_bytes=slice_bytes)] == texts
    path.write_bytes(as_csv(texts, line_end="\r") + b"torn")
    assert [document.text for document in read(path, slice_bytes=slice_bytes)] == texts


def test_a_last_csv_row_still_being_written_waits(folder: Path) -> None:
    path = folder / "x.csv"
    said: list[str] = []
    path.write_bytes(b'n,text\n1,"one\ntwo"\n2,"thr')
    plan = make_plan(_open(path), notify=said.append)
    assert plan.slices[0].num_records == 1 and said == ["the last line of x.csv is not whole: left out until it is (line 4)"]
    path.write_bytes(b'n,text\n1,"one\ntwo"\n2,"three"\n3,four')
    corpus = _open(path)
    grown = make_plan(corpus, plan)
    assert "".join(document.text for document in read_all(corpus, grown)) == "one\ntwothreefour"
    path.write_bytes(b'n,text\n1,"one\n' + b"x" * (2 << 20))
    with pytest.raises(DataError, match=r"quote never closed \(all that follows, 2,097,.* line 2, byte offset 9"):
        _reader(path)


@pytest.mark.parametrize("slice_bytes", [40, 1 << 20])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_never_closed_is_a_bad_record(folder: Path, slice_bytes: int, line_end: str) -> None:
    """With a megabyte behind it, it is no row that is still being written; rows before it and appended ones stay."""
    path = folder / "bad.csv"
    good = ["id,text", *(f'{number},"a ""good"" text{line_end}of two lines"' for number in range(5))]
    bad = ['5,"closed" and more', '6,"opened, and', *(f"{number},swallowed" for number in range(7, 80_000))]
    path.write_bytes("".join(f"{row}{line_end}" for row in [*good, *bad]).encode())
    offset = path.read_bytes().index(b'"opened')
    line = 1 if line_end == "\r" else 13
    place = f"{path}, line {line}, byte offset {offset}"
    with pytest.raises(DataError, match=r"^quote never closed \(all that follows, .*bad.csv, line") as told:
        _reader(path, slice_bytes=slice_bytes)
    assert place in str(told.value) and told.value.exit_code == 3
    reader = _reader(path, slice_bytes=slice_bytes, skip_bad=True)
    assert reader.report.dropped == {"quote never closed": 1} and reader.report.num_documents == 6
    assert reader.report.examples == [f"quote never closed at bad.csv, line {line}, byte offset {offset}"]
    corpus = _open(path, slice_bytes=slice_bytes, skip_bad=True)
    plan = make_plan(corpus)
    with path.open("ab") as file:
        file.write(f"30,appended{line_end}".encode())
    assert [document.text for document in read_all(corpus, make_plan(corpus, plan))][-2:] == ["closed and more", "appended"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_rows_behind_an_open_quote_are_all_told(folder: Path, line_end: str) -> None:
    rows = ["id,text", *(f"{number},good text" for number in range(30)), '30,"opened', *(f"{n},swallowed" for n in range(31, 58))]
    (folder / "quote.csv").write_bytes("".join(f"{row}{line_end}" for row in rows).encode())
    (folder / "quote.csv.gz").write_bytes(gzip.compress((folder / "quote.csv").read_bytes()[: -len(line_end)]))
    for name in ("quote.csv", "quote.csv.gz"):
        said: list[str] = []
        assert make_plan(_open(folder / name), notify=said.append).slices[0].num_records == 30
        assert len(said) == 1 and f"of {name} is not whole: left out until it is, from line 32 to the end (28 lines)" in said[0]


def test_a_csv_without_one_column_of_the_text_is_refused(folder: Path) -> None:
    (folder / "x.csv").write_text("text,id,text\nfirst,1,second\n")
    with pytest.raises(DataError, match=r"2 columns are called 'text'; at .*x\.csv"):
        _reader(folder / "x.csv")
    for content, message in (("", "the file is empty"), ("\ntext\nx\n", "names the columns, is blank")):
        (folder / "x.csv").write_text(content)
        with pytest.raises(DataError, match=rf"{message}; at .*x\.csv"):
            _reader(folder / "x.csv")


@given(st.text(st.sampled_from('"",;a\n'), max_size=30), st.sampled_from([",", ";"]))
def test_an_open_quote_is_one_for_the_parser_too(tmp_path_factory: pytest.TempPathFactory, text: str, delimiter: str) -> None:
    """What follows the last row is a row of its own unless a quote is open."""
    path = tmp_path_factory.mktemp("open") / "x.csv"
    rows = f"id{delimiter}text\n1{delimiter}good\n{text}\n" + ("z" * 9_999 + "\n") * 110
    path.write_text(rows, newline="")
    longer = list(csv.reader(io.StringIO(f"{rows}next\n", newline=""), delimiter=delimiter))
    dropped = _reader(path, skip_bad=True, max_bad_fraction=1.0).report.dropped
    assert dropped["quote never closed"] == (longer[-1] != ["next"])


def test_a_growing_csv_of_texts_with_line_ends_loses_nothing(folder: Path) -> None:
    """A row that is written in parts may end with a line break inside of its quote."""
    path = folder / "code.csv"
    content = b"id,text\n" + b"".join(b'%d,"def f%d():\n    return 1\n"\n' % (number, number) for number in range(40))
    path.write_bytes(content[: content.index(b"return 1\n", 300) + 9])
    plan = make_plan(_open(path, slice_bytes=100))
    path.write_bytes(content)
    corpus = _open(path, slice_bytes=100)
    documents = read_all(corpus, make_plan(corpus, plan))
    assert sorted(int(document.id) for document in documents) == list(range(40))
    assert {document.text for document in documents} == {f"def f{number}():\n    return 1\n" for number in range(40)}


def test_a_quote_that_swallows_more_than_a_document_may_hold_is_named_by_line(folder: Path) -> None:
    (folder / "bad.csv").write_bytes(b'id,text\n1,good\n2,"opened\n' + b"3,swallowed\n" * 200_000)
    with pytest.raises(DataError, match=r"CSV record is longer than 1,000 bytes; at .*bad.csv, line 3, byte offset 15; look for a quote"):
        _reader(folder / "bad.csv", max_document_bytes=1_000)


@pytest.mark.parametrize("slice_bytes", [40, 1 << 20])
def test_a_csv_header_may_begin_with_a_mark_and_a_quote(folder: Path, read, slice_bytes: int) -> None:
    path = folder / "x.csv"
    for first in ("text", "text, and\nmore"):
        path.write_bytes(b"\xef\xbb\xbf" + f'"{first}","id"\n'.encode() + b"".join(b'"one, %d","i%d"\n' % (n, n) for n in range(9)))
        documents = read(path, text_field=first, slice_bytes=slice_bytes)
        assert [(document.id, document.text) for document in documents] == [(f"i{n}", f"one, {n}") for n in range(9)]
    path.write_bytes(b'\xef\xbb\xbf"text","id"\n"good","1"\nb\xff,2\n')
    with pytest.raises(DataError, match=r"undecodable .*line 3, byte offset 27"):
        _reader(path, slice_bytes=slice_bytes)


def test_long_records_are_refused_one_by_one(folder: Path) -> None:
    long_texts = ["short one", "x" * 30_000, "short two"]
    limits = {"max_document_bytes": 10_000, "slice_bytes": 1_000}
    for name, form in ROW_FORMS.items():
        path = folder / name
        path.write_bytes(form(long_texts))
        reader = _reader(path, skip_bad=True, **limits)
        assert reader.report.dropped["longer than data.max_document_bytes"] == 1 and reader.report.num_documents == 2, name
        with pytest.raises(DataError, match=r"longer than data.max_document_bytes \(30,\d\d\d bytes, the limit is 10,000\)"):
            _reader(path, **limits)


def test_columns_of_all_string_types(folder: Path, read) -> None:
    texts = ["one é", "two", "three"]
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"text": pa.array(texts).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(texts).dictionary_encode()})
        with pa.ipc.new_file(folder / "x.arrow", table.schema) as writer:
            writer.write_table(table)
        assert [document.text for document in read(folder / "x.arrow")] == texts, kind


def test_claims_of_memory_are_refused_before_any_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_source, "_MIN_BATCH_LIMIT_BYTES", 1 << 20)
    bomb = pa.table({"text": ["x" * 3_000_000] + ["y"] * 9})
    limits = {"max_document_bytes": 100_000}
    for compression in ("zstd", "lz4", None):
        out = io.BytesIO()
        with pa.ipc.new_file(out, bomb.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
            writer.write_table(bomb)
        (folder / "x.arrow").write_bytes(out.getvalue())
        with pytest.raises(DataError, match=r"a record batch of 3,000,\d\d\d bytes is larger than the 1,048,576 held in memory"):
            _reader(folder / "x.arrow", skip_bad=True, **limits)
    monkeypatch.setattr(parquet_source, "_HARMLESS_BYTES", 1 << 20)
    pq.write_table(bomb, folder / "x.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"a row group of 10 rows claims 3,000,\d\d\d bytes of text"):
        _reader(folder / "x.parquet", skip_bad=True, **limits)


def test_compressed_under_a_plain_name_and_the_other_way(folder: Path) -> None:
    (folder / "x.csv").write_bytes(gzip.compress(as_csv(TEXTS)))
    with pytest.raises(DataError, match="content is gz-compressed although the name says plain"):
        _reader(folder / "x.csv")
    (folder / "x.parquet.gz").write_bytes(gzip.compress(as_parquet(TEXTS)))
    with pytest.raises(DataError, match="a compressed Parquet file cannot be read in parts"):
        _reader(folder / "x.parquet.gz")
    for name in ("y.parquet", "y.arrow", "y.warc"):
        (folder / name).write_bytes(b"plain text, no more\n" * 9)
        with pytest.raises(DataError, match=r"damaged|not a WARC record"):
            _reader(folder / name)


PAGE = "<html><head><title>T</title><style>p {}</style></head><body><nav><a href='/'>Menu</a></nav><main><h1>Head</h1><p>First \
paragraph é.</p><p>Second one.</p><script>var x</script></main></body></html>"


def _archive() -> bytes:
    compressed = gzip.compress(PAGE.encode())
    records = [
        warc_record("warcinfo", b"x: y\r\n", 0),
        warc_record("request", b"GET / HTTP/1.1\r\n\r\n", 1, WARC_Target_URI="https://a.org/"),
        warc_record("response", response(PAGE.encode()), 2, WARC_Target_URI="https://a.org/"),
        warc_record("response", response(b"gone", "404 Not Found"), 3),
        warc_record("response", response(b"\x89PNG", content_type="image/png"), 4),
        warc_record("response", response(compressed, extra="Content-Encoding: gzip\r\n"), 5, WARC_Target_URI="https://a.org/z"),
        warc_record("response", response(PAGE.encode("latin-1"), content_type="text/html; charset=latin-1"), 6),
        warc_record("resource", PAGE.encode(), 7, Content_Type="text/html"),
        warc_record("response", response("plain é".encode(), content_type="text/plain; charset=utf-8"), 8),
    ]
    return b"".join(records)


@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz"])
def test_pages_of_archives_become_readable_text(folder: Path, read, name: str) -> None:
    content = _archive()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    documents = read(folder / name)
    assert [document.position for document in documents] == [2, 5, 6, 7, 8]
    assert all(document.text.split("\n") == ["Head", "", "First paragraph é.", "", "Second one."] for document in documents[:4]), documents
    assert documents[0].id == "urn:uuid:00000002" and documents[4].text == "plain é"
    assert documents[0].metadata == {"content_type": "text/plain", "url": "https://a.org/", "date": "2026-01-01T00:00:00Z"}
    assert _reader(folder / name).report.dropped == {"not a page": 4}
    kept = read(folder / name, keep_html=True)
    assert [document.text for document in kept[:4]] == [PAGE] * 4
    assert [document.metadata["content_type"] for document in kept] == ["text/html"] * 4 + ["text/plain"]


def test_pages_kept_as_html_are_another_plan(folder: Path) -> None:
    (folder / "x.warc").write_bytes(_archive())
    plan = make_plan(_open(folder / "x.warc"))
    with pytest.raises(IntegrityError, match=r"made with other settings .keep_html."):
        make_plan(_open(folder / "x.warc", keep_html=True), plan)


def test_bad_records_of_archives(folder: Path) -> None:
    good = warc_record("conversion", b"good text", 1)
    bomb = gzip.compress(b" " * 50_000_000)
    (folder / "x.warc").write_bytes(
        good
        + warc_record("conversion", b"caf\xe9", 2)
        + warc_record("response", response(bomb, extra="Content-Encoding: gzip\r\n"), 3)
        + good
    )
    reader = _reader(folder / "x.warc", skip_bad=True, max_document_bytes=200_000, slice_bytes=1_000_000)
    assert reader.report.num_documents == 2
    assert reader.report.dropped == {"undecodable": 1, "longer than data.max_document_bytes": 1}
    (folder / "y.warc").write_bytes(good + b"rubbish between\r\n" + good)
    with pytest.raises(DataError, match=rf"not a WARC record .*byte offset {len(good)}"):
        _reader(folder / "y.warc")


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "x.warc").write_bytes(_archive())
    monkeypatch.setitem(sys.modules, "fastwarc.warc", None)
    with pytest.raises(ConfigError, match=r"needs fastwarc; pip install 'llm-training\[data\]'"):
        _reader(folder / "x.warc")


def test_formats_mix_in_a_folder(folder: Path, read) -> None:
    write_forms(folder, TEXTS[:5], [""])
    (folder / "link").symlink_to(folder)
    documents = read(folder)
    assert len(documents) == 5 * 10 and as_table(TEXTS[:5]).num_rows == 5
    assert [document.source for document in documents[::5]] == sorted({document.source for document in documents})


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "x.warc", "x.arrow"])
@pytest.mark.parametrize(
    "start", [b"", b'n,text\n1,"', b'{"text": "', b"WARC/1.0\r\nContent-Length: 999999999\r\n\r\n", b"ARROW1\x00\x00\xff\xff\xff\xff"]
)
def test_a_small_file_that_unpacks_to_much_is_refused_in_bounded_memory(folder: Path, name: str, start: bytes) -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    with (folder / f"{name}.zst").open("wb") as file:
        file.write(packer.compress(start))
        for _ in range(30):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    assert (folder / f"{name}.zst").stat().st_size < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            _reader(folder / f"{name}.zst", max_document_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_pipes_and_links_are_not_waited_for(folder: Path) -> None:
    for name in ("x.parquet", "x.arrow", "x.csv", "x.warc"):
        os.mkfifo(folder / name)
        with pytest.raises(DataError, match="not a regular file"):
            open_corpus([str(folder / name)], CorpusSettings(skip_bad=True))
        (folder / name).unlink()
        (folder / name).symlink_to(folder / name)
        with pytest.raises(DataError, match="cannot read the source"):
            open_corpus([str(folder / name)], CorpusSettings())


@pytest.mark.parametrize("max_document_bytes", [10_000, 500], ids=["read", "passed-over"])
def test_what_an_archiver_says_of_itself_is_no_page(folder: Path, max_document_bytes: int) -> None:
    """Wget adds its list of records, its arguments and its log to every archive."""
    names = ("MANIFEST.txt", "wget_arguments.txt", "wget.log")
    uris = [f"<metadata://gnu.org/software/wget/warc/{name}>" for name in names]
    own = [
        warc_record("resource", b"log " * 500, number, Content_Type="text/plain", WARC_Target_URI=uri) for number, uri in enumerate(uris)
    ]
    uri = "https://a.org/metadata://x"
    pages = [warc_record("resource", b"a page of text %d" % n, n, Content_Type="text/plain", WARC_Target_URI=uri) for n in range(4)]
    (folder / "x.warc").write_bytes(b"".join([*own, *pages]))
    reader = _reader(folder / "x.warc", max_document_bytes=max_document_bytes, slice_bytes=600)
    assert reader.report.dropped == {"not a page": 3} and reader.report.num_documents == 4 and reader.report.num_bad == 0


@pytest.mark.parametrize("slice_bytes", [100_000, 1_000], ids=["read", "not-read"])
def test_large_things_of_the_web_that_are_no_page_are_not_bad(folder: Path, slice_bytes: int) -> None:
    """A picture is passed over whatever its size, and a page that is too long is bad."""
    page = f"<html><body><p>{'many words of a page. ' * 300}</p></body></html>".encode()
    records = [
        warc_record("response", response(b"\x89PNG" * 2_000, content_type="image/png"), 1),
        warc_record("resource", b"\x00" * 9_000, 2, Content_Type="video/mp4"),
        warc_record("response", response(b"gone " * 2_000, "404 Not Found"), 3),
        warc_record("response", response(page, content_type="text/html"), 4, WARC_Target_URI="https://a.org/"),
        warc_record("response", response(b"short text", content_type="text/plain"), 5, WARC_Target_URI="https://a.org/s"),
    ]
    (folder / "x.warc").write_bytes(b"".join(records))
    limits = {"max_document_bytes": 1_500, "slice_bytes": slice_bytes}
    report = _reader(folder / "x.warc", skip_bad=True, max_bad_fraction=1.0, **limits).report
    assert report.dropped == {"not a page": 3, "longer than data.max_document_bytes": 1} and report.num_bad == 1
