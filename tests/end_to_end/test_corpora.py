"""The main job on real texts of every documented form, with a tiny model and a few steps."""

from __future__ import annotations

import gzip
import itertools
import json
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llm_training.checkpoint.layout import STATE_FILE
from llm_training.config.load import load_config
from llm_training.config.root import Config
from llm_training.errors import StoppedEarly
from llm_training.events import Event, EventBus, Notice, StepCompleted
from llm_training.jobs.train import RunResult, train
from llm_training.storage.reading import read_json
from llm_training.tokenizer import Tokenizer, load_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.data]

TINY: dict[str, Any] = {
    "model.hidden_size": 16,
    "model.num_layers": 1,
    "model.num_attention_heads": 1,
    "cache.sequence_length": 64,
    "cache.workers": 1,
    "training.max_steps": 3,
    "training.batch_size": 4,
    "training.precision": "fp32",
    "evaluation.num_samples": 1,
    "evaluation.sample_tokens": 8,
    "evaluation.max_tokens": 512,
    "evaluation.final_max_tokens": 2_048,
    "monitoring.plots": False,
    "resources.threads": 1,
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and caches lie in the working directory, as a user has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llm_training.jobs.train.measure_matmul_flops", lambda *_: 1e11)


def configured(*sources: Path | str, **changes: Any) -> Config:
    return load_config(overrides=TINY | {"data.sources": [str(source) for source in sources]} | changes).config


def run(config: Config) -> tuple[RunResult, list[str]]:
    """Train; the result and what was said."""
    said: list[str] = []
    bus = EventBus()
    bus.subscribe(lambda event: said.append(event.message) if isinstance(event, Notice) else None)
    return train(config, bus=bus), said


def cached(result: RunResult) -> tuple[dict[str, dict[str, list[int]]], Tokenizer]:
    """Tokens in the cache of a run: by split, then by source file, joined in order. Read with pyarrow alone."""
    checkpoint = Path(result.output_dir) / "checkpoints" / "latest"
    store = Path("cache") / "store" / read_json(checkpoint / STATE_FILE)["facts"]["dataset"]
    found: dict[str, dict[str, list[int]]] = {}
    for split, folder in (("train", store), ("validation", store / "validation")):
        by_source: dict[str, list[list[int]]] = defaultdict(list)
        for path in sorted(folder.glob("chunk_*.arrow")):
            table = pa.ipc.open_file(path).read_all()
            for source, tokens in zip(table["source"].to_pylist(), table["tokens"].to_pylist(), strict=True):
                by_source[source].append(tokens)
        found[split] = {source: list(itertools.chain.from_iterable(parts)) for source, parts in by_source.items()}
    return found, load_tokenizer(checkpoint)


def text_of(tokens: list[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode([token for token in tokens if token != tokenizer.separator_id])


def test_tinyshakespeare_gives_its_last_tenth(test_data: Path) -> None:
    """Nothing but the folder is given; the vocabulary is small to save time."""
    result, _ = run(configured(test_data / "tinyshakespeare", **{"tokenizer.vocab_size": 512}))
    assert result.step == 3
    assert result.figures["bits_per_byte"] > 0
    tokens, tokenizer = cached(result)
    (train_tokens,), (held_out,) = tokens["train"].values(), tokens["validation"].values()
    text = (test_data / "tinyshakespeare" / "input.txt").read_text()
    first, last = text_of(train_tokens, tokenizer), text_of(held_out, tokenizer)
    assert first + last == text
    assert 0.85 < len(first) / len(text) <= 0.9


def test_wikitext_2_never_trains_on_its_test_split(test_data: Path) -> None:
    """With GPT-2's tokenizer from a directory of its two files and tokenizer.json."""
    result, _ = run(configured(test_data / "wikitext-2", **{"tokenizer.path": str(test_data / "gpt2"), "cache.chunk_bytes": 4_000_000}))
    tokens, tokenizer = cached(result)
    assert tokenizer.fingerprint == load_tokenizer(test_data / "gpt2").fingerprint
    assert set(tokens["train"]) == {"wikitext-2/wiki.train.tokens.gz"}
    assert set(tokens["validation"]) == {"wikitext-2/wiki.valid.tokens"}
    trained = text_of(tokens["train"]["wikitext-2/wiki.train.tokens.gz"], tokenizer)
    assert trained == gzip.decompress((test_data / "wikitext-2" / "wiki.train.tokens.gz").read_bytes()).decode()
    test_lines = (test_data / "wikitext-2" / "wiki.test.tokens").read_text().splitlines()
    assert not any(line in trained for line in test_lines[:: len(test_lines) // 20] if len(line) > 200)


def test_a_folder_of_compressed_json_lines(test_data: Path) -> None:
    result, _ = run(configured(test_data / "openstax", **{"tokenizer.path": "bytes"}))
    tokens, tokenizer = cached(result)
    assert set(tokens["train"]) == {f"openstax/train-0000{number}.jsonl.gz" for number in range(3)}
    assert set(tokens["validation"]) == {"openstax/valid.jsonl.gz"}
    with gzip.open(test_data / "openstax" / "valid.jsonl.gz", "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert text_of(tokens["validation"]["openstax/valid.jsonl.gz"], tokenizer) == "".join(texts)
    assert tokens["validation"]["openstax/valid.jsonl.gz"].count(tokenizer.separator_id) == len(texts)


def test_text_of_token_ids(test_data: Path, tmp_path: Path) -> None:
    """Ids as another program wrote them are one text; its last tenth is held out, and each part ends with a separator."""
    tokenizer = load_tokenizer(test_data / "gpt2")
    lines = (test_data / "tinyshakespeare" / "input.txt").read_text().split("\n\n")[:400]
    ids = [[*tokenizer.encode(line), tokenizer.separator_id] for line in lines]
    (tmp_path / "tokens.txt").write_text("".join(" ".join(map(str, document)) + "\n" for document in ids))
    result, _ = run(configured(f"token-ids:{tmp_path / 'tokens.txt'}", **{"tokenizer.path": str(test_data / "gpt2")}))
    tokens, _ = cached(result)
    assert result.step == 3
    parts = [tokens[split]["tokens.txt"] for split in ("train", "validation")]
    assert [part.pop() for part in parts] == [tokenizer.separator_id] * 2
    assert [*parts[0], *parts[1]] == list(itertools.chain.from_iterable(ids))
    assert 0.85 < len(parts[0]) / sum(map(len, parts)) <= 0.9


def test_a_second_start_says_what_it_found(test_data: Path) -> None:
    config = configured(test_data / "tinyshakespeare", **{"tokenizer.path": "bytes", "cache.workers": 1})
    bus = EventBus()

    def stop(event: Event) -> None:
        if isinstance(event, StepCompleted) and event.step == 1:
            signal.raise_signal(signal.SIGTERM)

    bus.subscribe(stop)
    with pytest.raises(StoppedEarly) as stopped:
        train(config, bus=bus)
    assert "the same command resumes" in str(stopped.value)
    (first,) = Path("runs").iterdir()
    resumed, said = run(config)
    assert Path(resumed.output_dir) == first
    assert any("found the unfinished run" in line and first.name in line for line in said)
    assert any("resuming from" in line and "step 1 of 3" in line for line in said)
    again, said = run(config)
    assert Path(again.output_dir) != first
    assert any("has finished with this configuration; this is a new run" in line and first.name in line for line in said)
    assert len(list(Path("runs").iterdir())) == 2
