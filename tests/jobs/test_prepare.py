"""Preparing data: both documented forms, stable bytes, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_training.cleaning import CleaningSettings
from llm_training.corpus import CorpusSettings, SliceReader, make_plan, open_corpus
from llm_training.errors import ConfigError, DataError, LockedError, StorageError
from llm_training.jobs.clean_corpus import CleaningPlan
from llm_training.jobs.prepare import TokenizerChoice, chosen_tokenizer, prepare
from llm_training.jobs.tokenizer import train_tokenizer_job
from llm_training.storage.locks import FileLock
from llm_training.storage.manifest import verify
from llm_training.tokenizer import load_tokenizer

WORDS = "the cat sat on a mat and looked at the moon while the tide came in over white sand".split()  # noqa: SIM905


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """200 documents with ids and metadata."""
    path = tmp_path / "raw.jsonl"
    documents = [
        {"id": f"doc-{number}", "text": " ".join(WORDS[(number * k) % len(WORDS)] for k in range(1, 20 + number)), "year": 1900 + number}
        for number in range(200)
    ]
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_form_a_trains_a_tokenizer_and_splits(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    result = prepare([str(texts)], str(output), vocab_size=300)
    names = {path.name for path in output.iterdir()}
    assert names >= {"train.json", "validation.json", "vocab.json", "merges.txt", "tokenizer.json", "stats.json", "manifest.json"}
    train, held_out = read(output / "train.json"), read(output / "validation.json")
    assert len(train) + len(held_out) == 200 and 1 <= len(held_out) <= 30
    assert {document["id"] for document in train + held_out} == {f"doc-{number}" for number in range(200)}
    assert all(document["year"] == 1900 + int(document["id"][4:]) for document in train)
    assert load_tokenizer(output).fingerprint == result.tokenizer
    assert json.loads((output / "stats.json").read_text())["splits"]["train"]["num_documents"] == len(train)
    assert set(verify(output).files) == names - {"manifest.json"}


def test_same_input_gives_the_same_bytes(texts: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "a"):  # the third time over what is there
        prepare([str(texts)], str(tmp_path / name), vocab_size=300, create_stats=True)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_output_is_read_back_as_the_same_split(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    prepare([str(texts)], str(output), vocab_size=300)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("train.json", "validation.json"):
        (alone / name).write_bytes((output / name).read_bytes())
    corpus = open_corpus([str(alone)], CorpusSettings())
    reader = SliceReader(corpus, make_plan(corpus))
    found = {split: [document.id for document in reader.documents(split)] for split in ("train", "validation")}
    reader.close()
    for split, ids in found.items():
        assert ids == [document["id"] for document in read(output / f"{split}.json")]


def test_form_b_encodes_with_given_files(texts: Path, tmp_path: Path) -> None:
    prepare([str(texts)], str(tmp_path / "first"), vocab_size=300)
    choice = chosen_tokenizer(vocab=str(tmp_path / "first" / "vocab.json"), merges=str(tmp_path / "first" / "merges.txt"))
    prepare([str(texts)], str(tmp_path / "ids"), tokenizer_files=choice, create_stats=True)
    tokenizer = load_tokenizer(tmp_path / "ids")
    lines = (tmp_path / "ids" / "train.ids").read_text().splitlines()
    documents = read(tmp_path / "ids" / "train.json")
    assert len(lines) == len(documents)
    for line, document in zip(lines, documents, strict=True):
        *ids, separator = map(int, line.split())
        assert separator == tokenizer.separator_id and tokenizer.decode(ids) == document["text"]
    stats = json.loads((tmp_path / "ids" / "stats.json").read_text())["splits"]["train"]
    assert stats["num_tokens"] == sum(len(line.split()) - 1 for line in lines)
    assert stats["words_per_document"]["max"] == max(len(document["text"].split()) for document in documents)
    corpus = open_corpus([f"token-ids:{tmp_path / 'ids' / 'train.ids'}"], CorpusSettings(validation_fraction=0))
    reader = SliceReader(corpus, make_plan(corpus))
    assert sum(len(document.token_ids or ()) for document in reader.documents()) == sum(len(line.split()) for line in lines)
    reader.close()


def test_max_length_cuts_and_loses_nothing(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    prepare([str(texts)], str(output), tokenizer_files=TokenizerChoice("bytes"), max_length=50)
    whole: dict[str, str] = {}
    for document in read(output / "train.json") + read(output / "validation.json"):
        assert len(document["text"].encode()) <= 50
        name, _, _ = document["id"].partition("#")
        whole[name] = whole.get(name, "") + document["text"]
    assert whole == {document["id"]: document["text"] for document in read(texts)}


def test_other_peoples_files_are_not_replaced(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    output.mkdir()
    (output / "notes.md").write_text("mine")
    prepare([str(texts)], str(output), vocab_size=300)
    assert (output / "notes.md").read_text() == "mine"
    (output / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"holds train\.json, which no preparation wrote"):
        prepare([str(texts)], str(output), vocab_size=300)


def test_a_source_inside_the_output_is_refused(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    prepare([str(texts)], str(output), vocab_size=300)
    with pytest.raises(ConfigError, match="would be replaced"):
        prepare([str(output / "train.json")], str(output), vocab_size=300)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "train-00000.parquet"])
def test_a_file_of_a_name_that_would_be_written_is_refused(texts: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / name).write_text("mine")
    for format in ("jsonl", "parquet"):
        with pytest.raises(ConfigError, match=f"holds {re.escape(name)}, which no preparation wrote"):
            prepare([str(texts)], str(output), vocab_size=300, format=format)
    assert (output / name).read_text() == "mine" and len(list(output.iterdir())) <= 2
    (output / name).unlink()
    prepare([str(texts)], str(output), vocab_size=300, format="parquet")
    prepare([str(texts)], str(output), vocab_size=300)
    assert not (output / "train-00000.parquet").exists()
    (output / "test.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds test\.json, which no preparation wrote"):
        prepare([str(texts)], str(output), vocab_size=300)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_prepared_folder_is_not_prepared_in_its_place(texts: Path, tmp_path: Path, format: str) -> None:
    output = tmp_path / "prepared"
    prepare([str(texts)], str(output), vocab_size=300, format=format)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    for other in ("jsonl", "parquet"):
        with pytest.raises(ConfigError, match="is the output folder"):
            prepare([str(output)], str(output), vocab_size=300, format=other)
        with pytest.raises(ConfigError, match="would be replaced by the output"):
            prepare([str(output / "train*")], str(output), vocab_size=300, format=other)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize("cleaning", [None, CleaningPlan(CleaningSettings(steps=("normalise",)), near_similarity=None)])
def test_a_long_text_is_one_document(tmp_path: Path, cleaning: CleaningPlan | None) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    books = {f"book{n}.txt": "\n".join(f"Line {k} of book {n} is here." for k in range(80_000 if n < 3 else 300)) for n in range(12)}
    for name, text in books.items():
        (folder / name).write_text(text)
    options = {"tokenizer_files": TokenizerChoice("bytes"), "cleaning": cleaning, "validation_fraction": 0.25}
    result = prepare([str(folder)], str(tmp_path / "out"), **options)
    kept = {split: {row["id"]: row["text"] for row in read(tmp_path / "out" / f"{split}.json")} for split in ("train", "validation")}
    assert len(kept["validation"]) == 3 and len(kept["train"]) == 9 and result.num_documents == 12
    assert {Path(name).name: text for rows in kept.values() for name, text in rows.items()} == books
    prepare([str(folder)], str(tmp_path / "out"), max_document_bytes=2_200_000, **options)
    cut = [row["id"] for split in kept for row in read(tmp_path / "out" / f"{split}.json")]
    assert len(cut) == 9 + 3 * 2 and len(set(cut)) == len(cut)
    single = tmp_path / "single.txt"
    single.write_text(books["book0.txt"])
    prepare([str(single)], str(tmp_path / "one"), tokenizer_files=TokenizerChoice("bytes"), cleaning=cleaning)
    train, held_out = (read(tmp_path / "one" / f"{split}.json") for split in kept)
    assert [row["id"] for row in train] == ["single.txt"] and len(held_out) == 1
    assert train[0]["text"].rstrip("\n") + "\n" + held_out[0]["text"] == books["book0.txt"]


def test_a_failure_leaves_the_earlier_preparation_valid(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    prepare([str(texts)], str(output), vocab_size=300)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with texts.open("a") as file:
        file.write('{"text": 3}\n')
    with pytest.raises(DataError):
        prepare([str(texts)], str(output), vocab_size=300)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    result = prepare([str(texts)], str(output), vocab_size=300, skip_bad=True)
    assert sum(result.dropped.values()) == 1


@pytest.mark.parametrize("is_link", [False, True])
def test_a_source_is_no_output_folder(texts: Path, tmp_path: Path, is_link: bool) -> None:
    (tmp_path / "mixed").mkdir()
    texts.rename(tmp_path / "mixed" / "raw.jsonl")
    (tmp_path / "link").symlink_to("mixed")
    output = str(tmp_path / ("link" if is_link else "mixed"))
    for start in (prepare, train_tokenizer_job):
        with pytest.raises(ConfigError, match=r"the source .*/mixed/ is the output folder"):
            start([f"{tmp_path / 'mixed'}/"], output, vocab_size=300)
    with pytest.raises(ConfigError, match="is the output folder"):
        prepare([str(tmp_path / "mixed/raw.jsonl")], output, validation_sources=[output])
    assert [path.name for path in (tmp_path / "mixed").iterdir()] == ["raw.jsonl"]
    prepare([str(tmp_path / "mixed")], str(tmp_path / "mixed" / "out"), vocab_size=300)


def test_failures_leave_no_folder(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"no text \xff\n")
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    everything_goes = CleaningPlan(CleaningSettings(steps=(), min_length=10**6), near_similarity=None)
    for cleaning in (None, everything_goes):
        for source in ("nosuch.txt", "bad.txt", "raw.jsonl"):
            for output in ("a/b/out", "there"):
                with pytest.raises(DataError) if cleaning or source != "raw.jsonl" else pytest.raises(ConfigError):
                    size = 300 if cleaning or source != "raw.jsonl" else 10
                    prepare([str(tmp_path / source)], str(tmp_path / output), vocab_size=size, cleaning=cleaning)
    for source in ("nosuch.txt", "bad.txt"):
        with pytest.raises(DataError):
            train_tokenizer_job([str(tmp_path / source)], str(tmp_path / "a/b/tok"), vocab_size=300)
    assert sorted(tmp_path.iterdir()) == before and not list((tmp_path / "there").iterdir())


def test_a_failure_after_some_slices_keeps_them(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = CleaningPlan(CleaningSettings(steps=("normalise",)), deduplicate=False, near_similarity=None)

    def fail(*_words: object, **_named: object) -> None:
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr("llm_training.jobs.prepare.DocumentWriter", fail)
        with pytest.raises(StorageError):
            prepare([str(texts)], str(tmp_path / "out"), vocab_size=300, cleaning=normalised)
    assert list((tmp_path / "out" / ".cleaning").glob("slice-*.account.json"))
    prepare([str(texts)], str(tmp_path / "out"), vocab_size=300, cleaning=normalised)
    assert not (tmp_path / "out" / ".cleaning").exists()


@pytest.mark.parametrize(("name", "message"), [("nosuch.jsonl", "no such file of tests"), (".", "not a file of tests")])
def test_test_files_that_are_not_there(texts: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare([str(texts)], str(tmp_path / "out"), vocab_size=300, cleaning=CleaningPlan(tests=(str(tmp_path / name),)))
    assert not (tmp_path / "out").exists()


def test_an_unsealed_preparation_is_taken_over(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the renames and the manifest: the folder says whose it is, and that it is not valid."""
    from llm_training.jobs import prepared_folder

    output = tmp_path / "prepared"
    real = prepared_folder.write_manifest

    def killed(directory, files, **keywords):
        if files:
            raise KeyboardInterrupt
        return real(directory, files, **keywords)

    monkeypatch.setattr(prepared_folder, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare([str(texts)], str(output), vocab_size=300)
    assert (output / "train.json").exists()
    monkeypatch.undo()
    prepare([str(texts)], str(output), vocab_size=300)
    assert verify(output).extra["is_finished"] is True


def test_two_at_once(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    with FileLock(tmp_path / "prepared" / ".prepare.lock"), pytest.raises(LockedError):
        prepare([str(texts)], str(tmp_path / "prepared"), vocab_size=300)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"input": []}, "no source of text"),
        ({"max_length": 3}, "--max-length is 3"),
        ({"workers": -1}, "--workers is -1"),
        ({"validation_fraction": 0.9}, "--validation-fraction is 0.9"),
        ({"vocab_size": 300, "tokenizer_files": TokenizerChoice("bytes")}, "--vocab-size is 300"),
        ({"vocab_size": 10}, "vocab_size is 10"),
    ],
)
def test_wrong_settings(texts: Path, tmp_path: Path, keywords: dict, expected: str) -> None:
    arguments = {"input": [str(texts)], "output": str(tmp_path / "x")} | keywords
    with pytest.raises(ConfigError, match=expected):
        prepare(**arguments)


def test_tokenizer_flags_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="belong together"):
        chosen_tokenizer(vocab="vocab.json")
    with pytest.raises(ConfigError, match="both given"):
        chosen_tokenizer(vocab="v", merges="m", tokenizer="bytes")
    assert chosen_tokenizer() is None


def test_only_held_out_files_are_no_training_data(texts: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "validation.jsonl"
    held_out.write_bytes(texts.read_bytes())
    with pytest.raises(DataError, match="no training documents"):
        prepare([str(held_out)], str(tmp_path / "x"), tokenizer_files=TokenizerChoice("bytes"))
