"""``llm-train`` on a folder that ``llm-prepare-data`` wrote: its documents, its split, its tokenizer, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_training.cache.store import TRAIN, ChunkStore
from llm_training.checkpoint.layout import STATE_FILE
from llm_training.corpus import CorpusSettings, open_corpus
from llm_training.errors import IntegrityError
from llm_training.jobs.prepare import TokenizerChoice, prepare
from llm_training.jobs.train import train
from llm_training.storage.manifest import write_manifest
from llm_training.storage.reading import read_json
from llm_training.tokenizer import load_tokenizer
from tests.end_to_end.tiny import tiny_config, write_corpus


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "texts")


def trained_store(tmp_path: Path, folder: Path, **changes: Any) -> tuple[ChunkStore, dict[str, Any]]:
    """Train two steps on the folder; the store of tokens it made, and the facts of its checkpoint."""
    train(tiny_config(tmp_path, folder, **({"training.max_steps": 2, "tokenizer.vocab_size": None} | changes)))
    facts = read_json(tmp_path / "run" / "checkpoints" / "latest" / STATE_FILE)["facts"]
    return ChunkStore.open(tmp_path / "cache" / "store" / facts["dataset"]), facts


def count_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("tokenizer", [None, TokenizerChoice("bytes")], ids=["trained", "given"])
def test_a_prepared_folder_trains_on_its_documents_with_its_tokenizer(
    tmp_path: Path, source: Path, tokenizer: TokenizerChoice | None
) -> None:
    folder = tmp_path / "prepared"
    prepare([str(source)], str(folder), vocab_size=None if tokenizer else 320, tokenizer_files=tokenizer, create_stats=True)
    store, facts = trained_store(tmp_path, folder)
    assert facts["tokenizer"] == load_tokenizer(folder).fingerprint
    totals = store.totals()
    assert totals[TRAIN]["num_documents"] == count_lines(folder / "train.json")
    assert totals["validation"]["num_documents"] == count_lines(folder / "validation.json")


def test_a_vocabulary_asked_for_is_trained_anew(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "prepared"
    prepare([str(source)], str(folder), vocab_size=320)
    store, _ = trained_store(tmp_path, folder, **{"tokenizer.vocab_size": 300})
    assert store.settings.vocab_size == 300


def test_it_may_lie_below_the_folder_named(tmp_path: Path, source: Path) -> None:
    prepare([str(source)], str(tmp_path / "all" / "prepared"), vocab_size=320)
    (tmp_path / "all" / "more.txt").write_text("another text\n")
    corpus = open_corpus([str(tmp_path / "all")], CorpusSettings())
    assert [file.key for file in corpus.files] == ["all/more.txt", "all/prepared/train.json", "all/prepared/validation.json"]


def test_only_its_documents_are_read(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "prepared"
    prepare([str(source)], str(folder), vocab_size=320)
    for path in ("dropped/dropped.jsonl", "notes.md", "more.jsonl"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text('{"text": "what was dropped is not learned"}\n')
    corpus = open_corpus([str(folder)], CorpusSettings())
    assert [file.key for file in corpus.files] == ["prepared/train.json", "prepared/validation.json"]


def test_an_unfinished_preparation_is_refused(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "prepared"
    prepare([str(source)], str(folder), vocab_size=320)
    write_manifest(folder, {}, extra={"kind": "prepared data", "is_finished": False})
    with pytest.raises(IntegrityError, match="not finished"):
        trained_store(tmp_path, folder)


def test_a_manifest_of_another_program_is_a_file_like_others(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps([{"text": "one"}, {"text": "two"}]))
    assert [file.key for file in open_corpus([str(folder)], CorpusSettings()).files] == ["texts/manifest.json"]
