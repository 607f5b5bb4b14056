"""A user's own source: named by a URI, planned, grown on resume, and its failures in one line."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_training
from llm_training.corpus import CorpusSettings, make_plan, open_corpus
from llm_training.corpus.sources.connector import load_class
from llm_training.errors import ConfigError, DataError, IntegrityError, StorageError

from .conftest import read_all
from .forms import TEXTS
from .servers import PlainHandler, Server

FILE = Path(__file__).with_name("connectors.py")
SMALL = CorpusSettings(slice_bytes=1000)


class ServiceHandler(PlainHandler):
    """Wants a key; answers with the texts of a file."""

    def answer(self) -> None:
        if self.headers.get("Authorization") != "Bearer sesame":
            self.send_error(401)
            return
        super().answer()


@pytest.fixture
def service(folder: Path) -> Iterator[Server]:
    (folder / "texts").write_text(json.dumps(TEXTS[:30]))
    with Server(folder, ServiceHandler) as running:
        yield running


def _uri(service: Server, key: str = "sesame") -> str:
    return f"connector:{FILE}:ServiceSource?api_endpoint={service.url}/texts&api_key={key}&category=science"


def test_a_connector_tells_what_it_reached(service: Server) -> None:
    source = load_class(f"{FILE}:ServiceSource")(event_bus=None)
    assert isinstance(source, llm_training.DataSourceConnector) and source.input_class is not None
    connection = source.connect(source.input_class(f"{service.url}/texts", "sesame", "science"))
    assert isinstance(connection, llm_training.DataSourceConnectorOutput)
    assert connection.status == "connected" and connection.metadata == {"records": 30} and connection.connection_id
    assert service.requests == [("/texts?category=science", "")]
    with pytest.raises(ConnectionError, match="API returned 401"):
        source.connect(source.input_class(f"{service.url}/texts", "wrong"))


def test_its_documents_are_planned_and_what_is_added_joins(service: Server, folder: Path) -> None:
    corpus = pickle.loads(pickle.dumps(open_corpus([_uri(service)], SMALL)))  # as it goes to worker processes
    plan = make_plan(corpus)
    assert [document.text for document in read_all(corpus, plan)] == TEXTS[:30] and len(plan.slices) > 3
    assert corpus.name == "ServiceSource" and "sesame" not in json.dumps(plan.to_json())
    assert make_plan(corpus, plan) == plan
    (folder / "texts").write_text(json.dumps(TEXTS))
    grown = make_plan(corpus, plan)
    assert grown.slices[: len(plan.slices)] == plan.slices and [d.text for d in read_all(corpus, grown)] == TEXTS
    (folder / "texts").write_text(json.dumps(["edited", *TEXTS]))
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        make_plan(corpus, grown)


def test_records_keep_id_and_fields_and_bad_ones_are_counted(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FILE.parent.parent.parent))
    for uri in (f"connector:{FILE}:Records", "connector:tests.corpus.connectors:Records"):
        documents = read(uri, skip_bad=True, max_bad_fraction=0.1)
        assert [document.position for document in documents] == [number for number in range(20) if number != 7]
        assert documents[3].id == "r3" and documents[3].metadata == {"n": 3} and documents[3].source == "Records"
        with pytest.raises(DataError, match=r"missing text .*; at connector:.*:Records, row 7"):
            read(uri)


def test_halves_of_surrogate_pairs_make_a_bad_record(read) -> None:
    uri = f"connector:{FILE}:Halves"
    with pytest.raises(DataError, match=r"lone surrogate .*, row 1"):
        read(uri)
    assert [document.position for document in read(uri, skip_bad=True, max_bad_fraction=1.0)] == [0, 5]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (f"{FILE}:Refusing", StorageError, "the source answers 'asleep'"),
        (f"{FILE}:Broken", DataError, r"the connector failed \(KeyError: 'oops'\)"),
        (f"{FILE}:Silent", ConfigError, "Silent has no method documents"),
        (f"{FILE}:Absent", ConfigError, "Absent is not a class derived from DataSourceConnector"),
        (f"{FILE}:NOT_A_CLASS", ConfigError, "NOT_A_CLASS is not a class derived from DataSourceConnector"),
        ("no.such.module:Source", ConfigError, r"cannot import no.such.module \(ModuleNotFoundError"),
        ("/no/such/file.py:Source", ConfigError, "no such file"),
        ("json", ConfigError, "the source names no class"),
    ],
)
def test_failures_are_one_line(read, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as told:
        read(f"connector:{name}?api_key=sesame")
    assert "sesame" not in str(told.value) and "\n" not in str(told.value)


def test_a_service_that_refuses_is_a_storage_error(service: Server, read) -> None:
    with pytest.raises(StorageError, match=r"the source refuses \(API returned 401\)") as told:
        read(_uri(service, key="wrong-key"))
    assert told.value.exit_code == 5 and "wrong-key" not in str(told.value)


def test_the_documented_class_is_a_source(read, repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "data.md").read_text(encoding="utf-8").partition("### A source of your own")[2]
    code, uri = re.findall(r"```python\n(.+?)```", page, re.DOTALL)[0], re.findall(r'"connector:poems.py:(.+?)"', page)[0]
    (tmp_path / "poems.py").write_text(code)
    documents = read(f"connector:{tmp_path / 'poems.py'}:{uri}")
    assert len(documents) == 200 and documents[3].text.startswith("Poem 3 of Anon.")
