"""P-9, C-10, R-10: a disk that is really full. Nothing is lost, the message has both numbers, and later it works."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
import torch
from llm_training.checkpoint.load import load_model_tensors
from llm_training.checkpoint.snapshot import Snapshot
from llm_training.checkpoint.store import CheckpointStore
from llm_training.errors import StorageError
from llm_training.storage.append import JsonlAppender, read_jsonl
from llm_training.storage.durable import write_bytes

place, is_async = Path(sys.argv[1]), sys.argv[2] == "async"
filler = place / "filler"
store = CheckpointStore(place / "checkpoints")

def snapshot(step):
    return Snapshot(step=step, model_tensors={"w": torch.full((75_000,), float(step))}, config={}, state={"step": step})

def save(step):
    if is_async:
        store.save_async(snapshot(step))
        store.wait()
    else:
        store.save(snapshot(step))

save(1)
log = JsonlAppender(place / "log.jsonl")
log.append({"step": 1})
if sys.argv[3] == "fill":
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
else:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
def save_with_too_little_left():
    import os
    os.truncate(filler, filler.stat().st_size - 75 * 4096)  # the weights fit, the small files do not
    save(2)

errors = []
if sys.argv[3] == "fill":
    try:
        save_with_too_little_left()
    except StorageError as error:
        assert "not enough space" not in str(error) and "disk full" in str(error), error
    else:
        raise AssertionError("it fitted")
    with filler.open("ab", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
for attempt in (lambda: save(2), lambda: write_bytes(place / "file", bytes(200_000)), lambda: log.append({"x": "y" * 200_000})):
    try:
        attempt()
    except StorageError as error:
        errors.append(str(error))
assert len(errors) == 3, errors
print(errors[0])
ref = store.find(strict=True)
assert ref.step == 1 and float(load_model_tensors(ref)["w"][0]) == 1.0
assert not [entry for entry in (place / "checkpoints").iterdir() if entry.name.startswith(".tmp-")]
assert not (place / "file").exists()
if sys.argv[3] == "fill":
    filler.unlink()
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append({"step": 2})
assert [record["step"] for record in read_jsonl(place / "log.jsonl")] == [1, 2]
save(2)
assert store.find(strict=True).step == 2
"""


def run(place: Path, mode: str, how: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(place), mode, how], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["blocking", "async"])
def test_a_full_disk_loses_nothing(tmp_path: Path, mode: str) -> None:
    """On a file system of 2 MB where mounting is allowed, else under a limit on file size."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], capture_output=True).returncode == 0
    if not mounted:
        assert "limit on file size" in run(tmp_path, mode, "limit")
        return
    try:
        output = run(tmp_path, mode, "fill")
        assert "disk full" in output and "free" in output and "300.0 kB needed" in output, output
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_limit_on_file_size_loses_nothing(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("the limit on file size is set from outside")
    assert "limit on file size" in run(tmp_path, "blocking", "limit")
