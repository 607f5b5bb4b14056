"""Sources with weights and caps: one spelling, two ways to write it, and nothing that is taken for it by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_training.config.load import load_config
from llm_training.config.mixture import SourceEntry, parse_source
from llm_training.config.show import describe
from llm_training.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("books/", SourceEntry("books/")),
        ("books/#weight=2", SourceEntry("books/", 2.0)),
        ("books/#weight=2.5,max_epochs=3", SourceEntry("books/", 2.5, 3.0)),
        ("books/#max_epochs=1e1,weight=.5", SourceEntry("books/", 0.5, 10.0)),
        ("hf:wikitext:wikitext-2-raw-v1@train#weight=1", SourceEntry("hf:wikitext:wikitext-2-raw-v1@train", 1.0)),
        ("s3://bucket/a#b/c.txt#weight=1", SourceEntry("s3://bucket/a#b/c.txt", 1.0)),
        ("notes#weight=2#weight=3", SourceEntry("notes#weight=2", 3.0)),
        ("a#b", SourceEntry("a#b")),
        ("a#weight", SourceEntry("a#weight")),
        ("a#weight=2/b", SourceEntry("a#weight=2/b")),
        ("a@weight=2", SourceEntry("a@weight=2")),
        ("a#heavy=2", SourceEntry("a#heavy=2")),
    ],
)
def test_what_is_a_suffix_and_what_a_path(text: str, expected: SourceEntry) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "", "two", "1e999"])
@pytest.mark.parametrize("name", ["weight", "max_epochs"])
def test_numbers_are_above_zero(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"data.sources": [f"a#{name}={value}", "b"]})
    assert any(f"whose {name} is" in line and "must be a number > 0" in line for line in caught.value.problems)


def test_a_source_is_given_once_and_says_a_thing_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"data.sources": ["a#weight=1", "a#weight=2"]})
    assert "holds 'a' twice" in str(caught.value.problems)
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"data.sources": ["a#weight=1,weight=2"]})
    assert "one thing twice" in str(caught.value.problems)
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"data.sources": ["#weight=1"]})
    assert "names no source" in str(caught.value.problems)


YAML = """
data:
  sources:
    - {uri: books/, weight: 2, max_epochs: 3}
    - uri: web/
      weight: 0.5
    - plain.txt
    - {uri: "x y.txt", max_epochs: null}
"""
JSON = """{"data": {"sources": [{"uri": "books/", "weight": 2, "max_epochs": 3},
    {"uri": "web/", "weight": 0.5}, "plain.txt", {"uri": "x y.txt"}]}}"""
TOML = 'data = {sources = [{uri = "books/", weight = 2, max_epochs = 3}, {uri = "web/", weight = 0.5}, "plain.txt", {uri = "x y.txt"}]}'


@pytest.mark.parametrize(("suffix", "text"), [("yaml", YAML), ("json", JSON), ("toml", TOML)])
def test_mappings_of_files_mean_the_same_and_read_back(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"mixture.{suffix}"
    path.write_text(text)
    loaded = load_config([str(path)])
    assert loaded.config.data.sources == ["books/#weight=2,max_epochs=3", "web/#weight=0.5", "plain.txt", "x y.txt"]
    again = tmp_path / "again.yaml"
    again.write_text(describe(loaded))
    assert load_config([str(again)]).config == loaded.config


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("{uri: a, wieght: 2}", "a mapping with unknown wieght"),
        ("{weight: 2}", "a mapping with no uri"),
        ("{uri: a, weight: heavy}", "whose weight is 'heavy' but must be a number > 0"),
        ("{uri: a, weight: '1/2'}", "whose numbers cannot be read"),
        ("{uri: a, weight: [1]}", "holds a mapping but must be a list of texts"),
    ],
)
def test_wrong_mappings_are_told_with_their_line(tmp_path: Path, item: str, said: str) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text(f"data:\n  sources:\n    - {item}\n")
    with pytest.raises(ConfigError) as caught:
        load_config([str(path)])
    line = str(caught.value.problems)
    assert "data.sources holds" in line
    assert said in line.replace("\\'", "'")
    assert "mixture.yaml:2" in line


def test_other_lists_take_no_mappings(tmp_path: Path) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text("data:\n  validation_sources:\n    - {uri: a}\n")
    with pytest.raises(ConfigError, match=r"data\.validation_sources holds a mapping but must be a list of texts"):
        load_config([str(path)])
