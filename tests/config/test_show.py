"""``--print-config``: a file that reads back equal, with the origin of each value."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm_training.config.files import preset_names
from llm_training.config.load import load_config
from llm_training.config.show import describe, plain_yaml, yaml_value
from llm_training.config.yaml_text import read_yaml


@pytest.mark.parametrize("name", preset_names())
def test_printed_configuration_reads_back_equal(empty_directory: Path, name: str) -> None:
    loaded = load_config([name], {"LLM_TRAINING__TRAINING__SEED": "7"}, [("run_name", "a: b # c"), ("data_dir", "d e/")])
    for text in (describe(loaded), plain_yaml(loaded.config)):
        (empty_directory / "again.yaml").write_text(text, encoding="utf-8")
        assert load_config(["./again.yaml"]).config == loaded.config


def test_each_value_has_its_origin() -> None:
    text = describe(load_config([], {"LLM_TRAINING__TRAINING__SEED": "7"}, [("d-model", "64")]))
    assert "  seed: 7  # environment LLM_TRAINING__TRAINING__SEED\n" in text
    assert "  hidden_size: 64  # command line --d-model\n" in text
    assert "  batch_size: null  # default\n" in text


def test_an_origin_cannot_break_its_line(empty_directory: Path) -> None:
    name = "new\nline: #.yaml"
    (empty_directory / name).write_text("seed: 3\n")
    text = describe(load_config([f"./{name}"]))
    (empty_directory / "again.yaml").write_text(text, encoding="utf-8")
    assert load_config(["./again.yaml"]).config.training.seed == 3


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(text: str) -> None:
    (setting,) = read_yaml(f"key: {yaml_value(text)}\n", "x")
    assert setting.value == text
    assert yaml.safe_load(f"key: {yaml_value(text)}\n") == {"key": text}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_a_number_to_every_reader(number: float) -> None:
    assert yaml.safe_load(yaml_value(number)) == number
