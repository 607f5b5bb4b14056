"""The ``cache`` section: how token chunks are stored, packed and grown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_training.config.section import Section

PackingStrategy = Literal["best_fit", "first_fit", "greedy", "none"]
Compression = Literal["lz4", "zstd", "none"]
Growth = Literal["resume", "live", "off"]
DocumentAttention = Literal["auto", "true", "false"]


class CacheConfig(Section):
    """The packed token cache, shared by runs."""

    dir: Annotated[
        str, Field(min_length=1, description="directory of the cache, shared by runs; or s3://bucket/prefix of a published one")
    ] = "cache"
    name: Annotated[str | None, Field(description="name of the dataset in the cache; empty: from the sources")] = None
    sequence_length: Annotated[
        int | None, Field(ge=2, le=1_048_576, description="targets per row, tokens; empty: chosen by the size dial")
    ] = None
    packing_strategy: Annotated[PackingStrategy, Field(description="how documents fill rows")] = "best_fit"
    document_attention: Annotated[
        DocumentAttention,
        Field(description="attention stays inside a document, positions restart; auto: where it pays, see docs/training.md"),
    ] = "auto"
    compression: Annotated[
        Compression | None, Field(description="compression of the chunks; empty: that of the cache, lz4 for a new one")
    ] = None
    chunk_bytes: Annotated[int, Field(ge=10_000, le=2**31 - 1, description="text per chunk, bytes")] = 8_388_608
    workers: Annotated[
        int,
        Field(
            ge=0,
            le=1_024,
            description="processes that build chunks; 0: one, or one per core above 1 GB and 2 cores; on a Ray cluster one per CPU",
        ),
    ] = 0
    growth: Annotated[
        Growth,
        Field(description="resume: take in new chunks when a run resumes; live: also while it trains; off: keep the recorded total"),
    ] = "resume"
    growth_check_steps: Annotated[int, Field(ge=1, description="with growth live: steps between two looks for new chunks")] = 50
    read_threads: Annotated[
        int, Field(ge=0, le=256, description="threads that read and decode chunks ahead of training; 0: when they are needed")
    ] = 1
    prefetch_steps: Annotated[int, Field(ge=0, le=1_024, description="batches made ready ahead; 0: in the training thread")] = 2
    memory_bytes: Annotated[int, Field(ge=1_000_000, description="decoded rows kept in memory at most, bytes")] = 536_870_912
    local_copy_dir: Annotated[str, Field(min_length=1, description="directory for fetched parts of a remote cache")] = (
        "~/.cache/llm-training/remote"
    )
    local_copy_bytes: Annotated[
        int, Field(ge=0, description="fetched parts of a remote cache kept on the disk at most, bytes; the longest unused go")
    ] = 20_000_000_000
    validation: Annotated[bool, Field(description="check sizes and hashes of every chunk when the cache is opened")] = False
