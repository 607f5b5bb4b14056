"""A published cache, read through a bounded local copy: the same rows, verified, evicted in order of use."""

import os
import threading

import numpy as np
import pytest
from tests.cache.buckets import bucket_server
from tests.cache.toy import ToyCache, open_toy, toy_settings

from llm_training.cache.catalog import read_registry
from llm_training.cache.held_out import held_out_documents
from llm_training.cache.loader import BatchLoader
from llm_training.cache.order import Order, ShuffleShape
from llm_training.cache.pins import pin_all
from llm_training.cache.publish import publish
from llm_training.cache.reader import PackedDataset
from llm_training.cache.remote_cache import RemoteCache
from llm_training.cache.remote_copy import RemoteCopy
from llm_training.errors import ConfigError, IntegrityError, StorageError
from llm_training.storage.remote import RemoteFolder, is_remote

ROW = 32
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore", "ignore::DeprecationWarning:moto")


@pytest.fixture(scope="module")
def server():
    with bucket_server() as url:
        yield url


@pytest.fixture
def url(server, request):
    return f"{server}/{request.node.name[:30].strip('[]')}"


def send(cache, url):
    return publish(cache.root, cache.store(), [cache.view(ROW)], RemoteFolder(url), {})


def open_cache(url, place, limit=1 << 30):
    return RemoteCache(RemoteCopy(RemoteFolder(url), place, limit))


def open_dataset(remote, cache, **options):
    view = remote.open_view(cache.view(ROW).settings)
    assert view is not None
    return PackedDataset(remote.open_store("toy-ffffffff"), view, pin_all(view), **options)


def local_dataset(cache):
    view = cache.view(ROW)
    return PackedDataset(cache.store(), view, pin_all(view))


def test_rows_and_held_out_text_of_a_published_cache_are_the_same(built, url, tmp_path):
    sent = send(built, url)
    assert sent.num_sent == 12 and sent.num_kept == 0
    remote = open_cache(url, tmp_path / "copy")
    assert remote.datasets() == ["toy-ffffffff"]
    ours, theirs = local_dataset(built), open_dataset(remote, built)
    everything = np.arange(len(ours))
    assert np.array_equal(ours.rows(everything).input_ids, theirs.rows(everything).input_ids)
    assert np.array_equal(held_out_documents(built.store())[0][:], held_out_documents(theirs.store)[0][:])
    assert theirs.store.problems(hashes=True) == []
    assert read_registry(remote.fetch("cache_registry.json").parent)["datasets"]["toy-ffffffff"]["num_slices"] == 4


def test_publishing_again_sends_only_what_is_new(built, url):
    send(built, url)
    assert send(built, url).num_sent == 0
    built.build(6)
    again = send(built, url)
    assert (again.num_sent, again.num_kept) == (4, 12)


def test_a_publication_that_is_cut_short_changes_nothing_for_readers(built, url, tmp_path, monkeypatch):
    send(built, url)
    built.build(7)
    write, written = RemoteFolder.write, []

    def stop_after(count):
        def limited(self, name, data):
            if len(written) == count:
                raise StorageError("the network went away")
            written.append(name)
            write(self, name, data)

        return limited

    for count in (0, 3, 5):
        written.clear()
        monkeypatch.setattr(RemoteFolder, "write", stop_after(count))
        with pytest.raises(StorageError):
            send(built, url)
        monkeypatch.setattr(RemoteFolder, "write", write)
        store = open_cache(url, tmp_path / f"copy-{count}").open_store("toy-ffffffff")
        assert sorted(store.records["train"]) == [0, 1, 2, 3]
        assert store.problems(hashes=True) == []
    written.clear()
    monkeypatch.setattr(RemoteFolder, "write", stop_after(1_000))
    send(built, url)
    assert [name.rpartition("/")[2] for name in written[-3:]] == ["plan.json", "cache_metadata.json", "cache_registry.json"]


def test_other_data_under_the_same_name_are_refused(built, url, tmp_path):
    send(built, url)
    other = ToyCache(tmp_path / "other")
    other.build(2, settings=toy_settings(fingerprint="0" * 64), source=lambda: open_toy(seed=5))
    with pytest.raises(IntegrityError, match="holds other data"):
        send(other, url)


def test_the_copy_is_bounded_and_the_longest_unused_go_first(built, url, tmp_path):
    send(built, url)
    store = built.store()
    sizes = {number: record.num_bytes for number, record in store.records["train"].items()}
    limit = sizes[0] + sizes[1] + sizes[2]
    remote = open_cache(url, tmp_path / "copy", limit)
    copied = remote.open_store("toy-ffffffff")
    for number in (0, 1, 0):
        copied.read("train", number)
        os.utime(copied.path("train", number))
    before = remote.copy.fetched_bytes
    copied.read("train", 2)
    assert copied.path("train", 0).exists()
    copied.read("train", 3)
    held = {path.name for path in remote.directory.rglob("*.arrow")}
    assert "chunk_000001.arrow" not in held and "chunk_000003.arrow" in held
    assert remote.copy.held_bytes() <= limit
    copied.read("train", 0)
    assert remote.copy.fetched_bytes - before <= sum(sizes.values())


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_threads_share_a_copy_that_has_room_for_almost_nothing(built, url, tmp_path, chunks):
    built.build(8)
    send(built, url)
    limit = chunks * max(record.num_bytes for record in built.store().records["train"].values())
    remote = open_cache(url, tmp_path / "copy", limit)
    dataset = open_dataset(remote, built, memory_bytes=1)
    expected, order = local_dataset(built), Order(seed=1, num_rows=len(dataset), shape=ShuffleShape(2, 4))
    with BatchLoader(dataset, order, global_batch=4, read_threads=4) as loader:
        for step in range(12):
            assert np.array_equal(loader.fetch(step).input_ids, expected.rows(order.rows(4 * step, 4 * step + 4)).input_ids)
            assert remote.copy.held_bytes() <= limit


def test_two_copies_of_one_directory_may_evict_each_others_files(built, url, tmp_path):
    send(built, url)
    limit = max(record.num_bytes for record in built.store().records["train"].values())
    stores = [open_cache(url, tmp_path / "copy", limit).open_store("toy-ffffffff") for _ in range(2)]
    failures: list[BaseException] = []

    def read(store):
        try:
            for turn in range(24):
                store.read("train", turn % 4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_file_in_use_is_not_evicted(built, url, tmp_path, monkeypatch):
    send(built, url)
    limit = max(record.num_bytes for record in built.store().records["train"].values())
    remote = open_cache(url, tmp_path / "copy", limit)
    store = remote.open_store("toy-ffffffff")
    store.read("train", 0)
    path = store.path("train", 0)
    with remote.copy._using(path):
        store.read("train", 1)
        assert path.exists()
    store.read("train", 2)
    assert not path.exists()


def test_damage_to_the_copy_is_mended_and_damage_to_the_object_is_told(built, url, tmp_path):
    send(built, url)
    remote = open_cache(url, tmp_path / "copy")
    store = remote.open_store("toy-ffffffff")
    whole = store.read("train", 1).tokens
    path = store.path("train", 1)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert np.array_equal(store.read("train", 1).tokens, whole)
    assert path.read_bytes() != bytes(data)
    path.unlink()
    RemoteFolder(url).write("store/toy-ffffffff/chunk_000001.arrow", bytes(data))
    with pytest.raises(IntegrityError, match=r"s3://corpora/.*chunk_000001\.arrow") as caught:
        store.read("train", 1)
    assert caught.value.exit_code == 4
    assert not path.exists()


def test_a_missing_object_is_found_at_opening(built, url, tmp_path):
    send(built, url)
    remote = open_cache(url, tmp_path / "copy")
    remote.remote._filesystem.rm_file(remote.remote._path("store/toy-ffffffff/chunk_000002.arrow"))
    with pytest.raises(IntegrityError, match=r"chunk_000002\.arrow"):
        open_dataset(remote, built)


def test_what_cannot_be_reached_is_one_line_and_exit_5(server, tmp_path, monkeypatch):
    for address in (f"{server}/nothing-here", "s3://no-such-bucket/cache"):
        with pytest.raises(StorageError, match=r"no such|cannot") as caught:
            open_cache(address, tmp_path / "copy").open_store("toy-ffffffff")
        assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    with pytest.raises(StorageError) as caught:
        RemoteFolder("s3://no-such-bucket/cache").write("a/b", b"data")
    assert caught.value.exit_code == 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="cannot list") as caught:
        open_cache(server, tmp_path / "copy").open_store("toy-ffffffff")
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)


def test_addresses(monkeypatch):
    assert is_remote("s3://bucket/a") and is_remote("memory://x")
    assert not any(map(is_remote, ("cache", "/a/b", "C:\\cache", "./s3:", "~/cache")))
    assert RemoteFolder("memory://name:secret@host/a").url == "memory://host/a"
    with pytest.raises(ConfigError, match="unknown kind of address"):
        RemoteFolder("nonsense://a/b")

    def without_library(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", without_library)
    with pytest.raises(ConfigError, match=r"llm-training\[s3\]"):
        RemoteFolder("s3://a/b")
