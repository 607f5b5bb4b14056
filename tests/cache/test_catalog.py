import json
import shutil

import pytest

from llm_training.cache.catalog import (
    Identity,
    make_identity,
    read_registry,
    scan,
    store_directory,
    update_registry,
)
from llm_training.errors import IntegrityError


def test_the_identity_follows_sources_tokenizer_and_cleaning():
    base = {"sources": ["a.txt"], "tokenizer": "t" * 64, "cleaning": {"dedup": True}}
    first = make_identity("My corpus", **base)
    assert first == make_identity("My corpus", **base)
    assert first.name == f"My-corpus-{first.fingerprint[:8]}"
    for change in ({"sources": ["b.txt"]}, {"tokenizer": "u" * 64}, {"cleaning": {}}):
        assert make_identity("My corpus", **{**base, **change}).fingerprint != first.fingerprint
    assert make_identity("FineWeb", **base, is_explicit=True) == Identity("FineWeb", first.fingerprint)
    assert make_identity("../../etc", **base, is_explicit=True).name == "etc"


def test_the_registry_lists_stores_and_views(built):
    view = built.view(32)
    built.view(64, "greedy")
    content = update_registry(built.root)
    assert read_registry(built.root)["datasets"] == content["datasets"]
    entry = content["datasets"]["toy-ffffffff"]
    assert entry["totals"]["train"]["num_chunks"] == entry["num_slices"] == 4
    assert content["packed_sequences"]["32"]["toy-ffffffff"]["num_sequences"] == view.stats.num_rows
    assert content["packed_sequences"]["64"]["toy-ffffffff.greedy"]["strategy"] == "greedy"
    assert store_directory(built.root, Identity("toy-ffffffff", "")) == built.directory


def test_the_registry_names_what_is_damaged_and_forgets_what_is_gone(built):
    built.view(32)
    whole = update_registry(built.root)
    metadata = built.root / "packed_sequences" / "32" / "toy-ffffffff" / "cache_metadata.json"
    metadata.write_text("{}")
    assert "no seal" in update_registry(built.root)["packed_sequences"]["32"]["toy-ffffffff"]["damaged"]
    shutil.rmtree(metadata.parent)
    assert update_registry(built.root) == {**whole, "packed_sequences": {}}
    (built.root / "cache_registry.json").write_text(json.dumps({"datasets": {}}))
    with pytest.raises(IntegrityError, match="carries no seal"):
        read_registry(built.root)


def test_an_empty_place_has_an_empty_registry(tmp_path):
    assert scan(tmp_path / "nowhere") == {"datasets": {}, "packed_sequences": {}}
