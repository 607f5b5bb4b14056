"""``hf:`` sources, through the real library on local data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_training.corpus import CorpusSettings, make_plan, open_corpus
from llm_training.corpus.sources.hub import HubName, parse_uri
from llm_training.errors import ConfigError, DataError, IntegrityError

from .conftest import read_all

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture
def data_set(folder: Path) -> Path:
    for split, count in (("train", 200), ("validation", 10), ("test", 5)):
        rows = [{"text": f"{split} row {number} " + "w " * (number % 30), "score": number} for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf:fineweb-edu", HubName("HuggingFaceFW/fineweb-edu", "sample-10BT", None)),
        ("hf:wikitext@test", HubName("Salesforce/wikitext", "wikitext-2-raw-v1", "test")),
        ("hf:wikitext:wikitext-103-raw-v1@train", HubName("Salesforce/wikitext", "wikitext-103-raw-v1", "train")),
        ("hf:owner/name", HubName("owner/name", None, None)),
    ],
)
def test_uris(uri: str, expected: HubName) -> None:
    assert parse_uri(uri) == expected


def test_all_splits_of_a_folder(data_set: Path, read) -> None:
    documents = read(f"hf:{data_set}", slice_bytes=2000)
    assert [document.split for document in documents] == ["train"] * 200 + ["validation"] * 10 + ["test"] * 5
    assert documents[7].text.startswith("train row 7 ") and documents[7].position == 7
    assert documents[0].source == "texts/train" and documents[3].metadata == {"score": 3}


def test_one_split_and_a_bound(data_set: Path, read) -> None:
    documents = read(f"hf:{data_set}@train", slice_bytes=500, max_documents=50)
    assert [document.position for document in documents] == list(range(50))
    assert "validation" in {document.split for document in documents}


def test_slices_in_any_order_and_growth(data_set: Path) -> None:
    settings = CorpusSettings(slice_bytes=500)
    corpus = open_corpus([f"hf:{data_set}@train"], settings)
    plan = make_plan(corpus)
    assert len(plan.slices) > 5 and make_plan(corpus, plan) == plan
    whole = [document.text for document in read_all(corpus, plan)]
    with (data_set / "train.jsonl").open("a") as file:
        file.write('{"text": "one more row", "score": 1}\n')
    grown = make_plan(corpus, plan)
    assert grown.slices[:-1] == plan.slices
    assert [document.text for document in read_all(corpus, grown)] == [*whole, "one more row"]
    rows = (data_set / "train.jsonl").read_text()
    (data_set / "train.jsonl").write_text(rows.replace("train row 3 ", "train row X "))
    with pytest.raises(IntegrityError, match="changed after they were planned"):
        make_plan(corpus, grown)


def test_parquet_through_the_library(folder: Path, read) -> None:
    pq.write_table(pa.table({"body": [f"row {number}" for number in range(30)]}), folder / "part.parquet")
    for uri in (f"hf:{folder}", f"hf:{folder / 'part.parquet'}"):
        assert [document.text for document in read(uri, text_field="body")] == [f"row {number}" for number in range(30)]


def test_wrong_names_are_one_line(data_set: Path, read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot read the data set"):
        read(f"hf:{data_set}@nosuch")
    with pytest.raises(DataError, match="missing text"):
        read(f"hf:{data_set}@train", text_field="body")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"need the package datasets; pip install 'llm-training\[data\]'"):
        read(f"hf:{data_set}")
