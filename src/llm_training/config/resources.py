"""The ``resources`` section: the devices a run uses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_training.config.section import Section


class ResourcesConfig(Section):
    """Device, threads and process group."""

    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Field(description="where the model runs")] = "auto"
    threads: Annotated[int, Field(ge=0, le=4_096, description="CPU threads; 0: the cores this process may use")] = 0
    distributed_backend: Annotated[Literal["auto", "nccl", "gloo"], Field(description="collectives; auto: nccl on cuda, else gloo")] = (
        "auto"
    )
    world_size: Annotated[int | None, Field(gt=0, le=1_000_000, description="ranks the launcher must have started; empty: as started")] = (
        None
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400, description="longest wait for another rank, seconds")] = 120.0
