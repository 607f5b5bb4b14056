"""Rates of a run: peaks and constants of the optimizer, from the configuration, the model and what the run's start recorded."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from llm_training.config.root import Config
from llm_training.config.training import TrainingConfig
from llm_training.model import init
from llm_training.model.spec import ModelSpec
from llm_training.runtime.device import Precision
from llm_training.training.build import RateSettings
from llm_training.training.optimizers import OptimizerSettings

# Peak rates by optimizer. Muon's recipe and rates: Jordan et al. 2024; they hold here at widths 128 to 256
# (benchmarks/results/time_to_loss.json, default_job.json), their transfer to large widths is not measured. AdamW alone: the
# usual rates of small GPTs, falling with the width.
MUON_RATE, MUON_ADAMW_RATE, MUON_BETA1 = 0.03, 0.01, 0.8
# An embedding whose entries have size one hardly moves by AdamW's steps in a short run. Of 1, 5, 10, 15 and 40 times its rate
# 10 and 15 did best in the default job at equal steps, and 1 worst by far.
EMBEDDING_RATE_RATIO = 15.0
ADAMW_RATE, ADAMW_RATE_WIDTH, ADAMW_BETA1, ADAMW_WEIGHT_DECAY = 1e-3, 256, 0.9, 0.1
# Weights of another model are moved little; the usual order of magnitude for continuing them.
FINE_TUNING_RATE = 5e-5


def optimizer_settings(
    config: Config, precision: Precision, spec: ModelSpec, recorded: Mapping[str, float] | None = None
) -> OptimizerSettings:
    """Peaks and constants, the optimizer's own where nothing is given; of a run that goes on, the peaks it recorded.

    Without a choice a new model gets Muon, and weights of another model AdamW: Muon's rates are for training from scratch.
    """
    training, is_new = config.training, config.model.init_from is None
    name = training.optimizer or ("muon" if is_new else "adamw")
    is_muon = name == "muon"
    adamw_rate = ADAMW_RATE * min(1.0, ADAMW_RATE_WIDTH / spec.hidden_size) if is_new else FINE_TUNING_RATE
    ratio = EMBEDDING_RATE_RATIO if is_muon and is_new and init.has_unit_embedding(spec) else 1.0

    def peak(name: str, default: float) -> float:
        given = getattr(training, name)
        return (recorded or {}).get(name, default) if given is None else given

    rate = peak("learning_rate", MUON_ADAMW_RATE if is_muon else adamw_rate)
    return OptimizerSettings(
        name=name,
        learning_rate=rate,
        embedding_learning_rate=peak("embedding_learning_rate", ratio * rate),
        muon_learning_rate=peak("muon_learning_rate", MUON_RATE),
        weight_decay=(0.0 if is_muon else ADAMW_WEIGHT_DECAY) if training.weight_decay is None else training.weight_decay,
        beta1=(MUON_BETA1 if is_muon else ADAMW_BETA1) if training.beta1 is None else training.beta1,
        beta2=training.beta2,
        eps=training.eps,
        muon_momentum=training.muon_momentum,
        newton_schulz_dtype=torch.float32 if precision.name == "fp32" else torch.bfloat16,
    )


def recorded_rates(settings: OptimizerSettings) -> dict[str, float]:
    """The peaks as the start of a run records them, by the names of their fields."""
    return {name: getattr(settings, name) for name in ("learning_rate", "embedding_learning_rate", "muon_learning_rate")}


def rate_settings(training: TrainingConfig, optimizer: OptimizerSettings) -> RateSettings:
    """Peaks and floor for the schedule."""
    return RateSettings(
        training.lr_schedule,
        adamw_peak=optimizer.learning_rate,
        embedding_peak=optimizer.embedding_learning_rate,
        muon_peak=optimizer.muon_learning_rate,
        floor=training.min_learning_rate,
    )
