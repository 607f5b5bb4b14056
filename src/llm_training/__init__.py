"""The public names, resolved when first asked for; importing the package costs next to nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_training.cli.train import main_job as main
    from llm_training.config.cache import CacheConfig
    from llm_training.config.data import DataConfig
    from llm_training.config.data import DataConfig as DatasetConfig
    from llm_training.config.evaluation import EvaluationConfig
    from llm_training.config.load import Loaded, load_config
    from llm_training.config.model import ModelConfig
    from llm_training.config.monitoring import MonitoringConfig
    from llm_training.config.resources import ResourcesConfig
    from llm_training.config.root import Config
    from llm_training.config.tokenizer import TokenizerConfig
    from llm_training.config.training import TrainingConfig
    from llm_training.corpus.sources.connector import DataSourceConnector, DataSourceConnectorOutput
    from llm_training.errors import (
        ConfigError,
        DataError,
        IntegrityError,
        Interrupted,
        LlmTrainingError,
        LockedError,
        MemoryLimitError,
        NumericError,
        PeerError,
        StoppedEarly,
        StorageError,
    )
    from llm_training.events import EventBus
    from llm_training.jobs.preparation_pipeline import DataPreparationPipeline

_HOMES = {
    "main": ("llm_training.cli.train", "main_job"),
    "Config": ("llm_training.config.root", "Config"),
    "Loaded": ("llm_training.config.load", "Loaded"),
    "load_config": ("llm_training.config.load", "load_config"),
    "DatasetConfig": ("llm_training.config.data", "DataConfig"),
    "EventBus": ("llm_training.events", "EventBus"),
    "DataPreparationPipeline": ("llm_training.jobs.preparation_pipeline", "DataPreparationPipeline"),
    "DataSourceConnector": ("llm_training.corpus.sources.connector", "DataSourceConnector"),
    "DataSourceConnectorOutput": ("llm_training.corpus.sources.connector", "DataSourceConnectorOutput"),
    **{
        f"{section.capitalize()}Config": (f"llm_training.config.{section}", f"{section.capitalize()}Config")
        for section in ("model", "tokenizer", "data", "cache", "training", "evaluation", "monitoring", "resources")
    },
    **{
        name: ("llm_training.errors", name)
        for name in (
            "LlmTrainingError",
            "ConfigError",
            "DataError",
            "IntegrityError",
            "StorageError",
            "NumericError",
            "PeerError",
            "MemoryLimitError",
            "LockedError",
            "StoppedEarly",
            "Interrupted",
        )
    },
}

__all__ = [
    "CacheConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataError",
    "DataPreparationPipeline",
    "DataSourceConnector",
    "DataSourceConnectorOutput",
    "DatasetConfig",
    "EvaluationConfig",
    "EventBus",
    "IntegrityError",
    "Interrupted",
    "LlmTrainingError",
    "Loaded",
    "LockedError",
    "MemoryLimitError",
    "ModelConfig",
    "MonitoringConfig",
    "NumericError",
    "PeerError",
    "ResourcesConfig",
    "StoppedEarly",
    "StorageError",
    "TokenizerConfig",
    "TrainingConfig",
    "load_config",
    "main",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
