"""Several processes at one cache: what one does between two steps of another is neither lost nor contradicted."""

import sys
import threading
import time

import numpy as np
import pytest
from tests.cache.toy import open_toy, toy_settings

from llm_training.cache import swap
from llm_training.cache.build import lock_of
from llm_training.cache.catalog import scan
from llm_training.cache.pins import check_pin, pin_all
from llm_training.cache.publish import publish
from llm_training.cache.remote_cache import RemoteCache
from llm_training.cache.remote_copy import RemoteCopy
from llm_training.cache.store import ChunkStore
from llm_training.cache.view import PackedView, build_view
from llm_training.errors import IntegrityError, LockedError, StorageError
from llm_training.events import EventBus
from llm_training.jobs.cache_check import check_cache
from llm_training.storage.faults import forget_visits
from llm_training.storage.locks import FileLock
from llm_training.storage.remote import RemoteFolder


def part(cache, count, chunks):
    """Build so many chunks of a plan of ``count``, and open the store as it is then."""
    built = []

    def is_enough():
        built.append(True)
        return len(built) == chunks

    cache.build(count, should_stop=is_enough)
    return ChunkStore.open(cache.directory)


def test_row_plans_of_chunks_that_an_older_look_at_the_store_does_not_know_are_kept(cache):
    older = part(cache, 10, 3)
    cache.build(10)
    view = cache.view(32)
    pin = pin_all(view)
    assert sorted(build_view(cache.root, older, 32).records) == [0, 1, 2]
    check_pin(PackedView.open(view.directory), pin)
    assert sorted(build_view(cache.root, older, 64).records) == [0, 1, 2]
    assert sorted(PackedView.open(view.directory.parent.parent / "64" / view.directory.name).records) == [0, 1, 2]


def test_row_plans_of_chunks_that_are_gone_go_too(cache):
    cache.build(5)
    cache.view(32)
    cache.build(3, mode="force_rebuild")
    assert sorted(cache.view(32).records) == [0, 1, 2]


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def can_exchange(request, monkeypatch):
    """The system's own way to swap two directories, and that of a system that has none."""
    if not request.param:
        monkeypatch.setattr(swap, "_exchange", lambda one, other: False)
    return request.param


def test_there_is_a_store_at_every_moment_of_a_forced_rebuild(cache, can_exchange, monkeypatch):
    cache.build()
    running, seen = cache.store(), []

    def look(name):
        store = cache.store()
        assert store.problems(hashes=True) == [] and store.unbuilt() == [] and scan(cache.root)["datasets"].keys() == {"toy-ffffffff"}
        assert len(running.read("train", 1).tokens) and running.provenance("validation", 0)
        assert list(check_cache(str(cache.root), EventBus()).datasets) == ["toy-ffffffff"]
        seen.append(name)

    monkeypatch.setattr(swap, "crash_point", look)
    cache.build(mode="force_rebuild")
    assert seen == ["cache.before_swap", "cache.in_swap", *([] if can_exchange else ["cache.in_swap"]), "cache.after_swap"]


def test_a_forced_rebuild_that_died_between_two_renames_is_finished_by_the_next_builder(cache, can_exchange, monkeypatch):
    cache.build()
    (cache.directory / "chunk_000001.arrow").write_bytes(b"damaged")
    visits = 1 if can_exchange else 2
    for visit in range(1, visits + 1):
        forget_visits()
        monkeypatch.setenv("LLM_TRAINING_FAULT", f"cache.in_swap:raise@{visit}")
        with pytest.raises(StorageError, match="injected fault"):
            cache.build(mode="force_rebuild")
        monkeypatch.delenv("LLM_TRAINING_FAULT")
        is_new = visit == 2
        assert cache.directory.exists() != is_new
        assert bool(cache.store().problems(hashes=True)) != is_new
    cache.build(mode="inverse")
    assert cache.store().problems(hashes=True) == []
    assert [path.name for path in cache.directory.parent.iterdir()] == [cache.directory.name]


def test_a_reader_goes_on_with_a_rebuilt_store_of_the_same_tokens_and_no_others(cache):
    cache.build()
    running = cache.store()
    tokens = running.read("train", 2).tokens
    cache.build(mode="force_rebuild", settings=toy_settings(compression="zstd"))
    assert np.array_equal(running.read("train", 2).tokens, tokens)
    assert running.provenance("train", 1) == cache.store().provenance("train", 1)
    cache.build(mode="force_rebuild", source=lambda: open_toy(seed=9))
    with pytest.raises(IntegrityError, match=r"chunk_000003\.arrow"):
        running.read("train", 3)


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_an_exchange_that_the_file_system_refuses_is_an_error_and_one_that_it_lacks_is_not(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    with pytest.raises(StorageError, match="exchange with other"):
        swap._exchange(one, other)
    other.mkdir()
    mark = swap.mark_of(one)
    assert swap._exchange(one, other) and swap.mark_of(other) == mark
    monkeypatch.setattr(swap.sys, "platform", "plan9")
    assert not swap._exchange(one, other) and swap.mark_of(other) == mark


def test_what_a_builder_adds_during_a_publication_is_not_vouched_for(cache, tmp_path):
    store = part(cache, 6, 3)
    views = [cache.view(32)]

    def build_on(done, due):
        if done == 1:
            cache.build(6)
            cache.view(32)

    remote = RemoteFolder(f"memory://races/{tmp_path.name}")
    publish(cache.root, store, views, remote, {}, progress=build_on)
    published = RemoteCache(RemoteCopy(remote, tmp_path / "copy", 1 << 30))
    opened, view = published.open_store("toy-ffffffff"), published.open_view(views[0].settings)
    assert view is not None and sorted(view.records) == sorted(opened.records["train"]) == [0, 1, 2]
    assert opened.problems(hashes=True) == [] and view.problems() == [] and len(opened.plan) == 6
    publish(cache.root, cache.store(), [cache.view(32)], remote, {})
    view_name, store_name = "packed_sequences/32/toy-ffffffff", "store/toy-ffffffff"
    for name in (f"{store_name}/plan.json", f"{store_name}/cache_metadata.json", f"{view_name}/cache_metadata.json"):
        assert remote.read(name, max_bytes=1 << 30) == (cache.root / name).read_bytes()


def test_row_plans_of_chunks_that_the_published_store_lacks_are_left_out(cache, tmp_path):
    store = part(cache, 6, 3)
    cache.build(6)
    remote = RemoteFolder(f"memory://races/{tmp_path.name}-views")
    publish(cache.root, store, [cache.view(32)], remote, {})
    view = RemoteCache(RemoteCopy(remote, tmp_path / "copy", 1 << 30)).open_view(cache.view(32).settings)
    assert view is not None and sorted(view.records) == [0, 1, 2]


def test_a_whole_store_needs_no_lock(cache):
    cache.build()
    with FileLock(lock_of(cache.directory)):
        result = cache.build()
        assert result.built == () and result.is_complete
        began = time.monotonic()
        for options in ({"count": 5}, {"mode": "inverse"}, {"mode": "force_rebuild"}):
            with pytest.raises(LockedError):
                cache.build(**options)
        assert time.monotonic() - began < 3 * 5
        (cache.directory / "chunk_000001.arrow").unlink()
        with pytest.raises(LockedError):
            cache.build()
    assert cache.build().built == (1,)


def test_what_a_dead_builder_left_is_cleared_from_a_whole_store(cache):
    cache.build()
    left = cache.directory / "validation" / ".tmp-left"
    left.write_bytes(b"half")
    cache.build()
    assert not left.exists()


def test_a_builder_waits_moments_for_another_that_ends(cache):
    lock = FileLock(lock_of(cache.directory))
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert cache.build().is_complete
