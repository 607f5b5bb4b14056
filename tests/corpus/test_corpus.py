"""Sources: what is found, in which order, under which names, and what is refused."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import os
import signal
from pathlib import Path

import pytest
import zstandard

from llm_training.corpus import CorpusSettings, make_plan, open_corpus
from llm_training.corpus.near_duplicates import find_near_duplicates
from llm_training.corpus.sources.stdlib import find_stdlib_files, split_of_path
from llm_training.errors import ConfigError, DataError, StorageError

from .conftest import read_all

LENIENT = CorpusSettings(skip_bad=True)
STRICT = CorpusSettings()


@pytest.fixture(autouse=True)
def watchdog():
    """A source that hangs fails its test."""

    def expire(_number, _frame):
        raise TimeoutError("the source hangs")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def _lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def test_a_folder_is_read_in_the_order_of_its_names(folder: Path, read) -> None:
    (folder / "b").mkdir()
    for name in ("b/2.txt", "b.md", "a.txt", "c.py", "d.jsonl", ".hidden.txt", "e.bin"):
        (folder / name).write_bytes(_lines("row") if name.endswith("jsonl") else name.encode())
    documents = read(folder)
    assert [document.source for document in documents] == ["texts/a.txt", "texts/b/2.txt", "texts/b.md", "texts/c.py", "texts/d.jsonl"]
    assert [document.text for document in documents] == ["a.txt", "b/2.txt", "b.md", "c.py", "row"]
    corpus = open_corpus([str(folder)], STRICT)
    assert corpus.name == "texts" and corpus.sources[0].skipped == {"of unknown kind .bin": 1}


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_every_kind_and_compression_gives_the_same_documents(folder: Path, read, suffix: str, compress) -> None:
    texts = [f"document {number} é\n" + "word " * number for number in range(40)]
    forms = {
        "a.jsonl": _lines(*texts),
        "b.json": json.dumps([{"text": text} for text in texts], indent=1).encode(),
        "c.json": _lines(*texts),
    }
    for name, content in forms.items():
        (folder / (name + suffix)).write_bytes(compress(content))
        found = read(folder / (name + suffix), slice_bytes=500)
        assert [document.text for document in found] == texts, name
        assert [document.position for document in found] == list(range(40))


def test_members_of_a_gzip_file_follow_each_other(folder: Path, read) -> None:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(_lines("one", "two")) + gzip.compress(_lines("three")))
    assert [document.text for document in read(path)] == ["one", "two", "three"]


def test_globs_and_several_sources(folder: Path, read) -> None:
    for name in ("a1.txt", "a2.txt", "b1.txt"):
        (folder / name).write_text(f"text of {name}\nand more\n")
    assert {document.source for document in read(folder / "a*.txt")} == {"a1.txt", "a2.txt"}
    corpus = open_corpus([str(folder / "a1.txt"), str(folder / "b1.txt"), str(folder / "a1.txt")], STRICT)
    assert corpus.name == "a1-b1" and len(corpus.sources) == 2


def test_equal_names_of_two_sources_stay_apart(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent / "data").mkdir(parents=True)
        (tmp_path / parent / "data" / "x.txt").write_text(f"text of {parent}")
    corpus = open_corpus([str(tmp_path / "one" / "data"), str(tmp_path / "two" / "data")], STRICT)
    assert [file.key for file in corpus.files] == ["data/x.txt", "data/x.txt#2"]


def test_a_glob_keeps_its_name_and_keys_when_files_match_that_come_first(folder: Path) -> None:
    settings = CorpusSettings(slice_bytes=1000)
    for pattern, name in (("*.jsonl", "texts.jsonl"), ("*/part*.jsonl", "texts-part.jsonl"), ("**/p?rt.jsonl", "texts-p-rt.jsonl")):
        uri = str(folder / pattern)
        parents = [folder / letter if "/" in pattern else folder for letter in "cba"]
        names = ["part.jsonl"] * 3 if "/" in pattern else ["c.jsonl", "b.jsonl", "a.jsonl"]
        plan, seen = None, set[str]()
        for number, (parent, file) in enumerate(zip(parents, names, strict=True)):
            parent.mkdir(exist_ok=True)
            (parent / file).write_bytes(_lines(*(f"text {number} {line}" for line in range(5))))
            corpus = open_corpus([uri], settings)
            assert corpus.name == name and seen < {each.key for each in corpus.files}, pattern
            seen = {each.key for each in corpus.files}
            plan = make_plan(corpus, plan)
            assert len(read_all(corpus, plan)) == 5 * number + 5
        for parent, file in zip(parents, names, strict=True):
            (parent / file).unlink()


def test_of_a_glob_only_the_names_of_files_spell_splits(folder: Path, read) -> None:
    for name in ("x/test/a.txt", "y/test/b.txt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("some words\n")
    documents = read(folder / "*" / "test" / "*.txt", validation_fraction=0.0)
    assert [(document.id, document.split) for document in documents] == [("x/test/a.txt", "train"), ("y/test/b.txt", "train")]


@pytest.mark.parametrize("suffix", ["", "/*.txt"])
def test_a_file_added_to_one_of_two_equal_folders_leaves_the_other(tmp_path: Path, suffix: str) -> None:
    folders = [tmp_path / parent / "data" for parent in ("one", "two")]
    for folder, name in zip(folders, "xy", strict=True):
        folder.mkdir(parents=True)
        (folder / f"{name}.txt").write_text(f"text of {folder.parent.name}\n" * 9)
    uris = [f"{folder}{suffix}" for folder in folders]
    corpus = open_corpus(uris, STRICT)
    plan = make_plan(corpus)
    before = read_all(corpus, plan)
    (folders[0] / "y.txt").write_text("an added text\n" * 9)
    (folders[1] / "a.txt").write_text("another added text\n" * 9)
    grown = open_corpus(uris, STRICT)
    documents = read_all(grown, make_plan(grown, plan))
    assert documents[: len(before)] == before and len({document.id for document in documents}) == len(documents)
    head = "" if suffix else "data/"
    assert [file.key for file in grown.files] == [f"{head}{name}" for name in ("x.txt", "y.txt", "a.txt#2", "y.txt#2")]


def test_json_fields(folder: Path, read) -> None:
    rows = [{"id": "x7", "body": "long text", "url": "u", "big": "y" * 500, "nested": {}}, {"id": 5, "body": "other"}, {"body": "third"}]
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second, third = read(folder / "r.jsonl", text_field="body")
    assert (first.id, first.text, dict(first.metadata)) == ("x7", "long text", {"url": "u", "big": "y" * 500, "nested": {}})
    assert (second.id, third.id) == ("5", "r.jsonl:2")


def test_token_ids_are_a_declared_kind(folder: Path, read) -> None:
    (folder / "t.txt").write_text("1 2 3\n4\n" * 50)
    documents = read(f"token-ids:{folder / 't.txt'}", slice_bytes=64)
    ids = [token for document in documents for token in document.token_ids or ()]
    assert ids == [1, 2, 3, 4] * 50 and all(document.text == "" for document in documents)
    assert {document.split for document in documents} == {"train", "validation"}
    (folder / "bad.txt").write_text("1 2 x")
    with pytest.raises(DataError, match=r"not token ids .*met b'x'"):
        read(f"token-ids:{folder / 'bad.txt'}")


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("/no/such/place", DataError, "no such file, folder or glob"),
        ("/no/such/*.jsonl", DataError, r"no file matches the glob; at /no/such/\*\.jsonl"),
        ("a/#wieght=2", DataError, "#wieght=2 is no suffix that is known: these are #weight=NUMBER and #max_epochs=NUMBER"),
        ("a/#weight=2", DataError, "leave #weight=2 out: weights are for llm-train and llm-build-cache"),
        ("ftp://host/x", ConfigError, "unknown kind"),
        ("hf:", ConfigError, "names no data set"),
        ("/dev/zero", DataError, "not a regular file"),
    ],
)
def test_sources_that_are_not_there(uri: str, error: type[Exception], message: str) -> None:
    for settings in (STRICT, LENIENT):
        with pytest.raises(error, match=message):
            open_corpus([uri], settings)
    with pytest.raises(ConfigError, match="no source of text"):
        open_corpus([], STRICT)


def test_pipes_loops_and_dangling_links_neither_hang_nor_pass(folder: Path, read) -> None:
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(DataError, match="not a regular file"):
        open_corpus([str(folder / "pipe.txt")], LENIENT)
    (folder / "loop").symlink_to(folder)
    (folder / "gone.txt").symlink_to(folder / "absent.txt")
    (folder / "good.txt").write_text("good text\n" * 3)
    with pytest.raises(DataError):
        open_corpus([str(folder)], STRICT)
    corpus = open_corpus([str(folder)], LENIENT)
    assert [file.key for file in corpus.files] == ["texts/good.txt"]
    assert sum(corpus.sources[0].skipped.values()) == 2


def test_a_file_without_permission_is_a_storage_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.txt").write_text("text")

    def refuse(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("llm_training.corpus.streams.os.open", refuse)  # a test may run as root, whom nothing refuses
    with pytest.raises(StorageError, match="permission"):
        make_plan(open_corpus([str(folder / "a.txt")], STRICT))


def test_a_file_deleted_after_planning_is_a_storage_error(folder: Path) -> None:
    (folder / "a.txt").write_text("text\n" * 10)
    corpus = open_corpus([str(folder)], STRICT)
    plan = make_plan(corpus)
    (folder / "a.txt").unlink()
    with pytest.raises(StorageError, match="cannot read a source file"):
        read_all(corpus, plan)


@pytest.mark.parametrize("files", [{}, {"a.txt": b""}, {"a.txt": b" \n\t\n"}, {"a.jsonl": b"\n\n"}, {"a.json": b"[]"}, {"a.bin": b"x"}])
def test_no_documents_is_an_error_at_once(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for settings in (STRICT, LENIENT):
        with pytest.raises(DataError, match="no documents"):
            make_plan(open_corpus([str(folder)], settings))


def test_compressed_under_a_plain_name_and_damaged_archives(folder: Path) -> None:
    (folder / "a.txt").write_bytes(gzip.compress(b"text"))
    with pytest.raises(DataError, match="content is gz-compressed although the name says plain"):
        make_plan(open_corpus([str(folder / "a.txt")], LENIENT))
    whole = gzip.compress(os.urandom(50_000))
    for name, content in (
        ("cut.txt.gz", whole[:20_000]),
        ("flip.txt.gz", whole[:30_000] + b"xxxx" + whole[30_004:]),
        ("not.txt.gz", b"plain"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match="compressed file is damaged"):
            make_plan(open_corpus([str(folder / name)], LENIENT))


def test_one_damaged_file_in_a_folder_is_skipped_and_counted(folder: Path) -> None:
    (folder / "a.txt").write_text("good\n" * 5)
    (folder / "b.txt.gz").write_bytes(b"\x1f\x8bnonsense")
    said: list[str] = []
    plan = make_plan(open_corpus([str(folder)], LENIENT), notify=said.append)
    assert sum(plan.skipped.values()) == 1 and "b.txt.gz" in said[0]
    with pytest.raises(DataError, match="damaged"):
        make_plan(open_corpus([str(folder)], STRICT))


def test_python_source_is_decoded_by_its_own_encoding(folder: Path, read) -> None:
    (folder / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    (folder / "marked.py").write_bytes(b"\xef\xbb\xbfx = '\xc3\xa9'\n")
    (folder / "unknown.py").write_bytes(b"# coding: klingon\nx = 1\n")
    documents = read(folder, skip_bad=True)
    assert [document.text for document in documents] == ["# -*- coding: latin-1 -*-\nname = 'é'\n", "x = 'é'\n"]
    with pytest.raises(DataError, match=r"undecodable .*klingon"):
        read(folder)


def test_large_python_source_keeps_its_encoding_in_every_part(folder: Path, read) -> None:
    text = "# coding: latin-1\n" + "name = 'é'\n" * 400
    (folder / "big.py").write_bytes(text.encode("latin-1"))
    (folder / "other.py").write_bytes(b"x = 1\n")
    parts = [document for document in read(folder, slice_bytes=500) if document.source.endswith("big.py")]
    assert len(parts) > 5 and "".join(part.text for part in parts) == text
    assert [part.is_continued for part in parts] == [True] * (len(parts) - 1) + [False]


def test_the_standard_library(read) -> None:
    files = find_stdlib_files()
    names = [file.key.removeprefix("stdlib/") for file in files]
    assert len(names) > 400 and names == sorted(names)
    assert not any({"test", "tests", "idle_test", "site-packages"} & set(name.split("/")) for name in names)
    expected = int(hashlib.sha256(b"argparse.py").hexdigest(), 16) % 20 == 0
    assert (split_of_path("argparse.py") == "validation") == expected
    corpus = open_corpus(["stdlib:"], LENIENT)
    plan = make_plan(corpus)
    documents = read_all(corpus, plan)
    by_split = {split: {document.source for document in documents if document.split == split} for split in ("train", "validation")}
    assert 10 < len(by_split["validation"]) < len(by_split["train"]) / 10 and not by_split["validation"] & by_split["train"]
    texts = {document.source: document.text for document in documents}
    held_out = {name: texts[name] for name in by_split["validation"]}
    assert find_near_duplicates((texts[name] for name in by_split["train"]), held_out) == []
    assert corpus.name == "stdlib" and make_plan(open_corpus(["stdlib:"], LENIENT)) == plan


def test_near_duplicates_are_found_and_cousins_are_not() -> None:
    original = [f"line number {number} of the program" for number in range(100)]
    changed = [line if number % 10 else "something else" for number, line in enumerate(original)]
    cousin = [line if number % 3 else f"other {number}" for number, line in enumerate(original)]
    held_out = {"copy": "\n".join(original), "changed": "  \n".join(changed), "cousin": "\n".join(cousin), "short": "return None"}
    assert find_near_duplicates(["\n\n".join(original)], held_out) == ["copy", "changed"]


def test_runs_and_caches_below_a_folder_are_no_sources(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words\n")
    for folder, mark in (("runs/a", "run.json"), ("cache", "CACHEDIR.TAG")):
        (tmp_path / folder / "inside").mkdir(parents=True)
        (tmp_path / folder / mark).write_text("{}")
        (tmp_path / folder / "inside" / "sample.txt").write_text("not these\n")
    assert [file.key for file in open_corpus([str(tmp_path)], CorpusSettings()).files] == [f"{tmp_path.name}/text.txt"]
    # Named directly, they are what the user wants.
    assert [file.key for file in open_corpus([str(tmp_path / "cache")], CorpusSettings()).files] == ["cache/inside/sample.txt"]
