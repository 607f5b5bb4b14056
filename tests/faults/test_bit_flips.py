"""Every single-bit flip of every file of a small checkpoint is refused, or the tensors are provably the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from llm_training.checkpoint.load import load_model_tensors, load_optimizer_tensors, load_state, verify_checkpoint
from llm_training.checkpoint.snapshot import Snapshot
from llm_training.checkpoint.store import CheckpointStore
from llm_training.checkpoint.tensor_file import read_tensors
from llm_training.errors import IntegrityError


@pytest.mark.slow
def test_every_flipped_bit_of_a_checkpoint_is_seen(memory_path: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    model = {"w": torch.randn(6, 8, generator=generator), "b": torch.randn(8, generator=generator)}
    moments = {"w.m": torch.randn(6, 8, generator=generator), "w.v": torch.rand(6, 8, generator=generator)}
    store = CheckpointStore(memory_path)
    store.save(Snapshot(step=1, model_tensors=model, optimizer_tensors=moments, config={}, state={"step": 1}))
    ref = store.find()
    assert ref is not None
    num_flips = num_harmless = 0
    for path in sorted(entry for entry in ref.path.rglob("*") if entry.is_file()):
        content = path.read_bytes()
        descriptor = os.open(path, os.O_WRONLY)
        for offset, byte in enumerate(content):
            for bit in range(8):
                num_flips += 1
                os.pwrite(descriptor, bytes([byte ^ 1 << bit]), offset)
                try:
                    damaged = verify_checkpoint(ref.path)
                except IntegrityError:
                    continue
                num_harmless += 1
                assert all(torch.equal(tensor, model[name]) for name, tensor in load_model_tensors(damaged).items())
                assert all(torch.equal(tensor, moments[name]) for name, tensor in load_optimizer_tensors(damaged).items())
                assert load_state(damaged) == {"step": 1}
            os.pwrite(descriptor, bytes([byte]), offset)
        os.close(descriptor)
    print(f"{num_flips} flips, {num_flips - num_harmless} refused, {num_harmless} harmless")
    assert num_flips > 10_000
    verify_checkpoint(ref.path)


def test_flips_of_a_tensor_file_without_a_hash_never_escape_as_another_error(memory_path: Path) -> None:
    """A foreign file has no manifest: values may change unseen, but parsing ends in tensors or in an IntegrityError."""
    store = CheckpointStore(memory_path)
    store.save(Snapshot(step=1, model_tensors={"w": torch.ones(4, 3), "n": torch.arange(3)}, config={}))
    path = memory_path / "step-00000001" / "model.safetensors"
    content = path.read_bytes()
    for offset in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[offset] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                read_tensors(path)
            except IntegrityError as error:
                assert error.exit_code == 4
