"""Worker processes: their death, and what is left when their parent dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.cache.toy import open_toy

from llm_training.errors import PeerError


@pytest.fixture
def importable(monkeypatch, repository):
    monkeypatch.syspath_prepend(repository)


def dying_source():
    read, encoder = open_toy()
    return lambda number: read(number) if number < 3 else os._exit(9), encoder


def test_a_dead_worker_is_an_error_and_the_build_goes_on_afterwards(cache, importable):
    with pytest.raises(PeerError, match="a worker process died; it may have run out of memory"):
        cache.build(5, workers=2, source=dying_source)
    built_before = set(cache.store().records["train"])
    assert built_before <= {0, 1, 2}
    assert set(cache.build(5).built) == {0, 1, 2, 3, 4} - built_before


ENDLESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.cache.test_workers import hanging_source
from tests.cache.toy import ToyCache
if __name__ == "__main__":
    ToyCache(Path(sys.argv[2])).build(4, workers=2, source=hanging_source)
"""


def hanging_source():
    Path(os.environ["STARTED"], str(os.getpid())).touch()
    return lambda number: time.sleep(60), open_toy()[1]


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(cache, tmp_path, repository):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    started = tmp_path / "started"
    started.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(repository), str(cache.root)], env={**os.environ, "STARTED": str(started)})
    deadline = time.monotonic() + 30
    while len(list(started.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in started.iterdir()]
    parent.kill()
    parent.wait()
    assert len(workers) == 2
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=5)
    assert not alive
