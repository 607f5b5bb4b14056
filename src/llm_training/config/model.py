"""The ``model`` section: which decoder-only transformer is built."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_training.config.section import Section

AttentionBackend = Literal["auto", "flash", "flex", "sdpa", "eager"]
Family = Literal["qwen3", "llama", "gpt2"]


SIZE_PATTERN = r"^(auto|\d+(\.\d+)?[KMB])$"


class ModelConfig(Section):
    """Shape of the transformer. A shape field left empty is chosen by ``size``."""

    family: Annotated[Family, Field(description="architecture, the Hugging Face one of that name")] = "qwen3"
    size: Annotated[
        str,
        Field(
            pattern=SIZE_PATTERN,
            description="auto (what this machine, time budget and data carry best) or a parameter count such as 10M",
        ),
    ] = "auto"
    init_from: Annotated[str | None, Field(description="Hugging Face directory or checkpoint whose weights training starts from")] = None
    hidden_size: Annotated[int | None, Field(gt=0, le=65_536, description="width of the residual stream, channels")] = None
    num_layers: Annotated[int | None, Field(gt=0, le=1_024, description="transformer blocks")] = None
    num_attention_heads: Annotated[int | None, Field(gt=0, le=1_024, description="query heads per block")] = None
    num_key_value_heads: Annotated[int | None, Field(gt=0, le=1_024, description="key and value heads per block (grouped-query)")] = None
    head_dim: Annotated[int | None, Field(gt=0, le=1_024, description="channels of one head; default hidden_size / heads")] = None
    intermediate_size: Annotated[int | None, Field(gt=0, le=1_048_576, description="width of the feed-forward layer, channels")] = None
    vocab_size: Annotated[int | None, Field(gt=0, le=16_777_216, description="entries; empty: the tokenizer's (else it must equal it)")] = (
        None
    )
    max_seq_len: Annotated[int | None, Field(gt=0, le=1_048_576, description="longest context, tokens; empty: cache.sequence_length")] = (
        None
    )
    rope_theta: Annotated[float, Field(gt=0, le=1e12, description="base of the rotary position frequencies")] = 10_000.0
    norm_eps: Annotated[float | None, Field(gt=0, le=0.1, description="epsilon of the norms; empty: the family's own")] = None
    tie_embeddings: Annotated[bool | None, Field(description="share input embedding and output head; empty: the family's own")] = None
    activation: Annotated[
        Literal["silu", "gelu", "gelu_new", "relu"] | None, Field(description="feed-forward activation; empty: the family's own")
    ] = None
    pre_norm: Annotated[Literal[True], Field(description="norm before attention and feed-forward; the only order built")] = True
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout on embeddings and residual branches, fraction (gpt2 family)")] = 0.0
    attention_dropout: Annotated[float, Field(ge=0, lt=1, description="dropout on attention weights, fraction")] = 0.0
    attention: Annotated[AttentionBackend, Field(description="attention kernel; auto probes the device")] = "auto"
    gradient_checkpointing: Annotated[bool, Field(description="recompute activations in the backward pass to save memory")] = False
