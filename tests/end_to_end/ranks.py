"""Several ranks of the tiny run, forked from this warm process, and a record of what each one did."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from llm_training.errors import LlmTrainingError
from llm_training.events import Event, EventBus, StepCompleted
from llm_training.jobs.train import train
from llm_training.storage.faults import forget_visits
from llm_training.training.step import MicroBatch, StepOutcome, Stepper
from tests.end_to_end.tiny import digest

LONGEST_SECONDS = 150.0
PORTS = range(10_000, 30_000)


@dataclass
class RankRecord:
    """What one rank did.

    Attributes:
        code: its exit code.
        error: the line of the error that ended it, else empty.
        rows: hashes of the rows of each update, by completed step, in the order they were taken.
        losses, weights: loss, and hash of the weights after it, of each update.
        total_steps: of the result or, when it stopped early, of the last step seen.
        seconds: from start to end.
    """

    code: int = 0
    error: str = ""
    rows: dict[str, list[str]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    total_steps: int = 0
    seconds: float = 0.0


Work = Callable[[int, EventBus], object]


def free_port() -> int:
    """A port that nobody listens on now, below those that systems hand to outgoing connections.

    One of those could be taken meanwhile, even by a rank that asks for rank 0 too early and so connects to itself.
    """
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def run_ranks(size: int, folder: Path, work: Work) -> list[RankRecord]:
    """Run ``work`` on ``size`` forked ranks of one process group; no rank outlives the call. One that is killed has a negative code.

    Args:
        folder: where the ranks leave their records.
        work: gets the rank and a bus; it trains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = [_start(rank, size, port, folder / f"rank-{rank}.json", work) for rank in range(size)]
    deadline = time.monotonic() + LONGEST_SECONDS
    waiting, codes = dict(enumerate(children)), dict[int, int]()
    while waiting and time.monotonic() < deadline:
        for rank, child in list(waiting.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                del waiting[rank]
                codes[rank] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for child in waiting.values():
        os.kill(child, signal.SIGUSR1)  # where does it hang? its stacks go to standard error
        time.sleep(0.5)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    ended = {rank: (folder / f"rank-{rank}.json").read_text()[-500:] for rank in codes if codes[rank] == 0}
    assert not waiting, f"ranks {sorted(waiting)} hang; the others: {ended}"
    assert all(code <= 0 for code in codes.values()), f"a rank met a bug: {codes}"
    return [
        RankRecord(code=codes[rank]) if codes[rank] else RankRecord(**json.loads((folder / f"rank-{rank}.json").read_text()))
        for rank in range(size)
    ]


def run_one(work: Work) -> RankRecord:
    """The same work in this process, alone."""
    return _recorded(0, work)


def _start(rank: int, size: int, port: int, path: Path, work: Work) -> int:
    child = os.fork()
    if child:
        return child
    try:
        faulthandler.register(signal.SIGUSR1, file=2)
        forget_visits()
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
        path.write_text(json.dumps(vars(_recorded(rank, work))))
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(99)
    os._exit(0)


def _recorded(rank: int, work: Work) -> RankRecord:
    record, began = RankRecord(), time.monotonic()
    original = Stepper.run

    def run(self: Stepper, step: int, micro_batches: list[MicroBatch], rates: dict[str, float]) -> StepOutcome:
        outcome = original(self, step, micro_batches, rates)
        done = str(step + 1)
        record.rows[done] = [digest(*pair) for batch in micro_batches for pair in zip(batch.input_ids, batch.labels, strict=True)]
        record.losses[done] = outcome.loss_nats
        record.weights[done] = digest(*self.loss_module.parameters())
        return outcome

    def watch(event: Event) -> None:
        if isinstance(event, StepCompleted):
            record.total_steps = event.total_steps

    bus = EventBus()
    bus.subscribe(watch)
    with mock.patch.object(Stepper, "run", run):
        try:
            work(rank, bus)
        except LlmTrainingError as error:
            record.code, record.error = error.exit_code, str(error)
    record.seconds = time.monotonic() - began
    return record


def training(config_of: Callable[[int], Any], *, stop_rank: int | None = None, stop_step: int = 0) -> Work:
    """Work that trains the configuration of its rank; the rank ``stop_rank`` gets SIGTERM when ``stop_step`` completes."""

    def work(rank: int, bus: EventBus) -> None:
        original = Stepper.run

        def run(self: Stepper, step: int, *args: Any) -> StepOutcome:
            outcome = original(self, step, *args)
            if rank == stop_rank and step + 1 == stop_step:
                signal.raise_signal(signal.SIGTERM)
            return outcome

        with mock.patch.object(Stepper, "run", run):
            train(config_of(rank), bus=bus)

    return work
