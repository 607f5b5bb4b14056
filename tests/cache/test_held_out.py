"""Held-out tokens in bounded memory: whatever lies in the scratch file reads as it would from an array."""

import errno
import tempfile
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cache.toy import ToyCache

from llm_training.cache.held_out import held_out_documents
from llm_training.cache.spool import ArraySpool
from llm_training.errors import IntegrityError, StorageError
from llm_training.evaluation.windows import Documents, batches, plan_windows


@given(st.lists(st.lists(st.integers(0, 65_535), max_size=20), max_size=8), st.sampled_from([0, 10, 1 << 20]), st.data())
def test_slices_of_a_spool_are_those_of_an_array(parts, memory_bytes, data):
    spool = ArraySpool(np.uint16, memory_bytes=memory_bytes)
    for part in parts:
        spool.append(np.array(part, dtype=np.int64))
    whole = np.array([value for part in parts for value in part], dtype=np.uint16)
    assert len(spool) == len(whole)
    assert spool.is_in_memory == (2 * len(whole) <= memory_bytes or not len(whole))
    for _ in range(4):
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(0, len(whole) + 3))
        assert spool[start:stop].tolist() == whole[start:stop].tolist()


def test_windows_from_a_scratch_file_equal_those_from_memory(tmp_path):
    cache = ToyCache(tmp_path / "cache")
    cache.build(6)
    (kept, offsets), (spooled, same) = (held_out_documents(cache.store(), memory_bytes=size) for size in (1 << 20, 16))
    assert kept.is_in_memory and not spooled.is_in_memory
    assert np.array_equal(offsets, same)
    windows = plan_windows(np.diff(offsets), window=8, stride=4)
    pairs = zip(
        batches(Documents(kept, offsets), windows, separator_id=256, batch_size=5),
        batches(Documents(spooled, offsets), windows, separator_id=256, batch_size=5),
        strict=True,
    )
    count = 0
    for ours, theirs in pairs:
        assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
        count += 1
    assert count > 3


def test_memory_does_not_grow_with_the_set():
    tracemalloc.start()
    spool = ArraySpool(np.uint16, memory_bytes=1 << 20)
    for number in range(64):
        spool.append(np.full(1 << 19, number, dtype=np.uint16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(spool) == 1 << 25
    assert spool[(5 << 19) - 1 : (5 << 19) + 1].tolist() == [4, 5]
    assert peak < 6 << 20


def test_threads_may_read_at_once():
    spool = ArraySpool(np.uint32, memory_bytes=0)
    spool.append(np.arange(50_000))
    wrong: list[int] = []

    def read(seed: int) -> None:
        for start in np.random.default_rng(seed).integers(0, 49_000, 300):
            if not np.array_equal(spool[int(start) : int(start) + 100], np.arange(start, start + 100)):
                wrong.append(int(start))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_room_for_the_scratch_file_is_exit_5(monkeypatch):
    def refuse(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match="scratch file") as caught:
        ArraySpool(np.uint16, memory_bytes=0).append(np.arange(3))
    assert caught.value.exit_code == 5


def test_a_damaged_held_out_chunk_is_named(built):
    path = built.directory / "validation" / "chunk_000001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"validation/chunk_000001\.arrow"):
        held_out_documents(built.store())
