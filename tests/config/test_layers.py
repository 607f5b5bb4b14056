"""Precedence, origins and the environment (RELIABILITY G-3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_training.config.load import load_config
from llm_training.errors import ConfigError


def test_each_layer_wins_over_those_before(empty_directory: Path) -> None:
    (empty_directory / "config").mkdir()
    (empty_directory / "config" / "default.yaml").write_text(
        "training:\n  seed: 1\n  beta1: 0.1\n  beta2: 0.1\n  eps: 1e-5\n  max_steps: 11\n"
    )
    (empty_directory / "first.yaml").write_text("seed: 2\nbeta1: 0.2\nbeta2: 0.2\neps: 1e-6\n")
    (empty_directory / "second.toml").write_text("seed = 3\nbeta1 = 0.3\nbeta2 = 0.3\n")
    loaded = load_config(
        ["./first.yaml", "./second.toml"],
        {"LLM_TRAINING__TRAINING__SEED": "4", "LLM_TRAINING__TRAINING__BETA1": "0.4"},
        [("seed", "5")],
    )
    training = loaded.config.training
    assert (training.seed, training.beta1, training.beta2, training.eps, training.max_steps) == (5, 0.4, 0.3, 1e-6, 11)
    assert [str(loaded.origin(f"training.{name}")) for name in ("seed", "beta1", "beta2", "eps", "max_steps", "optimizer")] == [
        "command line --seed",
        "environment LLM_TRAINING__TRAINING__BETA1",
        "second.toml:3",
        "first.yaml:4",
        "config/default.yaml:6",
        "default",
    ]
    assert load_config([], None, [("seed", "5")], {"training.seed": 6}).config.training.seed == 6


def test_a_value_that_a_later_layer_replaces_is_not_judged(empty_directory: Path) -> None:
    (empty_directory / "a.yaml").write_text("batch_size: 0\nseed: x\n")
    assert load_config(["./a.yaml"], {}, [("batch_size", "4"), ("seed", "1")]).config.training.batch_size == 4


def test_spellings_of_different_layers_are_one_field(empty_directory: Path) -> None:
    """A file's hidden_size and a variable's d_model meet in one name before they are merged."""
    (empty_directory / "a.yaml").write_text("hidden_size: 64\n")
    loaded = load_config(["./a.yaml"], {"LLM_TRAINING__MODEL__D_MODEL": "128"})
    assert loaded.config.model.hidden_size == 128


def test_default_file_named_as_well_is_read_once(empty_directory: Path) -> None:
    (empty_directory / "config").mkdir()
    (empty_directory / "config" / "default.yaml").write_text("seed: 1\n")
    assert str(load_config(["default"]).origin("training.seed")) == "config/default.yaml:1"


def test_names_in_config_come_before_presets(empty_directory: Path) -> None:
    (empty_directory / "config").mkdir()
    (empty_directory / "config" / "small_model.toml").write_text("seed = 9\n")
    assert load_config(["small_model"]).config.training.seed == 9


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("LLM_TRAINING__TRAINING__BATCHSIZE", "did you mean LLM_TRAINING__TRAINING__BATCH_SIZE?"),
        ("LLM_TRAINING_BATCHSIZE", "did you mean LLM_TRAINING__TRAINING__BATCH_SIZE?"),
        ("LLM_TRAINING_TRAINING_BATCH_SIZE", "did you mean LLM_TRAINING__TRAINING__BATCH_SIZE?"),
        ("LLM_TRAINING__TRAINING_SEED", "LLM_TRAINING__TRAINING__SEED"),
        ("LLM_TRAINING__", "unknown variable"),
        ("LLM_TRAINING__XYZZY__QUUX", "unknown variable LLM_TRAINING__XYZZY__QUUX"),
        ("LLM_TRAINING__MAX_TOKENS", "write the section too"),
    ],
)
def test_unknown_variables_are_refused_with_the_nearest(variable: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(environ={variable: "3", "LLM_TRAINING_FAULT": "x", "PATH": "/bin"})
    (line,) = caught.value.lines()
    assert expected in line and "environment" in line


def test_lists_and_switches_from_the_environment() -> None:
    loaded = load_config(
        environ={
            "LLM_TRAINING__DATA__SOURCES": '["a, b", "c"]',
            "LLM_TRAINING__DATA__VALIDATION_SOURCES": "v.txt",
            "LLM_TRAINING__MODEL__GRADIENT_CHECKPOINTING": "yes",
            "LLM_TRAINING__BATCH_SIZE": "3",
        }
    )
    assert loaded.config.data.sources == ["a, b", "c"]
    assert loaded.config.data.validation_sources == ["v.txt"]
    assert loaded.config.model.gradient_checkpointing is True
    assert loaded.config.training.batch_size == 3


@pytest.mark.parametrize(("value", "level"), [("debug", "DEBUG"), ("warn", "WARNING"), ("critical", "ERROR"), ("", "INFO")])
def test_log_level_as_everyone_spells_it(value: str, level: str) -> None:
    assert load_config(environ={"LOG_LEVEL": value}).config.monitoring.log_level == level


def test_own_variable_wins_over_log_level() -> None:
    loaded = load_config(environ={"LOG_LEVEL": "debug", "LLM_TRAINING__MONITORING__LOG_LEVEL": "ERROR"})
    assert loaded.config.monitoring.log_level == "ERROR"


def test_problems_of_all_layers_come_together(empty_directory: Path) -> None:
    (empty_directory / "a.yaml").write_text("bach_size: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(["./a.yaml"], {"LLM_TRAINING__SEED": "x"}, [("d_modl", "1")], {"training.eps": 0.0})
    assert len(caught.value.lines()) == 4


def test_assignment_is_checked_like_construction() -> None:
    config = load_config().config
    config.training.batch_size = 8
    for value in (0, True, "many"):
        with pytest.raises(ValueError):
            config.training.batch_size = value
    assert config.training.batch_size == 8
