"""Bad files: each gives exit 2, says where, and shows no traceback (RELIABILITY G-2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_training.config.load import load_config
from llm_training.errors import ConfigError

BOMB = "a: &a [x, x]\n" + "".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9))

# name of the file, bytes, what the first line must contain
BAD_FILES = [
    ("alias_bomb.yaml", BOMB.encode(), "unknown field a; at"),
    ("many_aliases.yaml", b"a: &a x\nsources: [" + b"*a, " * 101 + b"]\n", "more than 100 aliases; at many_aliases.yaml:2"),
    ("cycle.yaml", b"data: &d\n  sources: [*d]\n", "data.sources holds a mapping"),
    ("self.yaml", b"data: &d {sources: *d}\n", "data.sources is a mapping"),
    ("no_anchor.yaml", b"batch_size: *x\n", "no_anchor.yaml:1"),
    ("duplicate.yaml", b"seed: 1\nseed: 2\n", "seed is given twice, first on line 1; at duplicate.yaml:2"),
    ("duplicate_inner.yaml", b"training:\n  seed: 1\n  seed: 2\n", "seed is given twice, first on line 2; at duplicate_inner.yaml:3"),
    ("duplicate_section.yaml", b"training: {seed: 1}\ntraining: {seed: 2}\n", "training is given twice"),
    ("tab.yaml", b"training:\n\tseed: 1\n", "tab.yaml:2:1; indent with spaces"),
    ("python_tag.yaml", b"seed: !!python/object/apply:os.system ['id']\n", "the tag"),
    ("python_name.yaml", b"seed: !!python/name:os.system\n", "the tag"),
    ("own_tag.yaml", b"seed: !env SEED\n", "the tag !env is not accepted"),
    ("str_tag.yaml", b"run_name: !!str 007\n", "is not accepted; write a plain value"),
    ("merge.yaml", b"base: &b {seed: 1}\ntraining:\n  <<: *b\n", "merge keys"),
    ("two_documents.yaml", b"seed: 1\n---\nseed: 2\n", "second document"),
    ("list.yaml", b"- seed\n- 1\n", "a mapping of names to values, not a list"),
    ("word.yaml", b"seed", "a mapping of names to values, not a single value"),
    ("complex_key.yaml", b"? [a, b]\n: 1\n", "a name is needed before the colon"),
    ("null_key.yaml", b"~: 1\n", "unknown field ~"),
    ("empty_key.yaml", b"'': 1\n", "a name is needed"),
    ("unclosed.yaml", b"training: {seed: 1\n", "not valid YAML"),
    ("quote.yaml", b"run_name: 'x\n", "not valid YAML"),
    ("deep.yaml", b"a: " + b"[" * 5000, "nested deeper than 20"),
    ("deep_block.yaml", "".join(f"{' ' * i}a:\n" for i in range(50)).encode(), "nested deeper than 20"),
    ("control.yaml", b"run_name: a\x07b\n", "not valid YAML"),
    ("nul.yaml", b"seed: 1\0\n", "not valid YAML"),
    ("binary.yaml", bytes(range(256)), "binary.yaml"),
    ("latin1.yaml", "run_name: café\n".encode("latin-1"), "not UTF-8 text (byte 0xe9 at offset 13)"),
    ("utf16.yaml", "seed: 1\n".encode("utf-16"), "not UTF-8 text (byte 0xff at offset 0)"),
    ("large.yaml", b"# " + b"x" * 10_000_000, "a configuration at most 1,048,576"),
    ("octal.yaml", b"seed: 017\n", "could be octal; write 17 or 0o17; at octal.yaml:1"),
    ("section_word.yaml", b"training: fast\n", "training is a section, not a value"),
    ("section_list.yaml", b"training: [seed]\n", "training is a section, not a value"),
    ("flat_mapping.yaml", b"batch_size: {a: 1}\n", "batch_size is a mapping"),
    ("typo.yaml", b"training:\n  batchsize: 8\n", "unknown field training.batchsize; at typo.yaml:2; did you mean training.batch_size?"),
    ("typo_flat.yaml", b"hiden_size: 8\n", "unknown field hiden_size; at typo_flat.yaml:1; did you mean model.hidden_size?"),
    ("typo_section.yaml", b"trainig: {seed: 1}\n", "unknown field trainig; at typo_section.yaml:1"),
    ("wrong_section.yaml", b"training: {hidden_size: 8}\n", "did you mean model.hidden_size?"),
    ("ambiguous.yaml", b"max_tokens: 8\n", "training.max_tokens or evaluation.max_tokens"),
    ("two_names.yaml", b"d_model: 8\nn_embd: 8\n", "given twice, as d_model at two_names.yaml:1 and as n_embd at two_names.yaml:2"),
    ("two_places.yaml", b"seed: 1\ntraining: {seed: 1}\n", "training.seed is given twice"),
    ("long_key.yaml", b"x" * 1_000 + b": 1\n", "unknown field xxx"),
    ("truncated.json", b'{"seed": 1', "truncated.json:1:11"),
    ("trailing.json", b'{"seed": 1,}', "a comma before the closing brace"),
    ("comment.json", b'{"seed": 1} // x', "text after the end"),
    ("single_quotes.json", b"{'seed': 1}", "double quotes"),
    ("duplicate.json", b'{"seed": 1,\n"seed": 2}', "seed is given twice; at duplicate.json:2:1"),
    ("array.json", b"[1]", "an object of names and values"),
    ("nan.json", b'{"lr": NaN}', "training.learning_rate is nan"),
    ("infinity.json", b'{"lr": 1e999}', "training.learning_rate is inf"),
    ("digits.json", b'{"seed": 1' + b"0" * 5000 + b"}", "too many digits"),
    ("deep.json", b'{"seed": ' + b"[" * 100_000, "deep.json:1"),
    ("surrogate.json", b'{"run_name": "\\ud800"}', "valid Unicode"),
    ("typo.json", b'{\n "training": {\n  "batchsize": 8}}', "at typo.json:3; did you mean training.batch_size?"),
    ("bad.toml", b"seed = \n", "not valid TOML"),
    ("duplicate.toml", b"seed = 1\nseed = 2\n", "not valid TOML"),
    ("deep.toml", b"seed = " + b"[" * 20_000, "deep.toml"),
    ("date.toml", b"seed = 2024-01-01\n", "training.seed is a date"),
    ("typo.toml", b"[training]\nseed = 1\nbatchsize = 8\n", "at typo.toml:3; did you mean training.batch_size?"),
    ("nested.toml", b"[training.optimizer]\nname = 'adamw'\n", "training.optimizer is a mapping"),
    ("settings.ini", b"seed = 1\n", "of no known type"),
]


@pytest.mark.parametrize(("name", "data", "expected"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_bad_file_is_one_clear_error(empty_directory: Path, name: str, data: bytes, expected: str) -> None:
    (empty_directory / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config([f"./{name}"])
    lines = list(caught.value.lines())
    assert caught.value.exit_code == 2
    assert expected in lines[0]
    assert name in lines[0]
    assert all(len(line) < 400 and line.isprintable() for line in lines)


def test_utf8_byte_order_mark_is_no_part_of_the_text(empty_directory: Path) -> None:
    for name, text in (("a.yaml", "seed: 7\n"), ("a.json", '{"seed": 7}'), ("a.toml", "seed = 7\n")):
        (empty_directory / name).write_bytes(text.encode("utf-8-sig"))
        assert load_config([f"./{name}"]).config.training.seed == 7


@pytest.mark.parametrize("name", ["empty.yaml", "empty.json", "empty.toml", "comment.yaml", "null.yaml"])
def test_a_file_that_says_nothing_changes_nothing(empty_directory: Path, name: str) -> None:
    (empty_directory / name).write_text({"comment.yaml": "# nothing\n", "null.yaml": "~\n"}.get(name, ""))
    assert not load_config([f"./{name}"]).origins


def test_missing_file_names_the_nearest_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean --config small_model"):
        load_config(["smal_model"])
    with pytest.raises(ConfigError, match=r"no configuration 'nowhere/x\.yaml'"):
        load_config(["nowhere/x.yaml"])


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 5000 + "x.yaml", "nul\0.yaml"])
def test_impossible_paths_are_missing_files(name: str) -> None:
    with pytest.raises(ConfigError):
        load_config([name])


def test_folders_and_pipes_are_not_files(empty_directory: Path) -> None:
    (empty_directory / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(["./folder.yaml"])
    if hasattr(os, "mkfifo"):
        os.mkfifo(empty_directory / "pipe.yaml")
        with pytest.raises(ConfigError, match="not a regular file"):
            load_config(["./pipe.yaml"])


def test_a_file_one_may_not_read(empty_directory: Path) -> None:
    (empty_directory / "link.yaml").symlink_to("link.yaml")
    with pytest.raises(ConfigError):
        load_config(["./link.yaml"])
