"""C-7, C-8 and C-10: builders that are killed, that meet a full disk, or that lose power leave whole chunks only."""

import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tests.cache.toy import ToyCache, open_toy
from tests.faults.crash_states import Recorder
from tests.faults.failing_calls import sweep

from llm_training.cache.store import ChunkStore
from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.faults import forget_visits
from llm_training.storage.filesystem import installed

SLICES = 6
POINTS = ["cache.after_chunk", "cache.after_record", "cache.after_commit", "cache.after_plan"]


@pytest.fixture
def place(tmp_path):
    """In memory where that is possible: what is tested is the order of operations, not the disk."""
    memory = Path("/dev/shm")
    root = memory / f"llm-training-cache-test-{os.getpid()}-{random.getrandbits(32):08x}" if memory.is_dir() else tmp_path / "place"
    root.mkdir()
    yield root
    shutil.rmtree(root, ignore_errors=True)


def build_all(root: Path, threads: int = 1) -> None:
    cache = ToyCache(root)
    cache.build(SLICES, threads=threads)
    cache.view(32)


def forked(root: Path, fault: str = "", kill_after: float | None = None, threads: int = 1) -> int:
    """Build in a forked child; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            forget_visits()
            os.environ["LLM_TRAINING_FAULT"] = fault
            build_all(root, threads)
            os._exit(0)
        finally:
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def assert_only_whole_chunks(cache: ToyCache) -> int:
    """Every record is of a whole file; returns how many there are."""
    try:
        store = cache.store()
    except IntegrityError as error:
        assert "no cache here" in error.what
        return 0
    assert store.problems(hashes=True) == []
    return len(store.records["train"])


@pytest.fixture
def expected(place):
    build_all(place / "whole")
    return ToyCache(place / "whole").files()


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_every_visit_of_every_crash_point_leaves_a_build_to_go_on_with(place, expected, point):
    for visit in range(1, 100):
        root = place / f"{point}-{visit}"
        status = forked(root, fault=f"{point}:kill@{visit}")
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert_only_whole_chunks(ToyCache(root))
        build_all(root)
        assert ToyCache(root).files() == expected
    assert visit > 1


def test_a_hundred_kills_at_random_moments_end_in_the_same_files(place, expected):
    began = time.monotonic()
    build_all(place / "timing")
    duration = time.monotonic() - began
    randomness = random.Random(20)
    kills, chunks_at_kill = 0, []
    while kills < 100:
        root = place / f"random-{kills}"
        # One to three kills in a row before the build is let to its end.
        for _ in range(randomness.randint(1, 3)):
            status = forked(root, kill_after=randomness.uniform(0, duration), threads=randomness.randint(1, 2))
            kills += status != 0
            chunks_at_kill.append(assert_only_whole_chunks(ToyCache(root)))
        build_all(root)
        assert ToyCache(root).files() == expected
        shutil.rmtree(root)
    print(f"{kills} kills, chunks there at a kill: {sorted(chunks_at_kill)}")
    assert any(0 < count < SLICES for count in chunks_at_kill)


def test_a_lock_of_a_dead_builder_is_taken_over(place):
    assert forked(place / "c", fault="cache.after_record:kill@2") != 0
    locks = list((place / "c" / "store").glob(".*.lock"))
    assert len(locks) == 1
    assert ToyCache(place / "c").build(SLICES).is_complete
    assert not locks[0].exists()


def small_build(root: Path) -> None:
    ToyCache(root).build(2, source=partial(open_toy, documents=4))


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC", "short write"])
def test_every_failing_call_of_a_build_leaves_metadata_that_describes_what_exists(place, kind):
    small_build(place / "whole")
    whole = ToyCache(place / "whole").files()

    def prepare() -> Path:
        shutil.rmtree(place / "c", ignore_errors=True)
        return place / "c"

    def check_done(root: Path) -> None:
        assert ToyCache(root).files() == whole

    calls = sweep(kind, prepare, small_build, lambda root: assert_only_whole_chunks(ToyCache(root)) and None, check_done)
    assert calls > (4 if kind == "short write" else 40)


def test_a_directory_that_cannot_be_written_is_exit_5(cache):
    cache.root.parent.mkdir(exist_ok=True)
    cache.root.write_bytes(b"a file where the cache should be")
    with pytest.raises(StorageError) as caught:
        cache.build(1)
    assert caught.value.exit_code == 5


def test_power_loss_leaves_nothing_recorded_that_is_not_there(place):
    root = place / "recorded"
    root.mkdir()
    small_build(root)
    recorder = Recorder(root)
    with installed(recorder):
        ToyCache(root).build(3, source=partial(open_toy, documents=4))
    count = 0
    for state in recorder.states():
        rebuilt = place / "state"
        state.build(rebuilt)
        store = ChunkStore.open(ToyCache(rebuilt).directory)
        assert store.problems(hashes=True) == []
        assert len(store.records["train"]) >= 2
        shutil.rmtree(rebuilt)
        count += 1
    print(f"{count} crash states")
    assert count > 50
