"""Remote sources against servers on loopback: HTTP with and without ranges, and S3."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.corpus import remote as remote_module
from llm_training.corpus.remote import RemoteFile
from llm_training.errors import ConfigError, DataError, IntegrityError, StorageError

from .conftest import read_all
from .forms import TEXTS, as_lines, as_parquet, write_forms
from .servers import PlainHandler, RangeHandler, Server, object_store

HANDLERS = {"ranges": RangeHandler, "whole files": PlainHandler}
SMALL = {"slice_bytes": 1000}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "_RETRY_SECONDS", (0.01, 0.01, 0.01))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "BLOCK_BYTES", 1 << 12)


@pytest.fixture(params=HANDLERS)
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(folder, HANDLERS[request.param]) as running:
        yield running


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "c.csv", "c.csv.zst", "f.arrow", "i.wet.gz", "b.json"])
def test_every_format_over_http(server: Server, folder: Path, read, small_blocks: None, name: str) -> None:
    write_forms(folder)
    uri = f"{server.url}/{name}?signature=secret"
    documents = read(uri, **SMALL)
    assert [document.text for document in documents] == TEXTS and {document.source for document in documents} == {name}
    corpus = open_corpus([uri], CorpusSettings(**SMALL))
    plan = make_plan(corpus)
    reader = SliceReader(corpus, plan)
    backward = [[document.text for document in reader.read_slice(piece.number)] for piece in reversed(plan.slices)]
    reader.close()
    assert [text for texts in backward[::-1] for text in texts] == TEXTS and len(backward) > 5


def test_parquet_needs_ranges(folder: Path, read, small_blocks: None) -> None:
    (folder / "x.parquet").write_bytes(as_parquet(TEXTS))
    with Server(folder, RangeHandler) as server:
        assert [document.text for document in read(f"{server.url}/x.parquet")] == TEXTS
    with Server(folder, PlainHandler) as server, pytest.raises(DataError, match="the server answers no range requests"):
        read(f"{server.url}/x.parquet")


def test_folders_and_globs_where_the_server_lists(server: Server, folder: Path, read) -> None:
    (folder / "train").mkdir()
    (folder / "train" / "b.jsonl").write_bytes(as_lines(TEXTS[:9]))
    (folder / "train" / "a.txt").write_text("a text\n" * 9)
    (folder / "valid.txt").write_text("held out\n" * 9)
    (folder / "notes.bin").write_text("x")
    documents = read(f"{server.url}/")
    by_name = {document.source.partition("/")[2]: document.split for document in documents}
    assert by_name == {"train/a.txt": "train", "train/b.jsonl": "train", "valid.txt": "validation"}
    assert {document.source for document in read(f"{server.url}/train/*.jsonl")} == {"b.jsonl"}
    corpus = open_corpus([f"{server.url}/train/*.jsonl"], CorpusSettings())
    assert corpus.name == "train.jsonl"


def test_growth_and_edits_are_seen(server: Server, folder: Path) -> None:
    path = folder / "a.jsonl"

    def opened():
        return open_corpus([f"{server.url}/a.jsonl"], CorpusSettings(**SMALL))

    path.write_bytes(as_lines(TEXTS[:30]))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    plan = make_plan(opened())
    num_requests = len(server.requests)
    assert make_plan(opened(), plan) == plan and len(server.requests) - num_requests <= 3  # nothing is read again
    path.write_bytes(as_lines(TEXTS))
    corpus = opened()
    grown = make_plan(corpus, plan)
    assert grown.slices[: len(plan.slices)] == plan.slices
    assert [document.text for document in read_all(corpus, grown)] == TEXTS
    path.write_bytes(as_lines(["edited", *TEXTS[1:]]))
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        make_plan(opened(), grown)


def test_passing_failures_are_tried_again(server: Server, folder: Path, read, small_blocks: None) -> None:
    content = as_lines(TEXTS)
    (folder / "a.jsonl").write_bytes(content)
    server.failures["/a.jsonl"] = 2
    server.cut_after["/a.jsonl"] = [6_000, 0, 9_000]
    assert [document.text for document in read(f"{server.url}/a.jsonl")] == TEXTS
    assert not server.cut_after["/a.jsonl"]


def test_lasting_failures_are_one_line_without_secrets(server: Server, folder: Path, read) -> None:
    (folder / "a.jsonl").write_bytes(as_lines(TEXTS))
    server.failures["/a.jsonl"] = -1
    with pytest.raises(StorageError, match=r"cannot read from the store \(status 503\)") as refused:
        read(f"{server.url}/a.jsonl?X-Amz-Signature=secret&token=secret")
    with pytest.raises(DataError, match="no such remote file or folder") as missing:
        read(f"{server.url}/absent.jsonl?token=secret")
    for error in (refused.value, missing.value):
        assert "secret" not in str(error) and "\n" not in str(error) and "token" not in str(error)
    assert (refused.value.exit_code, missing.value.exit_code) == (5, 3)
    with pytest.raises(ConfigError, match="a password in a URI") as told:
        read("https://user:hunter2@example.org/a.jsonl")
    assert "hunter2" not in str(told.value)


def test_nobody_there(read) -> None:
    with pytest.raises(StorageError, match=r"cannot read from the store \(ClientConnector"):
        read("http://127.0.0.1:9/a.jsonl")


def test_a_signature_does_not_name_the_corpus() -> None:
    from llm_training.corpus.corpus import _identity

    first = _identity("https://h.org/a.jsonl?part=3&X-Amz-Signature=one&X-Amz-Date=2")
    assert first == _identity("https://h.org/a.jsonl?part=3&X-Amz-Signature=two") == "https://h.org/a.jsonl?part=3"


@pytest.mark.parametrize("num_bytes", [0, 1, 4095, 4096, 4097, 30_000])
def test_bytes_at_any_place(server: Server, folder: Path, small_blocks: None, num_bytes: int) -> None:
    content = os.urandom(num_bytes)
    (folder / "x.bin").write_bytes(content)
    place = RemoteFile(f"{server.url}/x.bin")
    assert place.size() == num_bytes and place.stamp() == place.stamp()
    with place.open() as file:
        assert file.read() == content
        for start, size in ((0, 10), (5_000, 9_000), (100, 5), (29_990, 50), (60_000, 5)):
            assert file.seek(start) == start and file.read(size) == content[start : start + size]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with object_store() as url:
        yield url


@pytest.fixture
def bucket(store: str, monkeypatch: pytest.MonkeyPatch, folder: Path):
    """Puts files into a bucket of the store, which the usual variables name."""
    import s3fs

    settings = {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem()
    if filesystem.exists("books"):
        filesystem.rm("books", recursive=True)
    filesystem.mkdir("books")
    yield lambda name, content: filesystem.pipe_file(f"books/{name}", content)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_object_stores(bucket, folder: Path, read, small_blocks: None) -> None:
    for path in write_forms(folder, TEXTS[:20], compressions=["", ".gz"]):
        bucket(f"data/{path.name}", path.read_bytes())
        assert [document.text for document in read(f"s3://books/data/{path.name}", **SMALL)] == TEXTS[:20], path.name
    bucket("data/x.bin", b"unknown")
    documents = read("s3://books/data")
    assert len(documents) == 19 * 20 and documents[0].source == "data/a.jsonl"
    assert {document.source for document in read("s3://books/data/*.csv.gz")} == {"c.csv.gz", "e.csv.gz"}
    assert len(read("s3://books")) == len(documents)


@pytest.mark.slow
def test_objects_that_change_grow_or_are_not_there(bucket, read) -> None:
    def opened():
        return open_corpus(["s3://books/a.jsonl"], CorpusSettings(**SMALL))

    bucket("a.jsonl", as_lines(TEXTS[:30]))
    plan = make_plan(opened())
    assert make_plan(opened(), plan) == plan
    bucket("a.jsonl", as_lines(TEXTS))
    corpus = opened()
    assert [document.text for document in read_all(corpus, make_plan(corpus, plan))] == TEXTS
    bucket("a.jsonl", as_lines(["edited", *TEXTS[1:]]))
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        read_all(corpus, plan)
    for uri in ("s3://books/absent.jsonl", "s3://books/absent/", "s3://no-such-bucket/a.jsonl"):
        with pytest.raises(DataError, match="no such remote file or folder") as error:
            read(uri)
        assert error.value.exit_code == 3 and "hunter2" not in str(error.value)


@pytest.mark.slow
def test_stores_without_credentials_or_answer(bucket, store: str, read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    bucket("a.jsonl.gz", gzip.compress(as_lines(TEXTS)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="cannot read from the store") as error:
        read("s3://books/a.jsonl.gz")
    assert error.value.exit_code == 5 and "hunter2" not in str(error.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="the store wants credentials and found none"):
        read("s3://books/a.jsonl.gz")


def test_a_store_without_its_package(read, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def refuse(_protocol: str, **_options: object) -> None:
        raise ImportError("no module")

    monkeypatch.setattr(fsspec, "filesystem", refuse)
    with pytest.raises(ConfigError, match="gs:// needs the package gcsfs; pip install gcsfs"):
        read("gs://books/a.jsonl")
