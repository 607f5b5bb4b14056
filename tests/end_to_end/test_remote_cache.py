"""A run that reads a published cache is the run that reads the local one, also when its copy has room for next to nothing."""

from __future__ import annotations

import pytest

from llm_training.cli import build_cache as command
from llm_training.errors import ConfigError, IntegrityError, StorageError
from llm_training.jobs import cache
from llm_training.jobs.evaluate import evaluate
from llm_training.jobs.provenance import documents_of_step
from llm_training.jobs.train import train
from llm_training.storage.remote import RemoteFolder
from tests.cache.buckets import bucket_server
from tests.end_to_end.tiny import recorded_steps, tiny_config, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore", "ignore::DeprecationWarning:moto"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A local cache of several chunks, a run on it, and the cache in a bucket."""
    folder = tmp_path_factory.mktemp("remote")
    source = write_corpus(folder / "text", documents=120)
    config = tiny_config(folder, source, **{"cache.chunk_bytes": 10_000})
    with bucket_server() as url:
        report = cache.build(config, publish=url)
        assert "published to s3://corpora/cache" in report.published
        with recorded_steps() as chain:
            train(config)
        yield folder, source, url, chain


def remote_config(folder, place, url, **changes):
    changes = {"cache.dir": url, "cache.local_copy_dir": str(place / "copy"), "training.output_dir": str(place / "run"), **changes}
    return tiny_config(folder, "not-here", **changes)


@pytest.mark.parametrize("limit", [0, 20_000, 1_000_000_000])
def test_the_run_is_the_same(published, tmp_path, limit):
    folder, _, url, expected = published
    config = remote_config(folder, tmp_path, url, **{"cache.local_copy_bytes": limit, "cache.memory_bytes": 1_000_000})
    with recorded_steps() as chain:
        train(config)
    assert chain.links == expected.links
    assert sum(path.stat().st_size for path in (tmp_path / "copy").rglob("*.arrow")) <= limit
    ours, theirs = (evaluate(str(place / "run"), device="cpu").figures for place in (tmp_path, folder))
    assert ours == theirs
    assert documents_of_step(str(tmp_path / "run"), 3) == documents_of_step(str(folder / "run"), 3)


def test_another_row_length_is_planned_beside_the_copy(published, tmp_path):
    folder, source, url, _ = published
    changes = {"cache.sequence_length": 48, "training.max_steps": 3}
    with recorded_steps() as expected:
        train(tiny_config(folder, source, **changes, **{"cache.chunk_bytes": 10_000, "training.output_dir": str(tmp_path / "local")}))
    with recorded_steps() as chain:
        train(remote_config(folder, tmp_path, url, **changes))
    assert chain.links == expected.links


def test_verify_reads_all_of_it_and_building_there_is_refused(published, tmp_path):
    folder, _, url, _ = published
    config = remote_config(folder, tmp_path, url)
    assert cache.build(config, verify=True).verified
    with pytest.raises(ConfigError, match="not built in place"):
        cache.build(config)
    remote = RemoteFolder(url)
    name = next(name for name in remote.sizes("store") if name.endswith("chunk_000002.arrow") and "validation" not in name)
    whole = remote.read(name, max_bytes=1 << 30)
    try:
        remote.write(name, whole[:200] + bytes([whole[200] ^ 8]) + whole[201:])
        with pytest.raises(IntegrityError, match=r"1 part of the cache is damaged: .*chunk_000002\.arrow"):
            cache.build(remote_config(folder, tmp_path / "anew", url), verify=True)
    finally:
        remote.write(name, whole)


def test_failures_are_one_line(published, tmp_path, capsys):
    folder, source, url, _ = published
    with pytest.raises(StorageError, match=r"no such dataset.*cache\.name"):
        train(remote_config(folder, tmp_path, url, **{"cache.name": "other"}))
    with pytest.raises(ConfigError, match="not a remote folder"):
        cache.build(tiny_config(folder, source, **{"cache.chunk_bytes": 10_000}), publish="a/folder")
    code = command.main(["--cache.dir", "s3://no-such-bucket/x", "--cache.local_copy_dir", str(tmp_path / "copy"), "--verify"])
    error = capsys.readouterr().err.strip().splitlines()
    assert code == 5
    assert len(error) == 1 and error[0].startswith("error[E05]: ")
