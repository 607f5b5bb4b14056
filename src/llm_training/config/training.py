"""The ``training`` section: length, batch, rates, precision, checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_training.config.section import Section

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["auto", "true", "false"]
Optimizer = Literal["muon", "adamw"]
Schedule = Literal["wsd", "cosine", "linear", "constant"]


class TrainingConfig(Section):
    """The run ends at the first of the lengths given; with none given it is planned for five minutes."""

    output_dir: Annotated[str | None, Field(description="directory of the run; empty: runs/<size>_<dataset>_<sequence length>_run_<n>")] = (
        None
    )
    run_name: Annotated[str | None, Field(max_length=200, description="name of the run; empty: the directory's name")] = None
    resume: Annotated[
        str, Field(min_length=1, description="auto (the newest valid checkpoint here), never, or the path of a checkpoint")
    ] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="seed of initialisation, data order and sampling")] = 42

    num_epochs: Annotated[float | None, Field(gt=0, le=1e6, description="passes over the data")] = None
    max_steps: Annotated[int | None, Field(ge=0, le=2**40, description="optimizer steps")] = None
    max_tokens: Annotated[int | None, Field(gt=0, le=2**60, description="training tokens")] = None
    max_training_hours: Annotated[float, Field(gt=0, le=100_000, description="hard limit, hours; stops with a checkpoint and exit 75")] = (
        12.0
    )
    time_budget_minutes: Annotated[
        float | None, Field(gt=0, le=1e7, description="plan the number of steps so that training takes this long, minutes")
    ] = None
    epoch_dataset_fraction: Annotated[float, Field(gt=0, le=1, description="share of the rows that an epoch takes, fraction")] = 1.0

    batch_size: Annotated[int | None, Field(gt=0, le=1_048_576, description="sequences per device per micro-batch; empty: chosen")] = None
    gradient_accumulation_steps: Annotated[
        int | None, Field(gt=0, le=1_048_576, description="micro-batches per step; empty: from global_batch_tokens")
    ] = None
    global_batch_tokens: Annotated[
        int | None, Field(gt=0, le=2**40, description="tokens per optimizer step over all ranks; empty: chosen")
    ] = None

    optimizer: Annotated[
        Optimizer | None, Field(description="muon (matrices; AdamW for the rest) or adamw; empty: muon, with model.init_from adamw")
    ] = None
    learning_rate: Annotated[float | None, Field(ge=0, le=10, description="peak rate of AdamW; empty: the optimizer's default")] = None
    muon_learning_rate: Annotated[float | None, Field(ge=0, le=10, description="peak rate of Muon; empty: its default")] = None
    embedding_learning_rate: Annotated[
        float | None,
        Field(
            ge=0,
            le=100,
            description="peak rate of AdamW for the embedding; empty: learning_rate, 15 times it where Muon trains a new untied one",
        ),
    ] = None
    min_learning_rate: Annotated[float, Field(ge=0, le=10, description="rate at the end of the schedule, in units of learning_rate's")] = (
        0.0
    )
    lr_schedule: Annotated[Schedule, Field(description="shape of the rate over the run")] = "wsd"
    warmup_steps: Annotated[int | None, Field(ge=0, le=2**40, description="steps of linear warm-up")] = None
    warmup_ratio: Annotated[float | None, Field(ge=0, le=1, description="warm-up as a share of the full estimate, else of the run")] = None
    lr_decay_steps: Annotated[int | None, Field(gt=0, le=2**40, description="step at which the decay ends; empty: the end of the run")] = (
        None
    )
    decay_fraction: Annotated[float, Field(ge=0, le=1, description="share of the run that wsd spends decaying, fraction")] = 0.6
    estimated_full_sequences: Annotated[
        int | None, Field(gt=0, le=2**50, description="rows expected once the dataset is complete (smart warm-up)")
    ] = None
    weight_decay: Annotated[
        float | None, Field(ge=0, le=10, description="decoupled weight decay of matrices; empty: the optimizer's default")
    ] = None
    beta1: Annotated[float | None, Field(ge=0, lt=1, description="AdamW first-moment decay; empty: the optimizer's default")] = None
    beta2: Annotated[float, Field(ge=0, lt=1, description="AdamW second-moment decay")] = 0.95
    eps: Annotated[float, Field(gt=0, le=0.1, description="AdamW epsilon")] = 1e-8
    muon_momentum: Annotated[float, Field(ge=0, lt=1, description="Muon momentum after its own warm-up")] = 0.95
    max_grad_norm: Annotated[
        float | None, Field(gt=0, le=1e9, description="gradient norm above which gradients are scaled down; empty: off")
    ] = 1.0

    precision: Annotated[Precision, Field(description="arithmetic of the forward and backward pass; auto probes")] = "auto"
    compile: Annotated[
        Compile, Field(description="torch.compile; auto: when a compiler is there and the run is long enough to pay for it")
    ] = "auto"

    logging_steps: Annotated[int, Field(gt=0, le=2**40, description="steps between records of the run log and plain console lines")] = 10
    eval_steps: Annotated[int | None, Field(gt=0, le=2**40, description="steps between evaluations; empty: ten in the run")] = None
    save_steps: Annotated[int | None, Field(gt=0, le=2**40, description="steps between checkpoints; empty: about every ten minutes")] = None
    save_total_limit: Annotated[int | None, Field(gt=0, le=1_000_000, description="checkpoints kept, the best among them; empty: all")] = 3
    max_skipped_steps: Annotated[
        int, Field(ge=1, le=1_000_000, description="consecutive non-finite steps before the run stops with exit 6")
    ] = 5
