"""The ranks of a run: one process on a laptop, or what torchrun started.

Values travel between ranks as tensors of numbers or as JSON bytes, never as pickles. Every process group has an
explicit time-out, so that a lost rank ends the others instead of leaving them waiting for half an hour.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from llm_training.errors import ConfigError, PeerError

PATIENCE = datetime.timedelta(days=1)


@dataclass(frozen=True)
class World:
    """This process's place among the ranks. ``size`` counts all ranks, ``local_size`` those on this machine.

    ``patient_group`` is a second process group with a time-out of a day, for ranks that wait while rank 0 prepares data.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    patient_group: object | None = None

    @property
    def is_main(self) -> bool:
        """True on rank 0, the only one that prints and writes artefacts."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Element-wise sum over ranks, in fp64."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=_collective_device())
        dist.all_reduce(tensor)
        return tensor.tolist()

    def any(self, is_true: bool) -> bool:
        """True on every rank when it is true on any."""
        return self.sum(float(is_true))[0] > 0

    def broadcast(self, value: object) -> object:
        """Rank 0's JSON-able value on every rank."""
        if self.size == 1:
            return value
        device = _collective_device()
        content = json.dumps(value).encode() if self.is_main else b""
        length = torch.tensor([len(content)], dtype=torch.int64, device=device)
        dist.broadcast(length, src=0)
        payload = torch.frombuffer(bytearray(content.ljust(int(length.item()), b"\0")), dtype=torch.uint8).to(device)
        dist.broadcast(payload, src=0)
        return json.loads(payload.cpu().numpy().tobytes())

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier()

    def wait_patiently(self) -> None:
        """Wait for every rank, for hours if need be: rank 0 may be tokenising a large corpus."""
        if self.patient_group is not None:
            dist.barrier(group=self.patient_group)  # type: ignore[arg-type]

    def require_equal(self, what: str, values: Mapping[str, object]) -> None:
        """Refuse to go on, on every rank, when ranks disagree about JSON-able values by name.

        Raises:
            ConfigError: naming what differs, on the ranks that differ from rank 0.
        """
        if self.size == 1:
            return
        theirs, mine = self.broadcast(values), json.loads(json.dumps(values))
        if not self.any(theirs != mine):
            return
        assert isinstance(theirs, dict)
        names = [name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)]
        found = ", ".join(f"{name}: {theirs.get(name)} on rank 0, {mine.get(name)} here" for name in sorted(names))
        raise ConfigError(
            f"ranks disagree about {what}" + (f" ({found})" if found else ""),
            where=f"rank {self.rank}",
            remedy="start all ranks with the same command",
        )


def _collective_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def read_world(environ: dict[str, str] | os._Environ[str] = os.environ) -> World:
    """The place torchrun (or a compatible launcher) gave this process, from its environment variables."""
    try:
        size = int(environ.get("WORLD_SIZE", "1"))
        return World(
            rank=int(environ.get("RANK", "0")),
            size=size,
            local_rank=int(environ.get("LOCAL_RANK", "0")),
            local_size=int(environ.get("LOCAL_WORLD_SIZE", str(size))),
        )
    except ValueError as error:
        raise ConfigError(
            f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({error})", where="environment", remedy="start with torchrun"
        ) from None


@contextlib.contextmanager
def process_group(world: World, *, backend: str, device_kind: str, timeout_seconds: float) -> Iterator[World]:
    """Join the process group for the block; a single process joins nothing.

    Raises:
        PeerError: the rendezvous failed or a rank was lost.
    """
    if world.size == 1:
        yield world
        return
    chosen = {"auto": "nccl" if device_kind == "cuda" else "gloo"}.get(backend, backend)
    address = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    try:
        dist.init_process_group(chosen, timeout=datetime.timedelta(seconds=timeout_seconds))
    except (RuntimeError, ValueError) as error:
        raise PeerError(
            f"rank {world.rank} could not join {world.size} ranks ({error})", where=address, remedy="check the launcher"
        ) from error
    try:
        yield replace(world, patient_group=dist.new_group(backend="gloo", timeout=PATIENCE))
    except RuntimeError as error:
        if "gloo" in str(error).lower() or "nccl" in str(error).lower() or "connection" in str(error).lower():
            raise PeerError(f"rank {world.rank} lost another rank ({error})", where=address, remedy="start again to resume") from error
        raise
    finally:
        dist.destroy_process_group()
