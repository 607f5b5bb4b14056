"""What a run stands on, decided before its session opens and shared by the parts of the job."""

from __future__ import annotations

from dataclasses import dataclass

from llm_training.config.root import Config
from llm_training.events import EventBus
from llm_training.jobs.datasets import PreparedData
from llm_training.runtime.device import Device, Precision
from llm_training.runtime.signals import StopFlag
from llm_training.runtime.world import World
from llm_training.storage.runs import RunLayout
from llm_training.training.dial import Choice


@dataclass(frozen=True)
class RunContext:
    """Values only; whoever holds it may read everything and changes nothing."""

    device: Device
    precision: Precision
    world: World
    config: Config
    data: PreparedData
    choice: Choice
    layout: RunLayout
    bus: EventBus
    stop: StopFlag
