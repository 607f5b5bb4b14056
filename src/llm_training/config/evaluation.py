"""The ``evaluation`` section: what is measured on held-out text during and after training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llm_training.config.section import Section


class EvaluationConfig(Section):
    """Held-out loss during training, final figures and samples after it."""

    batch_size: Annotated[
        int | None,
        Field(gt=0, le=1_048_576, description="sequences per forward pass; empty: the training micro-batch, 16 for the final figures"),
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(gt=0, le=2**60, description="held-out tokens of an evaluation within training; empty: half a percent of the run's tokens"),
    ] = None
    final_max_tokens: Annotated[
        int | None, Field(gt=0, le=2**60, description="held-out tokens of the final figures; empty: 1,000,000 or all")
    ] = None
    num_samples: Annotated[int, Field(ge=0, le=1_000, description="texts written after training")] = 2
    sample_tokens: Annotated[int, Field(gt=0, le=1_000_000, description="length of a sample, tokens")] = 200
    prompt: Annotated[str, Field(max_length=1_000_000, description="beginning of every sample; empty: start of a document")] = ""
    temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature; 0 takes the likeliest token")] = 0.9
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus of the sampling distribution, probability")] = 0.95
