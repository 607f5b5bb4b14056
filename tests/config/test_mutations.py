"""Of 20,000 mutations of a valid configuration, only the documented error escapes the loader (RELIABILITY G-4).

The mutator knows the structure: it changes values, keys, nesting and single bytes, in the three formats, and feeds words
and variables as well. The seed is fixed and printed with the input when anything else escapes.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.faults.memory import memory_directory

from llm_training.config.load import load_config
from llm_training.config.names import dotted_spellings, flat_spellings
from llm_training.config.root import Config
from llm_training.config.show import plain_yaml
from llm_training.errors import ConfigError

SEED = 20_260_101
NUM_MUTATIONS = 20_000
SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**40, 0.0, -0.0, 1e-4, 1e308, float("nan"), float("inf"), -float("inf"),
    "", " ", "no", "yes", "null", "~", "017", "0x", "0o", "1e", "1e-4", "1e9999", "--", "- -", "[", "]", "{}", "[[", '["a"',
    "auto", "none", "true", "\x00", "\t", "\n", "\r\n", "\x85", "\ufeff", "\ufffe", "\u2028", "é", "🙂", "۳",
    "a" * 3000, "9" * 5000, "*x", "&x", "!t", "!!int x",
    "%YAML 1.1", "---", "...", "? x", ": x", "# x", "<<", "@", "`", "|", ">", "'", '"', "\\", "\\u0000", "../../etc/passwd",
]  # fmt: skip
BYTES = b"\x00\t\n\r :-?[]{},#&*!|>'\"%@`~.\\/eE+0179xX_\x7f\x80\xc3\xe2\xed\xa0\xef\xbb\xbf\xf0\xff"


@pytest.mark.parametrize(
    ("seed", "number_of_mutations"), [(SEED, NUM_MUTATIONS), pytest.param(None, 20 * NUM_MUTATIONS, marks=pytest.mark.nightly)]
)
def test_only_the_documented_error_escapes(seed: int | None, number_of_mutations: int, tmp_path: Path) -> None:
    with memory_directory(tmp_path) as directory:
        _throw_mutations(directory, time.time_ns() if seed is None else seed, number_of_mutations)


def _throw_mutations(directory: Path, seed: int, number_of_mutations: int) -> None:
    chance = random.Random(seed)
    valid = [plain_yaml(Config()).encode(), _small().encode(), json.dumps(_tree(chance, valid=True)).encode(), _toml().encode()]
    suffixes = ["yaml", "yaml", "json", "toml"]
    accepted = 0
    began = time.perf_counter()
    for number in range(number_of_mutations):
        which = chance.randrange(4)
        data, suffix = _mutate(chance, valid[which], suffixes[which])
        environ, cli = _words(chance)
        path = directory / f"m.{suffix}"
        path.write_bytes(data)
        try:
            loaded = load_config([str(path)], environ, cli)
        except ConfigError as error:
            lines = error.lines()
            assert lines and all("\n" not in line for line in lines), (number, data)
        except BaseException as error:
            pytest.fail(f"mutation {number} of seed {seed}: {type(error).__name__}: {error}\n{suffix}: {data[:2000]!r}\n{environ} {cli}")
        else:
            accepted += 1
            assert isinstance(loaded.config, Config)
    seconds = time.perf_counter() - began
    print(f"{number_of_mutations} mutations, {accepted} still valid, {number_of_mutations / seconds:,.0f} a second")
    assert number_of_mutations * 0.02 < accepted < number_of_mutations * 0.8  # the mutator neither hits nothing nor breaks everything


def _mutate(chance: random.Random, valid: bytes, suffix: str) -> tuple[bytes, str]:
    kind = chance.randrange(4)
    if kind == 0:
        return _mutate_bytes(chance, valid), suffix
    if kind == 1:
        return _mutate_lines(chance, valid), suffix
    tree = _tree(chance)
    if suffix == "json" or kind == 2:
        return json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass"), "json"
    return _as_yaml(chance, tree).encode("utf-8", "surrogatepass"), "yaml"


def _mutate_bytes(chance: random.Random, valid: bytes) -> bytes:
    data = bytearray(valid)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(data) + 1)
        action = chance.randrange(4)
        if action == 0:
            data[at:at] = bytes([chance.choice(BYTES)])
        elif action == 1 and at < len(data):
            data[at] = chance.choice(BYTES)
        elif action == 2:
            del data[at : at + chance.choice((1, 1, 4, 100))]
        elif at < len(data):
            data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


def _mutate_lines(chance: random.Random, valid: bytes) -> bytes:
    lines = valid.split(b"\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    action = chance.randrange(5)
    if action == 0:
        lines.insert(at, lines[other])
    elif action == 1:
        del lines[at]
    elif action == 2:
        lines[at] = b" " * chance.randrange(6) + lines[at].lstrip()
    elif action == 3:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[at] = lines[at].partition(b":")[0] + b": " + str(chance.choice(SCALARS)).encode("utf-8", "replace")
    return b"\n".join(lines)


def _tree(chance: random.Random, *, valid: bool = False) -> dict[str, Any]:
    if valid:
        return {"training": {"batch_size": 4, "lr": 1e-4, "seed": 1}, "d_model": 64, "data": {"sources": ["a.txt"]}, "plots": False}
    tree: dict[str, Any] = {}
    for _ in range(chance.randrange(1, 6)):
        name = _name(chance)
        section, dot, key = name.partition(".")
        value = _value(chance, 0)
        if dot and chance.random() < 0.8:
            inner = tree.setdefault(section, {})
            if isinstance(inner, dict):
                inner[key] = value
        else:
            tree[name] = value
    return tree


def _name(chance: random.Random) -> str:
    known = list(dotted_spellings()) if chance.random() < 0.6 else list(flat_spellings())
    name = chance.choice(known)
    draw = chance.random()
    if draw < 0.1:
        at = chance.randrange(len(name))
        return name[:at] + chance.choice("_-.xX0 é") + name[at + 1 :]
    return name.replace("_", "-") if draw < 0.2 else str(chance.choice(SCALARS)) if draw < 0.23 else name


def _value(chance: random.Random, depth: int) -> Any:
    draw = chance.random()
    if draw < 0.75 or depth > 3:
        return chance.choice(SCALARS) if draw < 0.5 else chance.choice((2, 8, 0.5, "adamw", "a.txt", True))
    if draw < 0.88:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {_name(chance): _value(chance, depth + 1) for _ in range(chance.randrange(3))}


def _as_yaml(chance: random.Random, tree: dict[str, Any]) -> str:
    """Written by hand, so that it may be wrong in ways that no YAML writer is."""
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict) and chance.random() < 0.9:
            lines.append(f"{key}:")
            lines += [f"  {inner}: {_yaml_scalar(chance, item)}" for inner, item in value.items()]
        else:
            lines.append(f"{key}: {_yaml_scalar(chance, value)}")
    return "\n".join(lines) + "\n"


def _yaml_scalar(chance: random.Random, value: Any) -> str:
    return str(value) if chance.random() < 0.7 else json.dumps(value)


def _words(chance: random.Random) -> tuple[dict[str, str], list[tuple[str, str]]]:
    environ: dict[str, str] = {}
    cli: list[tuple[str, str]] = []
    if chance.random() < 0.15:
        environ["LLM_TRAINING__" + _name(chance).replace(".", "__").upper()] = str(chance.choice(SCALARS))
    if chance.random() < 0.15:
        cli.append((_name(chance), str(chance.choice(SCALARS))))
    return environ, cli


def _small() -> str:
    return """model: {family: gpt2, d_model: 64, n_layers: 2, n_heads: 2}
training:
  batch_size: 4   # a comment
  lr: 1e-4
  use_amp: no
  warmup_iters: 10
seq_len: 64
sources: [a.txt, "b c.txt"]
"""


def _toml() -> str:
    return 'seq_len = 64\nsources = ["a.txt"]\n[training]\nbatch-size = 4\nlr = 1e-4\n[model]\nd_model = 64\nsize = "10M"\n'
