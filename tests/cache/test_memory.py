"""A night's test: the memory of a process that reads a cache many times larger than what it may hold, measured from outside."""

import subprocess
import sys
from functools import partial

import pytest
from tests.cache.toy import ToyCache, ToyDocument, ToyEncoder

CHUNKS, DOCUMENTS, LETTERS = 48, 64, 1 << 15
LIMIT_MB = 16

READ = """
import sys
from pathlib import Path
import psutil
from tests.cache.toy import ToyCache
from llm_training.cache.loader import BatchLoader
from llm_training.cache.order import Order, ShuffleShape
from llm_training.cache.pins import pin_all
from llm_training.cache.reader import PackedDataset

cache = ToyCache(Path(sys.argv[1]))
view = cache.view(512)
dataset = PackedDataset(cache.store(), view, pin_all(view), memory_bytes=int(sys.argv[2]) * 1_000_000)
order = Order(seed=0, num_rows=len(dataset), shape=ShuffleShape(256, 16))
dataset.rows(order.rows(0, 1))  # libraries loaded, one chunk decoded
before = psutil.Process().memory_info().rss
with BatchLoader(dataset, order, global_batch=64, read_threads=2) as loader:
    peak = max((loader.fetch(step), psutil.Process().memory_info().rss)[1] for step in range(len(dataset) // 64))
print((peak - before) / 1e6, len(dataset) * 512 * 2 / 1e6)
"""


def long_documents(number: int) -> list[ToyDocument]:
    text = "abcdefghij" * (LETTERS // 10)
    return [ToyDocument(f"{number}-{place}", text, "made", place, "train") for place in range(DOCUMENTS)]


def open_long():
    return long_documents, ToyEncoder()


@pytest.mark.nightly
def test_reading_a_large_cache_takes_bounded_memory(tmp_path, repository):
    cache = ToyCache(tmp_path / "cache")
    cache.build(CHUNKS, source=partial(open_long))
    cache.view(512)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(cache.root), str(LIMIT_MB)], cwd=repository, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    growth_mb, cache_mb = map(float, done.stdout.split())
    print(f"memory grew by {growth_mb:.0f} MB while {cache_mb:.0f} MB of decoded rows went by, {LIMIT_MB} MB of which may be held")
    assert cache_mb > 10 * LIMIT_MB
    # Beside the rows held: a chunk of 4 MB in the hands of each of three threads, as file, tokens and rows.
    assert growth_mb < LIMIT_MB + 3 * 16
