import threading
import time

import numpy as np
import pytest

import llm_training.cache.loader as loading
from llm_training.cache.loader import BatchLoader, RankShare
from llm_training.cache.order import Join, Order, ShuffleShape
from llm_training.cache.pins import find_growth, pin_all
from llm_training.cache.reader import PackedDataset
from llm_training.errors import IntegrityError, StorageError

SHAPE = ShuffleShape(4, 3)


@pytest.fixture
def dataset(built):
    view = built.view(32)
    return PackedDataset(built.store(), view, pin_all(view))


def order_of(dataset, **options):
    return Order(**{"seed": 7, "num_rows": len(dataset), "shape": SHAPE, **options})


def inputs_of(loader, steps):
    with loader:
        return np.concatenate([loader.fetch(step).input_ids for step in steps])


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("prefetch_steps", [0, 1, 4])
def test_the_ranks_together_get_the_samples_of_the_run(dataset, world_size, prefetch_steps):
    order = order_of(dataset)
    expected = dataset.rows(order.rows(0, 50)).input_ids
    ranks = [
        inputs_of(BatchLoader(dataset, order, global_batch=10, rank=rank, world_size=world_size, prefetch_steps=prefetch_steps), range(5))
        for rank in range(world_size)
    ]
    for step in range(5):
        parts = []
        for rank, inputs in enumerate(ranks):
            share = RankShare.of(rank, world_size, 10)
            size = share.last - share.first
            parts.append(inputs[step * size : (step + 1) * size])
        assert np.array_equal(np.concatenate(parts), expected[step * 10 : step * 10 + 10])


def test_any_step_may_be_asked_for(dataset):
    order = order_of(dataset)
    with BatchLoader(dataset, order, global_batch=4) as loader:
        for step in (3, 4, 0, 1, 9, 9):
            assert np.array_equal(loader.fetch(step).labels, dataset.rows(order.rows(step * 4, step * 4 + 4)).labels)
        assert loader.wait_seconds > 0


def test_more_ranks_than_samples_leave_some_without(dataset):
    with BatchLoader(dataset, order_of(dataset), global_batch=1, rank=0, world_size=2) as loader:
        assert loader.fetch(0).input_ids.shape == (0, 32)


def _comes_to(found: list[int], expected: list[int]) -> bool:
    """Whether the list becomes what is expected and then stays so: the thread waits for a step to be taken."""
    deadline = time.monotonic() + 30
    while found != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.1)
    return found == expected


def test_steps_asked_for_in_order_are_read_ahead_by_the_thread(dataset, monkeypatch):
    read, threads, sizes = dataset.rows, [], []
    monkeypatch.setattr(loading, "_TOKENS_AT_ONCE", 4 * 4 * 32)
    monkeypatch.setattr(
        dataset, "rows", lambda indices: (threads.append(threading.current_thread().name), sizes.append(len(indices)), read(indices))[2]
    )
    order = order_of(dataset, shape=ShuffleShape(4, 1_000))
    with BatchLoader(dataset, order, global_batch=4, prefetch_steps=2) as loader:
        loader.fetch(0)
        # One step and then two, at most as many as the bound on tokens allows; nothing more while two steps wait, or half of the last.
        assert _comes_to(sizes, [4, 8])
        loader.fetch(1)
        assert _comes_to(sizes, [4, 8, 16])
        loader.fetch(2)
        loader.fetch(3)
        loader.fetch(4)
        assert _comes_to(sizes, [4, 8, 16])
        loader.fetch(5)
        # Steps 7 and on, but none beyond the shuffle window, which here is the epoch.
        assert _comes_to(sizes, [4, 8, 16, 4 * ((len(dataset) - 28) // 4)]), (sizes, len(dataset))
    assert set(threads) == {"data-loader"}


@pytest.mark.parametrize("tokens_at_once", [1, 1_000, 1 << 16])
def test_however_many_steps_are_read_at_a_time_the_batches_are_the_same(dataset, monkeypatch, tokens_at_once):
    monkeypatch.setattr(loading, "_TOKENS_AT_ONCE", tokens_at_once)
    order = order_of(dataset)
    for rank in range(3):
        with BatchLoader(dataset, order, global_batch=7, rank=rank, world_size=3) as loader:
            share = RankShare.of(rank, 3, 7)
            for step in range(40):
                batch, expected = loader.fetch(step), dataset.rows(order.rows(step * 7 + share.first, step * 7 + share.last))
                assert np.array_equal(batch.input_ids, expected.input_ids)
                assert np.array_equal(batch.labels, expected.labels)


def test_steps_before_a_damaged_chunk_are_handed_out(dataset, monkeypatch):
    """Whether steps are read together makes no difference to which of them a damaged chunk is the end of."""
    read, order = dataset.rows, order_of(dataset)
    lost = order.rows(4 * 9, 4 * 9 + 1)

    def rows(indices):
        if np.isin(indices, lost).any():
            raise IntegrityError("content hash is another", where="chunk_000002.arrow")
        return read(indices)

    monkeypatch.setattr(dataset, "rows", rows)
    with BatchLoader(dataset, order, global_batch=4) as loader:
        for step in range(9):
            assert len(loader.fetch(step)) == 4
        for _ in range(2):
            with pytest.raises(IntegrityError, match="chunk_000002"):
                loader.fetch(9)
        assert len(loader.fetch(10)) == 4


def test_closing_leaves_no_thread(dataset):
    loader = BatchLoader(dataset, order_of(dataset), global_batch=4)
    loader.fetch(0)
    assert any(thread.name == "data-loader" for thread in threading.enumerate())
    loader.close()
    assert not any(thread.name == "data-loader" for thread in threading.enumerate())
    loader.close()
    assert len(loader.fetch(1)) == 4
    loader.close()


def test_a_damaged_chunk_is_named_to_the_consumer_and_a_repair_lets_it_go_on(built):
    view = built.view(32)
    dataset = PackedDataset(built.store(), view, pin_all(view))
    path = built.directory / "chunk_000002.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    order = order_of(dataset)
    with BatchLoader(dataset, order, global_batch=len(dataset)) as loader:
        with pytest.raises(IntegrityError, match=r"content hash is .*chunk_000002\.arrow"):
            loader.fetch(0)
        path.write_bytes(whole)
        assert len(loader.fetch(0)) == len(dataset)


def test_a_read_that_hangs_ends_in_an_error(dataset, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(dataset, "rows", lambda indices: released.wait(10))
    loader = BatchLoader(dataset, order_of(dataset), global_batch=4, timeout_seconds=0.05)
    threading.Timer(0.2, released.set).start()
    with pytest.raises(StorageError, match=r"no data for step 0 within 0\.05 seconds"):
        loader.fetch(0)


def test_a_join_goes_on_with_the_grown_cache(built):
    view = built.view(32)
    pin = pin_all(view)
    old = PackedDataset(built.store(), view, pin)
    before = order_of(old)
    with BatchLoader(old, before, global_batch=4) as loader:
        first = [loader.fetch(step).input_ids for step in range(2)]
        built.build(6)
        growth = find_growth(built.view(32), pin)
        new = PackedDataset(built.store(), built.view(32), growth.pin)
        after = order_of(old, joins=[Join(8, growth.new_sequences)])
        loader.replace(new, after)
        assert np.array_equal(loader.fetch(2).input_ids, new.rows(after.rows(8, 12)).input_ids)
    assert np.array_equal(np.concatenate(first), new.rows(after.rows(0, 8)).input_ids)
