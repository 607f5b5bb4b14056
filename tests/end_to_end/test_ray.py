"""Preparing data and building a cache on a real Ray cluster: the same bytes, the same errors, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llm_training.cache import ray_workers
from llm_training.cache.ray_actor import Worker
from llm_training.cache.ray_workers import in_ray
from llm_training.errors import ConfigError, DataError, PeerError
from llm_training.jobs import prepare as prepare_job
from llm_training.storage.faults import FAULT_VARIABLE
from tests.jobs.test_cleaning import contents, write_corpus

SLICE_BYTES = 60_000
PREPARE = ("prepare-data", "texts", "--skip-bad", "--max-bad-fraction", "0.1", "--vocab-size", "400")
BUILD = (
    *("build-cache", "texts", "--chunk-bytes", "60000", "--vocab-size", "400", "--sequence-length", "64", "--cleaning", "gopher"),
    *("--max-bad-fraction", "0.5"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with texts of a dozen slices; no cluster is named."""
    (tmp_path / "texts").mkdir()
    for number in range(3):
        write_corpus(tmp_path / "texts" / f"{number}.jsonl", seed=number, count=200)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(prepare_job, "_SLICE_BYTES", SLICE_BYTES)
    return tmp_path


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One cluster of two CPUs for this module."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown(wait_for_processes=True)


@dataclass(frozen=True)
class Squares:
    """A job that writes its results; 13 cannot be done, 66 kills, 99 forgets to write."""

    folder: Path

    def files(self, number: int) -> Sequence[Path]:
        return [self.folder / str(number)]

    def open(self):
        def run(number: int) -> int:
            time.sleep(0.2 if number % 2 == 0 else 0)
            if number == 13:
                raise DataError("thirteen", where="the sky", remedy="leave it out")
            if number == 66:
                os._exit(9)
            if number != 99:
                (self.folder / str(number)).touch()
            return number * number

        return run


@pytest.mark.slow
def test_results_come_in_order_and_what_came_before_a_failure_is_not_lost(session, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_workers, "_FILE_SECONDS", 0.5)
    lines: list[str] = []
    numbers = [4, 3, 8, 1, 2, 5, 7]
    expected = [(number, number**2) for number in numbers]
    assert list(in_ray(Squares(tmp_path), numbers, 5, notify=lines.append)) == expected  # more than there are CPUs
    assert lines == ["5 workers on the Ray cluster of this process"]
    for bad, kind, message in (
        (13, DataError, "thirteen; at the sky; leave it out"),
        (66, PeerError, "a worker on the Ray cluster was lost .* use fewer workers; the same command goes on"),
        (99, PeerError, "a file written there is not here: .*99; at the Ray node .*; the sources, the output and the cache must lie"),
    ):
        seen = []
        with pytest.raises(kind, match=message):
            for number, _ in in_ray(Squares(tmp_path), [2, bad, 4, 6], 0):
                seen.append(number)
        assert seen == [2]
    with pytest.raises(PeerError, match=r"there is no folder .*nowhere there; at the Ray node"):
        list(in_ray(Squares(tmp_path / "nowhere"), [1], 1))


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_this_machine(session, here, monkeypatch, capsys):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    ways = {"one": ("--workers", "1"), "two": ("--workers", "2"), "ray": ("--engine", "ray")}
    for name, flags in ways.items():
        assert run(*PREPARE, "--keep-dropped", f"{name}/gone", "--output", f"{name}/out", *flags) == 0
        builders = [flag.replace("--workers", "--cache.workers") for flag in flags]
        assert run(*BUILD, "--cache.dir", f"{name}/cache", *builders) == 0
    found = {name: contents(here / name) for name in ways}
    assert found["one"] == found["two"] == found["ray"]
    assert sum(name.endswith(".arrow") for name in found["ray"]) > 5 and "out/train.json" in found["ray"]
    written = capsys.readouterr().out
    assert written.count("on the Ray cluster of this process") == 2

    outcomes = set()
    for flags in ways.values():
        code = run("prepare-data", "texts", "--output", "strict", *flags)
        outcomes.add((code, capsys.readouterr().err.splitlines()[-1]))
    ((code, line),) = outcomes
    assert code == 3 and line.startswith("error[E03]: ") and "0.jsonl" in line


@pytest.mark.slow
def test_waiting_for_a_busy_cluster_is_said(session, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray_workers, "_PATIENCE_SECONDS", 0.5)
    busy = ray.remote(num_cpus=2)(Busy).remote()
    ray.get(busy.is_there.remote())
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        if "waiting" in line:
            ray.kill(busy)

    assert list(in_ray(Squares(tmp_path), [1, 3], 0, notify=listen)) == [(1, 1), (3, 9)]
    assert lines[1] == "waiting for free CPUs of the Ray cluster"


class Busy:
    def is_there(self) -> bool:
        return True


def run(*words: str) -> int:
    from llm_training.__main__ import main

    return main(list(words))


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray needs the package ray; pip install 'llm-training\[cluster\]'"):
        list(in_ray(Squares(tmp_path), [1], 1))


def test_a_node_with_another_version_is_refused(tmp_path):
    with pytest.raises(PeerError, match=r"llm-training is .* there, and 0\.0\.9 here; at the Ray node .*; install the same version"):
        Worker().open(Squares(tmp_path), tmp_path, [tmp_path], "0.0.9")


PROGRAM = f"""
import sys
from llm_training.__main__ import main
from llm_training.jobs import prepare
prepare._SLICE_BYTES = {SLICE_BYTES}
sys.exit(main(sys.argv[1:]))
"""


def start(repository: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """A command in a process of its own, in the working directory."""
    path = os.pathsep.join([str(repository / "src"), str(repository)])
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env=inherited | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("words", [(*PREPARE, "--output", "out"), BUILD], ids=["prepare", "build"])
@pytest.mark.slow
def test_an_unreachable_cluster_is_one_line(here, repository, words):
    running = start(repository, *words, "--engine", "ray", RAY_ADDRESS="127.0.0.1:9")
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 7
    (line,) = [line for line in errors.splitlines() if "error[" in line]
    assert line.startswith("error[E07]: there is no Ray cluster (") and "RAY_ADDRESS=127.0.0.1:9; start it" in line
    assert "Traceback" not in errors and "gcs" not in errors


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of our own for Ray's files, with a path short enough for sockets."""
    folder = Path(f"/tmp/llm-training-ray-{os.getpid()}")
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The servers and workers of clusters in a folder; Ray's own agents end within two minutes of them, and hold nothing of ours."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line or ("ray::" in line and (process.info["environ"] or {}).get("RAY_TMPDIR") == str(folder)):
            found += [] if "Agent" in line else [process]
    return found


def workers_of(folder: Path) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if "ray::Worker" in " ".join(process.info["cmdline"] or ())]


def require_gone(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def expect(running: subprocess.Popen[str], code: int) -> tuple[str, str]:
    out, errors = running.communicate(timeout=180)
    assert running.returncode == code, errors
    return out, errors


@pytest.mark.nightly
def test_a_killed_command_leaves_no_workers_and_is_gone_on_with(here, repository, ray_folder):
    for name, words in (("prepare", PREPARE), ("build", BUILD)):
        place, done = ("--output", "out") if name == "prepare" else ("--cache.dir", "cache"), here / name
        done.mkdir()
        words = [*words, place[0], str(done / place[1]), "--engine"]
        expect(start(repository, *words, "local"), 0)
        expected = contents(done)
        shutil.rmtree(done)
        done.mkdir()
        running = start(repository, *words, "ray")
        pattern = "slice-*.account.json" if name == "prepare" else "chunk_*.arrow"
        while not list(done.rglob(pattern)):
            assert running.poll() is None
            time.sleep(0.01)
        assert any("raylet" in " ".join(process.info["cmdline"] or ()) for process in processes_of(ray_folder)) and workers_of(ray_folder)
        running.kill()
        running.communicate()
        assert contents(done) != expected
        require_gone(ray_folder)
        out, _ = expect(start(repository, *words, "ray", "--json"), 0)
        assert json.loads(out)
        assert contents(done) == expected
        require_gone(ray_folder)


@pytest.mark.nightly
def test_a_dead_worker_and_signals_end_in_a_line(here, repository, ray_folder):
    running = start(repository, *PREPARE, "--output", "out", "--engine", "ray", "--json", **{FAULT_VARIABLE: "prepare.after_slice:kill@2"})
    out, errors = expect(running, 7)
    (line,) = [line for line in errors.splitlines() if "error[" in line]
    assert line.startswith("error[E07]: a worker on the Ray cluster was lost (") and out == ""
    require_gone(ray_folder)
    assert [path.name for path in (ray_folder / "ray").iterdir()] == ["session_latest"]
    (ray_folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")  # of a cluster that is gone
    running = start(repository, *PREPARE, "--output", "interrupted", "--engine", "ray")
    while not list((here / "interrupted").rglob("slice-*.account.json")):
        assert running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, errors = expect(running, 130)
    assert errors.splitlines()[-1] == "error[E130]: interrupted" and "Traceback" not in errors
    require_gone(ray_folder)
    smaller = [word.replace("60000", "10000") for word in BUILD]
    running = start(repository, *smaller, "--cache.dir", "stopped", "--engine", "ray")
    while not list((here / "stopped").rglob("chunk_*.arrow")):
        assert running.poll() is None
        time.sleep(0.005)
    running.terminate()
    _, errors = expect(running, 75)
    assert errors.splitlines()[-1].startswith("error[E75]: stopped by SIGTERM while packing; the same command builds on")
    require_gone(ray_folder)
    deep = here / ("d" * 100)
    deep.mkdir()
    _, errors = expect(start(repository, *PREPARE, "--output", "interrupted", "--engine", "ray", RAY_TMPDIR=str(deep)), 7)
    assert errors.startswith("error[E07]: no Ray cluster could be reached or started (") and "set RAY_TMPDIR" in errors


def ray_command(*words: str, prefix: Sequence[str] = (), **options: object) -> None:
    ray = Path(sys.executable).with_name("ray")
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    subprocess.run([*prefix, str(ray), *words], check=True, capture_output=True, timeout=120, env=environment, **options)  # type: ignore[call-overload]


def stop_cluster(folder: Path) -> None:
    """`ray stop` would stop all clusters of the machine."""
    for process in processes_of(folder):
        process.kill()


@pytest.mark.nightly
def test_a_cluster_that_is_there_is_used_and_left(here, repository, ray_folder, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository / "src"), str(repository)]))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    try:
        ray_command("start", "--head", "--num-cpus=3", "--port=0", "--include-dashboard=false", "--disable-usage-stats", cwd=elsewhere)
        for flags, workers in ((("--workers", "2"), 2), ((), 3)):
            out, _ = expect(start(repository, *PREPARE, "--output", f"out{workers}", "--engine", "ray", *flags), 0)
            assert f"cleaning with {workers} workers on the Ray cluster at " in out
        assert contents(here / "out2") == contents(here / "out3")
        running = start(repository, *PREPARE, "--output", "killed", "--engine", "ray")
        while not list((here / "killed").rglob("slice-*.account.json")):
            assert running.poll() is None
            time.sleep(0.01)
        assert workers_of(ray_folder)
        running.kill()
        running.communicate()
        deadline = time.monotonic() + 20
        while workers_of(ray_folder) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not workers_of(ray_folder)
        expect(start(repository, *PREPARE, "--output", "killed", "--engine", "ray"), 0)
        assert contents(here / "killed") == contents(here / "out2")
    finally:
        stop_cluster(ray_folder)


MOUNTED = 'mount -t tmpfs none "$0" && exec "$@"'


@pytest.mark.nightly
def test_machines_that_do_not_share_our_files_are_named(here, repository, ray_folder, monkeypatch):
    """The cluster lives in a mount name space of its own, in which the output folder is another one."""
    can = subprocess.run(["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0"', str(here)], capture_output=True)
    if can.returncode:
        pytest.skip("needs the right to make a mount name space")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository / "src"), str(repository)]))
    (here / "out").mkdir()
    try:
        prefix = ("unshare", "-m", "sh", "-c", MOUNTED, str(here / "out"))
        ray_command("start", "--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--disable-usage-stats", prefix=prefix)
        _, errors = expect(start(repository, *PREPARE, "--output", "out", "--engine", "ray"), 7)
        assert "there is no folder out/.cleaning there; at the Ray node" in errors and "all machines of the cluster share" in errors
    finally:
        stop_cluster(ray_folder)
