"""Building, repairing and verifying the cache as a job."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.tiny import tiny_config, write_corpus

from llm_training.cache.store import LeftOut
from llm_training.config.root import Config
from llm_training.corpus import SliceReader
from llm_training.errors import ConfigError, DataError, IntegrityError
from llm_training.events import Event, EventBus, Notice
from llm_training.jobs import cache, datasets
from llm_training.jobs.cache_check import check_cache
from llm_training.runtime.world import World


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", documents=30)


def configured(tmp_path: Path, source: Path, **changes: Any) -> Config:
    return tiny_config(tmp_path, source, **{"cache.chunk_bytes": 10_000}, **changes)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_verify_reads_everything_and_writes_nothing(tmp_path: Path, source: Path) -> None:
    config = configured(tmp_path, source)
    built = cache.build(config)
    assert len(built.built) > 1
    before = state(tmp_path / "cache")
    report = cache.build(config, verify=True)
    assert report.verified is True
    assert report.num_sequences == built.num_sequences
    assert "every chunk and every row plan verified" in report.lines()
    assert state(tmp_path / "cache") == before


def test_verify_lists_damaged_row_plans_of_every_length_and_inverse_rebuilds_them(tmp_path: Path, source: Path) -> None:
    config, longer = configured(tmp_path, source), configured(tmp_path, source, **{"cache.sequence_length": 64})
    plans = [sorted(Path(cache.build(each).view).glob("packed_chunk_*.arrow")) for each in (config, longer)]
    whole = state(tmp_path / "cache")
    flip(plans[0][0])
    plans[0][1].unlink()
    flip(plans[1][0])
    damaged = state(tmp_path / "cache")
    with pytest.raises(IntegrityError, match="3 parts of the cache are damaged") as refused:
        cache.build(config, verify=True)
    for path in (*plans[0][:2], plans[1][0]):
        assert str(path) in str(refused.value)
    assert state(tmp_path / "cache") == damaged
    repaired = [cache.build(each, mode="inverse").repaired for each in (config, longer)]
    assert [[str(path) in line for path, line in zip(plans[0][:2], repaired[0], strict=True)], len(repaired[1])] == [[True, True], 1]
    assert {path: content for path, (_, content) in state(tmp_path / "cache").items() if path.endswith(".arrow")} == {
        path: content for path, (_, content) in whole.items() if path.endswith(".arrow")
    }
    assert cache.build(config, verify=True).verified


def test_a_cache_keeps_its_compression_where_none_is_asked_for(tmp_path: Path, source: Path) -> None:
    packed = cache.build(configured(tmp_path, source, **{"cache.compression": "zstd"}))
    again = cache.build(configured(tmp_path, source), mode="inverse")
    assert again.built == () and "(zstd)" in "\n".join(again.lines())
    assert "(zstd)" in "\n".join(cache.build(configured(tmp_path, source), force_rebuild=True).lines())
    with pytest.raises(ConfigError, match=r"compressed with zstd, lz4 was asked for; .*--compression zstd"):
        cache.build(configured(tmp_path, source, **{"cache.compression": "lz4"}))
    assert packed.directory == again.directory
    fresh = configured(tmp_path / "new", source)
    assert "(lz4)" in "\n".join(cache.build(fresh).lines())


def test_tokens_that_no_row_holds_are_counted(tmp_path: Path, source: Path) -> None:
    report = cache.build(configured(tmp_path, source, **{"cache.packing_strategy": "none"}))
    (rows,) = [line for line in report.lines() if line.startswith("rows of")]
    found = re.search(r", ([\d,]+) tokens \(([\d.]+)%\) left out of the rows$", rows)
    assert found and int(found.group(1).replace(",", "")) > 0 and 0 < float(found.group(2)) < 100


def test_verify_lists_damaged_chunks_and_views(tmp_path: Path, source: Path) -> None:
    config = configured(tmp_path, source)
    built = cache.build(config)
    chunk = next(Path(built.directory).rglob("chunk_000001.arrow"))
    flip(chunk)
    (Path(built.view) / "cache_metadata.json").write_text("{}")
    with pytest.raises(IntegrityError, match="2 parts of the cache are damaged") as refused:
        cache.build(config, verify=True)
    assert chunk.name in str(refused.value)
    assert built.view in str(refused.value)


def test_verify_without_a_cache_trains_no_tokenizer(tmp_path: Path, source: Path) -> None:
    with pytest.raises(IntegrityError, match="there is no cache of these sources and settings"):
        cache.build(configured(tmp_path, source), verify=True)
    assert not (tmp_path / "cache" / "tokenizers").exists()


def test_verify_of_a_length_that_was_not_packed_looks_at_the_tokens(tmp_path: Path, source: Path) -> None:
    cache.build(configured(tmp_path, source))
    report = cache.build(configured(tmp_path, source, **{"cache.sequence_length": 64}), verify=True)
    assert report.verified
    assert (report.view, report.num_sequences) == ("", 0)
    assert not any(line.startswith("rows ") for line in report.lines())


def test_a_whole_cache_is_checked_without_its_sources(tmp_path: Path, source: Path) -> None:
    with pytest.raises(DataError, match="there is no cache"):
        check_cache(str(tmp_path / "cache"), EventBus())
    built = cache.build(configured(tmp_path, source))
    cache.build(configured(tmp_path, source, **{"cache.sequence_length": 64}))
    before = state(tmp_path / "cache")
    found = check_cache(str(tmp_path / "cache"), EventBus())
    assert list(found.datasets) == [built.dataset] and min(found.datasets.values()) > 0
    assert sorted(found.row_plans) == [f"32/{built.dataset}", f"64/{built.dataset}"]
    assert found.row_plans[f"32/{built.dataset}"] == built.num_sequences
    assert state(tmp_path / "cache") == before
    chunk = sorted(Path(built.directory).glob("*.arrow"))[1]
    flip(chunk)
    plan = sorted((tmp_path / "cache/packed_sequences/64" / built.dataset).glob("*.arrow"))[0]
    plan.unlink()
    with pytest.raises(IntegrityError, match="2 parts of the cache are damaged") as caught:
        check_cache(str(tmp_path / "cache"), EventBus())
    assert chunk.name in caught.value.what and plan.name in caught.value.what


def broken(path: Path, *, every: int, count: int = 600) -> Path:
    """Records with a large field beside the text, of which some are not JSON."""
    lines = [json.dumps({"text": f"document {number} of some words", "page": "x" * 300}) for number in range(count)]
    path.write_text("".join(f"{line if (number + 1) % every else '{broken'}\n" for number, line in enumerate(lines)))
    return path


def test_bad_documents_are_counted_and_limited(tmp_path: Path) -> None:
    """With a tokenizer at hand too; the account stays with the cache and is the same for any number of builders."""
    few = broken(tmp_path / "few.jsonl", every=200)
    changes = {"tokenizer.path": "bytes", "data.validation_sources": [], "data.skip_bad": True}
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    report = cache.build(configured(tmp_path, few, **changes), bus=bus)
    assert "left out: 3 invalid json" in report.lines()
    said = [event.message for event in events if isinstance(event, Notice)]
    assert any(line.startswith("documents left out: 3 invalid json (first: invalid json at few.jsonl, line 200)") for line in said)
    metadata = (Path(report.directory) / "cache_metadata.json").read_bytes()
    elsewhere = cache.build(configured(tmp_path, few, **changes, **{"cache.dir": str(tmp_path / "other"), "cache.workers": 2}))
    assert (Path(elsewhere.directory) / "cache_metadata.json").read_bytes() == metadata
    many = configured(tmp_path, broken(tmp_path / "many.jsonl", every=2), **changes)
    for _ in range(2):  # a cache that is built already is no better
        with pytest.raises(DataError, match=r"documents are bad, more than the 1\.0% allowed \(first: invalid json at many"):
            cache.build(many)
    assert cache.build(configured(tmp_path, tmp_path / "many.jsonl", **changes, **{"data.max_bad_fraction": 0.6})).num_sequences
    with pytest.raises(DataError, match=r"3 of 600 documents are bad, more than the 0\.0% allowed"):
        cache.build(configured(tmp_path, few, **changes, **{"data.max_bad_fraction": 0.0}))


def test_replaced_bytes_are_counted_told_and_another_cache(tmp_path: Path) -> None:
    """The account stays with the cache and is the same for any number of builders, interrupted or not."""
    lines = [json.dumps({"text": f"document {number} of some words", "page": "x" * 300}).encode() for number in range(600)]
    for number in (199, 400, 401):
        lines[number] = lines[number].replace(b"some", b"s\xffme")
    source = tmp_path / "bytes.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    offset = source.read_bytes().index(b"\xff")
    changes = {"tokenizer.path": "bytes", "data.validation_sources": []}
    skipped = cache.build(configured(tmp_path, source, **changes))
    assert "left out: 3 undecodable" in skipped.lines()
    changes |= {"data.replace_bad_bytes": True}
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    replaced = cache.build(configured(tmp_path, source, **changes), bus=bus)
    assert replaced.directory != skipped.directory
    assert "read with U+FFFD for bytes that are no UTF-8: 3 documents" in replaced.lines() and not any(
        "left out" in x for x in replaced.lines()
    )
    said = [event.message for event in events if isinstance(event, Notice)]
    place = f"{source}, line 200, byte offset {offset}"
    assert f"3 documents were read with U+FFFD for bytes that are no UTF-8 (first: {place})" in said
    metadata = (Path(replaced.directory) / "cache_metadata.json").read_bytes()
    assert sum(total["num_documents"] for total in json.loads(metadata)["totals"].values()) == 600
    other = configured(tmp_path, source, **changes, **{"cache.dir": str(tmp_path / "other"), "cache.workers": 2})
    cache.build(other, max_chunks=1)
    elsewhere = cache.build(other)
    assert (Path(elsewhere.directory) / "cache_metadata.json").read_bytes() == metadata
    cache.build(configured(tmp_path, source, **changes, **{"cache.name": "mine"}))
    with pytest.raises(IntegrityError, match=r"made with other settings|holds other data"):
        cache.build(configured(tmp_path, source, **changes | {"data.replace_bad_bytes": False}, **{"cache.name": "mine"}))


def test_what_cleaning_leaves_out_is_counted(tmp_path: Path) -> None:
    source = broken(tmp_path / "few.jsonl", every=10**9)
    changes = {"tokenizer.path": "bytes", "data.min_length": 26, "data.validation_sources": []}
    report = cache.build(configured(tmp_path, source, **changes))
    assert any(line.startswith("left out: ") and "too_short" in line for line in report.lines())


def test_the_amount_of_text_is_that_of_the_text(tmp_path: Path) -> None:
    """Other fields of records are no text, in the plan and in what is decided by it."""
    source = broken(tmp_path / "few.jsonl", every=10**9)
    config = configured(tmp_path, source)
    scanned = datasets.scan_data(config, EventBus(), World())
    texts = sum(len(json.loads(line)["text"]) for line in source.read_text().splitlines())
    assert scanned.train_bytes == pytest.approx(0.95 * texts, rel=0.02)


def test_compressed_text_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The amount of text of a file that is only read forward comes from its first slice, not from all of it."""
    lines = broken(tmp_path / "plain.jsonl", every=10**9).read_bytes()
    source = tmp_path / "many.jsonl.gz"
    source.write_bytes(gzip.compress(lines))
    config = configured(tmp_path, source)
    read: list[int] = []
    real = SliceReader.read_slice
    monkeypatch.setattr(SliceReader, "read_slice", lambda self, number: read.append(number) or real(self, number))
    scanned = datasets.scan_data(config, EventBus(), World())
    texts = sum(len(json.loads(line)["text"]) for line in lines.decode().splitlines())
    assert read == [0] and len(scanned.plan.slices) > 3
    assert scanned.train_bytes == pytest.approx(0.95 * texts, rel=0.05)


def test_the_amount_of_text_counts_each_source_by_its_bytes(tmp_path: Path) -> None:
    """A compressed source of little text does not speak for a plain one."""
    few = "".join(json.dumps({"text": f"only {number}", "page": "x" * 200}) + "\n" for number in range(300))
    much = "".join(json.dumps({"text": f"document {number} " + "of many words " * 60}) + "\n" for number in range(300))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(few.encode()))
    (tmp_path / "b.jsonl").write_text(much)
    sources = [str(tmp_path / "a.jsonl.gz"), str(tmp_path / "b.jsonl")]
    scanned = datasets.scan_data(configured(tmp_path, tmp_path / "b.jsonl", **{"data.sources": sources}), EventBus(), World())
    texts = sum(len(json.loads(line)["text"]) for line in (few + much).splitlines())
    assert scanned.train_bytes == pytest.approx(0.95 * texts, rel=0.1)


def test_damaged_accounts_of_what_was_left_out_are_refused() -> None:
    for first in ([], [1], ["x.jsonl", "y"], 7):
        with pytest.raises((TypeError, ValueError)):
            LeftOut.from_json({"num_bad": 0, "reasons": {}, "num_replaced": 1, "first_replaced": first})


def test_a_number_of_documents_is_another_cache(tmp_path: Path, source: Path) -> None:
    whole = cache.build(configured(tmp_path, source))
    few = cache.build(configured(tmp_path, source, **{"data.num_samples": 12}))
    assert few.directory != whole.directory and 0 < few.text_bytes < 0.6 * whole.text_bytes
    again = cache.build(configured(tmp_path, source, **{"data.num_samples": 12}))
    assert again.directory == few.directory and not again.built
