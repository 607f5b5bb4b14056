"""Loading: every place a tokenizer comes from, and every way in which one is refused."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from llm_training.errors import ConfigError, IntegrityError, LlmTrainingError
from llm_training.storage.hashing import record_of
from llm_training.storage.manifest import write_manifest
from llm_training.tokenizer import Tokenizer, load_tokenizer
from llm_training.tokenizer import backends as backends_module
from llm_training.tokenizer.backends import choose_backend
from llm_training.tokenizer.definition import define, parse_definition


@pytest.fixture(scope="module")
def raw(trained: Tokenizer) -> dict:
    return json.loads(trained.definition.text)


def _add_merge(data: dict) -> None:
    data["model"]["merges"].append(["Ġ", "nowhere"])


def _make_hole(data: dict) -> None:
    data["added_tokens"][0]["id"] = 5000


def _give_twice(data: dict) -> None:
    data["model"]["vocab"]["A"] = 66


def _lose_byte(data: dict) -> None:
    token = next(iter(data["model"]["vocab"]))
    data["model"]["vocab"]["zz"] = data["model"]["vocab"].pop(token)


def _huge_id(data: dict) -> None:
    data["model"]["vocab"]["A"] = 2**32


def _without_separator(data: dict) -> None:
    data["added_tokens"] = []


def _set(*path: str, value: object):
    def change(data: dict) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


DAMAGES = [
    (_add_merge, "needs the token 'nowhere'"),
    (_make_hole, "token ids have a hole: 599"),
    (_give_twice, "given to two tokens"),
    (_lose_byte, "no token for 1 of 256 bytes"),
    (_huge_id, "'A' has the id 4294967296"),
    (_without_separator, "no end-of-text token"),
    (_set("model", value=None), "model is not an object"),
    (_set("model", "type", value="Magic"), "model type 'Magic' is unknown"),
    (_set("model", "vocab", value=7), "vocab is not an object"),
    (_set("model", "vocab", "A", value="x"), "has the id 'x'"),
    (_set("model", "vocab", "A", value=True), "has the id True"),
    (_set("model", "merges", value={}), "merges is not a list"),
    (_set("model", "merges", value=["abc"]), "merge 0 is not a pair"),
    (_set("model", "merges", value=[[1, 2]]), "merge 0 is not a pair"),
    (_set("added_tokens", value=3), "added_tokens is not a list"),
    (_set("added_tokens", value=[{"id": 599}]), "not a text and an id"),
    (_set("pre_tokenizer", value={"type": "Unknown"}), "refuses the tokenizer"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_damaged_tokenizers_are_refused_by_name(raw: dict, damage, message: str) -> None:
    data = copy.deepcopy(raw)
    damage(data)
    with pytest.raises(IntegrityError, match=message):
        Tokenizer(define(data, where="x"))


@pytest.mark.parametrize("content", [b"", b"[]", b"nonsense", b"\xff\xfe", b"[" * 200_000, b'{"model": {"vocab": {}}}'])
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        load_tokenizer(path)


def test_an_oversized_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(IntegrityError, match="has 200,000,000 bytes, the limit is"):
        load_tokenizer(path)


def test_damage_is_called_damage_before_anything_is_parsed(tmp_path: Path, trained: Tokenizer) -> None:
    trained.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    write_manifest(tmp_path, {path.name: record_of(path.read_bytes())})
    assert load_tokenizer(tmp_path).fingerprint == trained.fingerprint
    content = path.read_bytes()
    for damaged in (content[:-1], content.replace(b"{", b"[", 1), content + b" "):
        path.write_bytes(damaged)
        for spec in (path, tmp_path):
            with pytest.raises(IntegrityError, match="the manifest says"):
                load_tokenizer(spec)
    (tmp_path / "manifest.json").write_text("{}")  # another program's
    path.write_bytes(content)
    assert load_tokenizer(tmp_path).fingerprint == trained.fingerprint


def test_random_mutations_never_escape_as_another_error(trained: Tokenizer) -> None:
    content = trained.definition.text.encode()
    generator = random.Random(11)
    refused = 0
    for _ in range(500):
        data = bytearray(content)
        kind = generator.randrange(3)
        position = generator.randrange(len(data))
        if kind == 0:
            data[position] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del data[position : position + generator.randrange(1, 200)]
        else:
            data = data[:position]
        try:
            tokenizer = Tokenizer(parse_definition(bytes(data), where="x"))
        except LlmTrainingError as error:
            assert isinstance(error, IntegrityError)
            refused += 1
        else:
            assert tokenizer.fingerprint == trained.fingerprint or tokenizer.encode("abc def") is not None
    assert refused > 300


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tokenizer in the directory"):
        load_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="no tokenizer file at"):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_a_hub_name_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the Hub does not give one"):
        load_tokenizer("no-such-owner/no-such-model")


def test_a_hub_name_is_fetched_by_its_files_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: Tokenizer) -> None:
    import huggingface_hub

    trained.save(tmp_path)
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_tokenizer("owner/model").fingerprint == trained.fingerprint
    assert asked == [("owner/model", ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"])]


def test_links_are_followed_as_the_hub_cache_needs(tmp_path: Path, trained: Tokenizer) -> None:
    trained.save(tmp_path / "real")
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "tokenizer.json")
    assert load_tokenizer(tmp_path / "link.json").fingerprint == trained.fingerprint


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ('{"a": 0}', "#version: 0.2\n", "no token for"),
        ("[]", "", "not a JSON object"),
        ("{", "", "not valid JSON"),
        ('{"a": 0}', "#version: 0.2\na b c\n", "merge 0 is not a pair"),
    ],
)
def test_damaged_gpt2_files_are_refused(tmp_path: Path, vocab: str, merges: str, message: str) -> None:
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(IntegrityError, match=message):
        load_tokenizer(tmp_path)


def test_the_separator_named_by_the_configuration_wins(tmp_path: Path, raw: dict) -> None:
    data = copy.deepcopy(raw)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"].append({"id": 600, "content": "<|stop|>", **flags, "special": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert load_tokenizer(tmp_path).separator == "<|endoftext|>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|stop|>"}, "model_max_length": int(1e30)}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.separator, tokenizer.separator_id) == ("<|stop|>", 600)
    assert 600 not in tokenizer.encode("a<|stop|>b")


def test_fingerprint_sees_content_not_spelling(raw: dict, trained: Tokenizer) -> None:
    same = copy.deepcopy(raw)
    same["model"]["merges"] = [" ".join(pair) for pair in same["model"]["merges"]]
    same["model"]["vocab"] = dict(reversed(same["model"]["vocab"].items()))
    same["truncation"] = {"max_length": 5, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    del same["model"]["dropout"]
    assert define(same, where="x").fingerprint == trained.fingerprint
    other = copy.deepcopy(raw)
    other["model"]["merges"][0], other["model"]["merges"][1] = other["model"]["merges"][1], other["model"]["merges"][0]
    assert define(other, where="x").fingerprint != trained.fingerprint


def test_an_engine_that_differs_is_not_used(raw: dict, monkeypatch: pytest.MonkeyPatch, trained: Tokenizer) -> None:
    class Wrong(backends_module.FastBackend):
        def encode_flat(self, texts):
            ids, offsets = super().encode_flat(texts)
            return (ids + 1 if "é" in texts[0] else ids), offsets

    monkeypatch.setattr(backends_module, "FastBackend", Wrong)
    choose_backend.cache_clear()
    tokenizer = Tokenizer(define(copy.deepcopy(raw), where="x"))
    choose_backend.cache_clear()
    assert tokenizer.backend == "tokenizers" and "gives other ids on" in tokenizer.backend_reason
    assert tokenizer.encode("é def") == trained.encode("é def")
    assert tokenizer.separator_id not in tokenizer.encode("<|endoftext|>")


def test_an_engine_that_cannot_load_is_not_used(raw: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_definition):
        raise IntegrityError("fastokens refuses the tokenizer: no such thing")

    monkeypatch.setattr(backends_module, "FastBackend", refuse)
    choose_backend.cache_clear()
    tokenizer = Tokenizer(define(copy.deepcopy(raw), where="x"))
    choose_backend.cache_clear()
    assert tokenizer.backend == "tokenizers" and "cannot load" in tokenizer.backend_reason
