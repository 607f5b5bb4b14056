"""The whole configuration of a run: one class per section, and the checks that span sections."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from llm_training.config.cache import CacheConfig
from llm_training.config.data import DataConfig
from llm_training.config.evaluation import EvaluationConfig
from llm_training.config.export import ExportConfig
from llm_training.config.mixture import source_problems
from llm_training.config.model import ModelConfig
from llm_training.config.monitoring import MonitoringConfig
from llm_training.config.resources import ResourcesConfig
from llm_training.config.section import Section
from llm_training.config.serving import ServingConfig
from llm_training.config.tokenizer import TokenizerConfig
from llm_training.config.training import TrainingConfig


class CrossCheckError(ValueError):
    """Fields that are right alone and wrong together; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class Config(Section):
    """Everything a run is. Only the top of the program sees this class; the rooms below take their own section or plain values."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    cache: CacheConfig = Field(default_factory=CacheConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    monitoring: MonitoringConfig = Field(default_factory=MonitoringConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    serving: ServingConfig = Field(default_factory=ServingConfig)

    @model_validator(mode="after")
    def _check_across_sections(self) -> Config:
        problems = cross_check(self)
        if problems:
            raise CrossCheckError(problems)
        return self


def cross_check(config: Config) -> list[str]:
    """Bounds that span fields, each a line that begins with the dotted name of the field to change."""
    model, training, cache = config.model, config.training, config.cache
    found: list[str] = [f"data.sources {problem}" for problem in source_problems(config.data.sources)]
    if model.hidden_size and model.num_attention_heads and not model.head_dim and model.hidden_size % model.num_attention_heads:
        found.append(f"model.num_attention_heads={model.num_attention_heads} does not divide model.hidden_size={model.hidden_size}")
    if model.num_attention_heads and model.num_key_value_heads and model.num_attention_heads % model.num_key_value_heads:
        found.append(
            f"model.num_key_value_heads={model.num_key_value_heads} does not divide model.num_attention_heads={model.num_attention_heads}"
        )
    if model.max_seq_len and cache.sequence_length and cache.sequence_length > model.max_seq_len:
        found.append(f"cache.sequence_length={cache.sequence_length} exceeds model.max_seq_len={model.max_seq_len}")
    if training.warmup_steps is not None and training.warmup_ratio is not None:
        found.append("training.warmup_ratio and training.warmup_steps are both given; give one")
    if training.warmup_steps is not None and training.max_steps is not None and training.warmup_steps > training.max_steps > 0:
        found.append(f"training.warmup_steps={training.warmup_steps} exceeds training.max_steps={training.max_steps}")
    if training.learning_rate is not None and training.min_learning_rate > training.learning_rate:
        found.append(f"training.min_learning_rate={training.min_learning_rate} exceeds training.learning_rate={training.learning_rate}")
    if training.global_batch_tokens and training.gradient_accumulation_steps:
        found.append("training.global_batch_tokens and training.gradient_accumulation_steps are both given; give one")
    return found
