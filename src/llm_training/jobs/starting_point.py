"""What a run's model begins as: a new shape with random weights, or another model's weights (``model.init_from``)."""

from __future__ import annotations

from llm_training.checkpoint.layout import CONFIG_FILE
from llm_training.checkpoint.load import load_model_directory
from llm_training.config.root import Config
from llm_training.errors import ConfigError
from llm_training.jobs import planning
from llm_training.jobs.models import locate_model
from llm_training.model.families import load_hf_tensors
from llm_training.model.hf_config import from_hf_config
from llm_training.model.init import initialise
from llm_training.model.spec import ModelSpec
from llm_training.model.transformer import Transformer
from llm_training.storage.reading import read_json
from llm_training.training.dial import Choice


def choose_spec(config: Config, choice: Choice, vocab_size: int) -> ModelSpec:
    """The architecture of the run: that of ``model.init_from``, else what is configured or dialled.

    Raises:
        ConfigError: the shape is impossible, the tokenizer does not fit it, or rows are longer than the model's context.
        IntegrityError: the directory to start from cannot be trusted or read.
    """
    if config.model.init_from is None:
        return planning.build_spec(config, choice, vocab_size)
    place = locate_model(config.model.init_from)
    if config.model.size != "auto":
        raise ConfigError(
            f"model.size is {config.model.size}, but model.init_from decides the shape", where=str(place), remedy="leave model.size out"
        )
    spec = from_hf_config(read_json(place / CONFIG_FILE), attention=config.model.attention)
    length = config.cache.sequence_length or choice.sequence_length
    if vocab_size > spec.vocab_size:
        raise ConfigError(
            f"the tokenizer has {vocab_size} entries, the model to start from {spec.vocab_size}",
            where=str(place),
            remedy="leave tokenizer.path empty to take the model's own tokenizer",
        )
    if length > spec.max_seq_len:
        raise ConfigError(
            f"cache.sequence_length is {length}, the model to start from reads {spec.max_seq_len} tokens",
            where=str(place),
            remedy=f"set cache.sequence_length to {spec.max_seq_len} or less",
        )
    return spec


def fill(model: Transformer, config: Config) -> None:
    """Give a model its first weights, in place. Raises IntegrityError when those to start from do not fit."""
    if config.model.init_from is None:
        initialise(model, seed=config.training.seed)
    else:
        load_hf_tensors(model, load_model_directory(locate_model(config.model.init_from)))
