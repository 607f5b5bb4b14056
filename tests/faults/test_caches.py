"""C-1 to C-12: chunks that are flipped, inflated or cut while they are read, builders that are killed, excluded or out of space."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm_training.__main__ import main
from llm_training.cache.files import LocalFiles
from llm_training.cache.remote_cache import RemoteCache
from llm_training.cache.remote_copy import RemoteCopy
from llm_training.cache.sealed import parse_sealed, write_sealed
from llm_training.cache.store import ChunkStore
from llm_training.cache.view import PackedView
from llm_training.errors import IntegrityError, StorageError
from llm_training.storage.faults import FAULT_VARIABLE, forget_visits
from llm_training.storage.remote import RemoteFolder
from tests.cache.toy import ToyCache
from tests.end_to_end.tiny import write_corpus
from tests.faults.commands import ROOT, as_nobody, in_a_process, kill_again_and_again, small_disk

# Small slices, so that a cache of a small corpus has several chunks.
SMALL_CHUNKS = ("--cache.chunk-bytes", "10000", "--sequence-length", "32", "--tokenizer", "bytes")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts", documents=160)


def build_words(texts: Path, cache: Path, *words: str) -> list[str]:
    return ["build-cache", str(texts), *SMALL_CHUNKS, "--cache-dir", str(cache), *words]


def build(texts: Path, cache: Path) -> Path:
    """A cache by the command; returns the directory of its store."""
    assert main(build_words(texts, cache)) == 0
    (metadata,) = (cache / "store").glob("*/cache_metadata.json")
    assert len(list(metadata.parent.glob("chunk_*.arrow"))) > 3
    return metadata.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix == ".arrow"}


class Flipping(LocalFiles):
    """Files of which one bit is not what it was."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._known: dict[Path, bytes] = {}

    def read(self, path: Path, num_bytes: int, sha256: str) -> bytes:
        """See `LocalFiles`."""
        if path not in self._known:
            self._known[path] = super().read(path, num_bytes, sha256)
        data = bytearray(self._known[path])
        data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return bytes(data)


def test_ten_thousand_flips_of_a_built_cache_are_all_seen(texts: Path, tmp_path: Path) -> None:
    """C-1: each names the file, and the hash found and expected."""
    directory = build(texts, tmp_path / "cache")
    rng = random.Random(1)
    store = ChunkStore.open(directory, Flipping(rng))
    (view_directory,) = (tmp_path / "cache" / "packed_sequences").glob("*/*")
    view = PackedView.open(view_directory, Flipping(rng))
    chunks = [(split, number) for split, records in store.records.items() for number in records]
    for _ in range(8_000):
        split, number = rng.choice(chunks)
        with pytest.raises(IntegrityError, match=rf"content hash is \w+, expected \w+; at .*chunk_{number:06d}\.arrow"):
            store.read(split, number)
    for _ in range(2_000):
        number = rng.choice(list(view.records))
        with pytest.raises(IntegrityError, match=rf"content hash is \w+, expected \w+; at .*packed_chunk_{number:06d}\.arrow"):
            view.read_plan(number)


def test_the_command_lists_all_damage_and_rebuilds_only_that(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C-1, C-2 and C-6: flipped, cut, exchanged, empty, missing; a stranger stays and is reported."""
    directory = build(texts, tmp_path / "cache")
    whole = contents(tmp_path / "cache")
    files = sorted(directory.glob("chunk_*.arrow"))
    flipped = bytearray(files[0].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    files[0].write_bytes(flipped)
    files[1].write_bytes(files[2].read_bytes())
    files[2].write_bytes(files[2].read_bytes()[:-1])
    files[3].unlink()
    (directory / "validation" / "chunk_000000.arrow").write_bytes(b"")
    (directory / "chunk_000999.arrow").write_bytes(b"not ours")
    untouched = {path: path.stat().st_ino for path in files[4:]}
    capsys.readouterr()
    assert main(build_words(texts, tmp_path / "cache", "--verify")) == 4
    said = capsys.readouterr().err
    assert "5 parts of the cache are damaged" in said and "expected" in said
    for path in files[:4]:
        assert path.name in said
    assert main(build_words(texts, tmp_path / "cache", "--mode", "inverse")) == 0
    shown = capsys.readouterr().out
    assert shown.count("repaired: ") == 5 and "ignored, not ours: chunk_000999.arrow" in shown
    assert (directory / "chunk_000999.arrow").read_bytes() == b"not ours"
    (directory / "chunk_000999.arrow").unlink()
    assert contents(tmp_path / "cache") == whole
    assert {path: path.stat().st_ino for path in files[4:]} == untouched
    assert main(build_words(texts, tmp_path / "cache", "--verify")) == 0


# C-3: 64 MB of zeros in a small file; the metadata believe a small size, or the file itself lies about the size of its buffers.
BOMB_PROGRAM = """
import json, struct, sys
from dataclasses import replace
import numpy as np
from llm_training.cache.arrow_file import declared_bytes
from llm_training.cache import chunk
from llm_training.cache.chunk import ChunkHeader, read_chunk, write_chunk
from llm_training.cache.encoding import TokenTable
from llm_training.errors import IntegrityError
from llm_training.storage.hashing import record_of
from tests.faults.source_memory import peak_bytes
compression, lie = sys.argv[1:]
header = ChunkHeader(0, "train", "t" * 64, 257, 256)

count, declared = 32_000_000, 1_000_000
chunk.PART_BYTES = 2 * count  # one buffer for all of it
table = TokenTable(["d"], ["s"], np.arange(1), np.array([count]), np.array([count]), np.zeros(count, dtype=np.uint16))
data, record = write_chunk(table, header, compression)
bomb = bytes(data)
del table, data
stated = struct.pack("<q", 2 * count)
assert bomb.count(stated) == 1
claimed = {"metadata": 2 * count, "low": 64, "2 GiB": 2**31, "2^63": 2**63 - 1}[lie]
forged = bomb.replace(stated, struct.pack("<q", claimed))
if lie == "low":  # the file agrees with its metadata: only decoding can tell
    declared = declared_bytes(forged)
record = replace(record, decoded_bytes=declared, num_tokens=declared // 4)
record = replace(record, num_bytes=len(forged), sha256=record_of(forged).digest)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
before = peak_bytes()
try:
    read_chunk(forged, record, header, "here")
except IntegrityError as error:
    said = str(error)
print(json.dumps({"grown": peak_bytes() - before, "declared": declared, "file": len(forged), "said": said}))
"""


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("lie", ["metadata", "low", "2 GiB", "2^63"])
def test_a_bomb_takes_no_more_memory_than_was_declared(compression: str, lie: str) -> None:
    """C-3: at most twice the declared size, and 4 MB for what Arrow allocates in blocks."""
    found = in_a_process(BOMB_PROGRAM, compression, lie)
    assert found["file"] < 400_000, found
    assert found["grown"] <= 2 * found["declared"] + 4_000_000, found
    assert found["said"], found


TINY_RUN = (
    "--hidden-size 16 --num-layers 1 --num-attention-heads 2 --max-steps 2 --batch-size 64 --threads 1 --no-plots --precision fp32 "
    "--evaluation.max-tokens 64 --evaluation.final-max-tokens 64 --evaluation.num-samples 0"
)


def test_lies_about_content_are_refused_before_a_step_is_made(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C-4: another size is built again as training opens the cache, another content is refused where its tokens would be used."""
    directory = build(texts, tmp_path / "cache")
    words = [
        "train",
        str(texts),
        *SMALL_CHUNKS[:-2],
        "--tokenizer.path",
        "bytes",
        "--cache-dir",
        str(tmp_path / "cache"),
        *TINY_RUN.split(),
        "--output-dir",
    ]
    files = sorted(directory.glob("chunk_*.arrow"))
    whole = [path.read_bytes() for path in files]
    for path, content in zip(files, whole, strict=True):
        path.write_bytes(content[:-8][::-1] + content[-8:])
    assert main([*words, str(tmp_path / "run")]) == 4
    assert "content hash is" in capsys.readouterr().err
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    for path, content in zip(files, whole, strict=True):
        path.write_bytes(content + b"\0")
    assert main([*words, str(tmp_path / "other")]) == 0
    assert [path.read_bytes() for path in files] == whole


CUTTER = """
import os, sys, time
from pathlib import Path
path = Path(sys.argv[1])
whole = path.read_bytes()
print("begun", flush=True)
while True:
    os.truncate(path, len(whole) // 3)
    time.sleep(0.002)
    path.write_bytes(whole)
    time.sleep(0.002)
"""


def test_a_chunk_that_another_process_cuts_while_it_is_read_kills_nobody(tmp_path: Path) -> None:
    """C-5: the tokens, or exit 4 or 5; a mapped file would end this process with SIGBUS."""
    cache = ToyCache(tmp_path / "cache")
    cache.build(2, source=_large)
    store = cache.store()
    expected = store.read("train", 1).tokens
    cutter = subprocess.Popen([sys.executable, "-c", CUTTER, str(cache.directory / "chunk_000001.arrow")], stdout=subprocess.PIPE)
    outcomes: dict[str, int] = {}
    try:
        assert cutter.stdout is not None and cutter.stdout.readline()
        stop = time.monotonic() + 2
        while time.monotonic() < stop:
            try:
                assert np.array_equal(store.read("train", 1).tokens, expected)
                outcome = "whole"
            except (IntegrityError, StorageError) as error:
                assert error.exit_code in (4, 5) and "chunk_000001.arrow" in str(error)
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        cutter.kill()
        cutter.wait()
        if cutter.stdout is not None:
            cutter.stdout.close()
    assert outcomes.get("whole", 0) and outcomes.get("IntegrityError", 0), outcomes


def _large():  # type: ignore[no-untyped-def]
    from tests.cache.toy import open_toy

    return open_toy(documents=200, size=20_000)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(3_000)])])
def test_a_command_killed_at_random_moments_ends_in_the_same_files(memory_path: Path, kills: int) -> None:
    """C-7: tokenizer, chunks, row plans and metadata."""
    texts = write_corpus(memory_path / "texts", documents=60)
    seed = int.from_bytes(os.urandom(4))
    words = ("build-cache", texts, "--cache.chunk-bytes", 10_000, "--sequence-length", 32, "--vocab-size", 300, "--cache-dir", "out")
    found = kill_again_and_again(memory_path, kills, seed, *words)
    print(found)
    assert found["wrong"] == [] and found["kills"] >= kills and found["found_begun"] > 0, (seed, found)


def test_a_second_builder_ends_with_exit_9_and_a_dead_one_is_taken_over(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C-8: by process id and start; how old the lock file looks decides nothing."""
    environment = os.environ | {FAULT_VARIABLE: "cache.after_chunk:sleep=60", "PYTHONPATH": f"{ROOT / 'src'}"}
    words = build_words(texts, tmp_path / "cache")
    first = subprocess.Popen([sys.executable, "-m", "llm_training", *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        while not (locks := [path for path in (tmp_path / "cache" / "store").glob(".*.lock") if path.stat().st_size]):
            assert first.poll() is None
            time.sleep(0.05)
        os.utime(locks[0], (0, 0))
        assert main(words) == 9
        assert f"process {first.pid}" in capsys.readouterr().err
        first.send_signal(signal.SIGSTOP)  # stopped is not dead
        assert main(words) == 9
    finally:
        first.kill()
        first.wait()
    os.utime(locks[0], None)
    assert main(words) == 0
    assert not locks[0].exists()


def describes_what_exists(cache: Path) -> int:
    """Every chunk of the metadata is whole; returns how many there are."""
    found = 0
    for metadata in (cache / "store").glob("[!.]*/cache_metadata.json"):
        store = ChunkStore.open(metadata.parent)
        assert store.problems(hashes=True) == []
        found += len(store.records["train"])
    return found


@pytest.mark.parametrize("leave", [0, 12_000, 40_000])
def test_a_full_disk_leaves_a_cache_to_go_on_with(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], leave: int) -> None:
    """C-10: a disk that is full, at once or after some chunks."""
    place = tmp_path / "disk"
    place.mkdir()
    build(texts, tmp_path / "whole")
    with small_disk(place, 1_000_000) as is_mounted:
        if not is_mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (leave // 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        else:
            (place / "cache").mkdir()
            with (place / "filler").open("wb", buffering=0) as file:
                file.write(bytes(os.statvfs(place).f_bavail * os.statvfs(place).f_frsize - leave))
        try:
            assert main(build_words(texts, place / "cache")) == 5
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error[" in line]
        assert "error[E05]" in line and (not is_mounted or "disk full" in line)
        describes_what_exists(place / "cache")
        (place / "filler").unlink(missing_ok=True)
        assert main(build_words(texts, place / "cache")) == 0
        assert contents(place / "cache") == contents(tmp_path / "whole")


def test_a_disk_that_cannot_be_written_leaves_the_cache_as_it_was(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C-10: mounted read-only under a cache that has a chunk missing; later the same command completes it."""
    place = tmp_path / "disk"
    place.mkdir()
    with small_disk(place, 8_000_000) as is_mounted:
        if not is_mounted:
            pytest.skip("mounting is not allowed here")
        directory = build(texts, place / "cache")
        whole = contents(place / "cache")
        (directory / "chunk_000001.arrow").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        capsys.readouterr()
        assert main(build_words(texts, place / "cache")) == 5
        assert "the file system is read-only" in capsys.readouterr().err
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        assert main(build_words(texts, place / "cache")) == 0
        assert contents(place / "cache") == whole


def test_a_cache_of_somebody_else_is_not_written(texts: Path, memory_path: Path) -> None:
    """C-10: no permission."""
    memory_path.chmod(0o755)
    sources = shutil.copytree(texts, memory_path / "texts")
    directory = build(sources, memory_path / "cache")
    (directory / "chunk_000001.arrow").unlink()
    for path in (memory_path / "cache").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (memory_path / "cache").chmod(0o555)
    before = contents(memory_path / "cache")
    assert as_nobody(build_words(sources, memory_path / "cache"), memory_path / "said") == 5
    said = (memory_path / "said").read_text()
    assert "error[E05]" in said and "permission denied" in said
    assert contents(memory_path / "cache") == before


def killed(action: Callable[[], object], fault: str) -> bool:
    """Run in a forked child with a fault; True when that killed it."""
    child = os.fork()
    if child == 0:
        try:
            forget_visits()
            os.environ[FAULT_VARIABLE] = fault
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("point", ["after_chunk", "after_record", "after_commit", "before_swap", "in_swap", "after_swap"])
def test_a_forced_rebuild_killed_anywhere_leaves_a_whole_cache(tmp_path: Path, point: str) -> None:
    """C-11: the old one until the swap, the new one after it."""
    cache = ToyCache(tmp_path / "cache")
    cache.build()
    cache.view(32)
    whole = cache.files()
    for visit in range(1, 20):
        if not killed(lambda: cache.build(mode="force_rebuild"), f"cache.{point}:kill@{visit}"):
            break
        assert cache.store().problems(hashes=True) == []
        cache.build()
        assert cache.store().problems(hashes=True) == []
        left = {name: data for name, data in cache.files().items() if ".rebuilding" not in name and not name.endswith(".lock")}
        assert left == whole
    assert visit > 1


@pytest.mark.parametrize("name", ["../../outside", "{}/outside", "a/../../../outside"])
def test_names_that_are_paths_lead_nowhere(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """C-12: a name that somebody gives becomes one inside the cache; one in the metadata is refused, sealed or not."""
    name = name.format(tmp_path)
    place = tmp_path / "a" / "cache"
    directory = build(texts, place)
    assert main(build_words(texts, place, "--dataset-name", name)) == 0
    assert sorted(path.name for path in tmp_path.rglob("*outside*") if not path.is_relative_to(place)) == []
    assert len(list((place / "store").glob("[!.]*"))) == 2, "the one without a name, and this"
    path = directory / "cache_metadata.json"
    content = parse_sealed(path.read_bytes(), path, "llm-training token store", 1)
    content["settings"]["dataset"] = name
    write_sealed(path, content)
    capsys.readouterr()
    assert main(build_words(texts, place, "--verify")) == 4
    assert "is no name of a dataset" in capsys.readouterr().err


def test_a_published_name_that_leads_out_of_the_copy_is_refused(tmp_path: Path) -> None:
    """C-12, for a cache of somebody else in a bucket."""
    remote = RemoteCache(RemoteCopy(RemoteFolder("memory://bucket/cache"), tmp_path / "copy", 1 << 20))
    for name in ("../outside.json", "plans/../../outside.json", "/outside.json", "plans//x.json"):
        with pytest.raises(IntegrityError, match="leads out of the cache"):
            remote.fetch(name)
    assert not list(tmp_path.rglob("*outside*"))


@pytest.mark.parametrize("damage", [b"", b'{"kind": NaN}', b'{"kind": "llm-training token store"', b"[" * 100_000])
def test_damaged_metadata_end_every_command_with_exit_4(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    """C-12: truncated, not JSON, too deep; and a link out of the cache is not followed."""
    directory = build(texts, tmp_path / "cache")
    whole = (directory / "cache_metadata.json").read_bytes()
    (directory / "cache_metadata.json").write_bytes(damage)
    capsys.readouterr()
    assert main(build_words(texts, tmp_path / "cache", "--verify")) == 4
    assert "cache_metadata.json" in capsys.readouterr().err
    (directory / "cache_metadata.json").write_bytes(whole)
    chunk = directory / "chunk_000001.arrow"
    chunk.rename(tmp_path / "elsewhere.arrow")
    chunk.symlink_to(tmp_path / "elsewhere.arrow")
    assert main(build_words(texts, tmp_path / "cache", "--verify")) == 4
    assert "chunk_000001.arrow" in capsys.readouterr().err
