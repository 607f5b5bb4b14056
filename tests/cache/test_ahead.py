"""A cache many times larger than its memory: bounded, each chunk decoded about once a window, and the same rows."""

import threading
import time
from functools import partial

import numpy as np
import pytest
from tests.cache.toy import ToyCache, open_toy

from llm_training.cache.loader import BatchLoader
from llm_training.cache.order import Join, Order, ShuffleShape
from llm_training.cache.pins import pin_all
from llm_training.cache.reader import PackedDataset
from llm_training.errors import IntegrityError

SLICES, ROW = 24, 32
SHAPE = ShuffleShape(block_rows=8, window_blocks=6)


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Two dozen chunks of about a hundred rows, cut into parts of eight."""
    monkeypatch.setattr("llm_training.cache.reader.PART_TOKENS", 8 * ROW)
    cache = ToyCache(tmp_path / "cache")
    cache.build(SLICES, source=partial(open_toy, documents=60, size=120))
    cache.view(ROW)
    return cache


def open_dataset(cache, **options):
    view = cache.view(ROW)
    return PackedDataset(cache.store(), view, pin_all(view), **options)


def counting(dataset, monkeypatch):
    decoded, decode = [], dataset._decode
    monkeypatch.setattr(dataset, "_decode", lambda number: (decoded.append(number), decode(number))[1])
    return decoded


def order_of(dataset, **options):
    return Order(seed=3, num_rows=len(dataset), shape=SHAPE, **options)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_rows_of_a_cache_larger_than_memory_are_the_same(large, threads):
    whole = open_dataset(large)
    order, steps = order_of(whole), len(whole) // 10
    expected = [whole.rows(order.rows(10 * step, 10 * step + 10)) for step in range(steps)]
    limit = whole.held_bytes // 6
    small = open_dataset(large, memory_bytes=limit)
    most = 0
    with BatchLoader(small, order, global_batch=10, read_threads=threads) as loader:
        for step in range(steps):
            batch = loader.fetch(step)
            most = max(most, small.held_bytes)
            assert np.array_equal(batch.input_ids, expected[step].input_ids)
            assert np.array_equal(batch.labels, expected[step].labels)
    assert 0 < most <= limit


def test_reading_ahead_decodes_a_chunk_about_once_a_window(large, monkeypatch):
    dataset = open_dataset(large)
    dataset.rows(np.arange(len(dataset)))
    order, limit = order_of(dataset), dataset.held_bytes // 4
    needed, sample = 0, 0
    while sample < len(dataset):
        first, last = order.window(sample)
        needed += len({number for number, _ in dataset.parts_of(order.rows(first, last))})
        sample = last
    small = open_dataset(large, memory_bytes=limit)
    decoded = counting(small, monkeypatch)
    with BatchLoader(small, order, global_batch=8, read_threads=2) as loader:
        for step in range(len(dataset) // 8):
            loader.fetch(step)
    assert len(decoded) <= 1.3 * needed


def test_the_next_window_is_ready_before_it_begins(large, monkeypatch):
    dataset = open_dataset(large)
    order = order_of(dataset)
    _, last = order.window(0)
    following = dataset.parts_of(order.rows(*order.window(last)))
    with BatchLoader(dataset, order, global_batch=2, prefetch_steps=1) as loader:
        for step in range(last // 2 - 4):
            loader.fetch(step)
        deadline = time.monotonic() + 30
        while not all(part in dataset._parts for part in following) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert all(part in dataset._parts for part in following)
        decoded = counting(dataset, monkeypatch)
        for step in range(last // 2 - 4, last // 2 + 4):
            loader.fetch(step)
        assert decoded == []


def test_windows_tile_the_samples_also_across_joins_and_epochs():
    order = Order(seed=1, num_rows=100, shape=SHAPE, joins=[Join(130, 190)], fraction=0.7)
    sample = 0
    while sample < 600:
        first, last = order.window(sample)
        assert first == sample < last
        assert all(order.window(inside) == (first, last) for inside in range(first, last))
        sample = last


def test_two_threads_decode_a_chunk_once(large, monkeypatch):
    dataset = open_dataset(large)
    decoded = counting(dataset, monkeypatch)
    threads = [threading.Thread(target=dataset.rows, args=(np.arange(60),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == len(set(decoded))


def test_damage_met_ahead_is_told_by_the_step_that_needs_it(large):
    path = large.directory / "chunk_000005.arrow"
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    dataset = open_dataset(large)
    with BatchLoader(dataset, order_of(dataset), global_batch=8) as loader, pytest.raises(IntegrityError, match=r"chunk_000005\.arrow"):
        for step in range(len(dataset) // 8):
            loader.fetch(step)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data-")]
