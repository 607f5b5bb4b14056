"""Building, repairing and verifying the cache as a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.tiny import tiny_config, write_corpus

from llm_training.config.root import Config
from llm_training.errors import DataError, IntegrityError
from llm_training.events import EventBus
from llm_training.jobs import cache
from llm_training.jobs.cache_check import check_cache


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
    for each in (config, longer):
        cache.build(each, mode="inverse")
    assert {path: content for path, (_, content) in state(tmp_path / "cache").items() if path.endswith(".arrow")} == {
        path: content for path, (_, content) in whole.items() if path.endswith(".arrow")
    }
    assert cache.build(config, verify=True).verified


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


def test_a_number_of_documents_is_another_cache(tmp_path: Path, source: Path) -> None:
    whole = cache.build(configured(tmp_path, source))
    few = cache.build(configured(tmp_path, source, **{"data.num_samples": 12}))
    assert few.directory != whole.directory and 0 < few.text_bytes < 0.6 * whole.text_bytes
    again = cache.build(configured(tmp_path, source, **{"data.num_samples": 12}))
    assert again.directory == few.directory and not again.built
