"""The ``tokenizer`` section: which tokenizer is loaded or trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llm_training.config.section import Section


class TokenizerConfig(Section):
    """A tokenizer is loaded when ``path`` is given, else trained once on the training documents of the first plan."""

    path: Annotated[
        str | None,
        Field(description="tokenizer.json, a directory (also vocab.json + merges.txt), a Hub name, or bytes; empty: train one"),
    ] = None
    vocab_size: Annotated[
        int | None, Field(ge=257, le=1_048_576, description="entries of the trained tokenizer; empty: chosen by the size dial")
    ] = None
    min_frequency: Annotated[int, Field(ge=1, le=1_000_000, description="occurrences a pair needs to be merged")] = 2
    max_training_bytes: Annotated[int, Field(ge=1_000, le=10**13, description="text the tokenizer is trained on at most, bytes")] = (
        16_000_000
    )
