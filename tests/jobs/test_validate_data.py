"""llm-validate-data: each check on data that has just its fault, limits, exit codes."""

from __future__ import annotations

import inspect
import json
import random
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from llm_training.cli.validate_data import validate_data as command
from llm_training.errors import ConfigError, DataError
from llm_training.jobs.data_checks import CHECKS, Thresholds
from llm_training.jobs.prepare import prepare
from llm_training.jobs.validate_data import ValidationResult, validate_data

TEXT = "The river ran down to the sea and in the evening the people of the town walked along it with their dogs and talked of the weather"
WORDS = TEXT.split()


def record(number: int, **changes: object) -> dict:
    """A text of its own for each number: the words in another order."""
    order = random.Random(number).sample(WORDS, len(WORDS))
    return {"id": f"d{number}", "text": f"Page {number}. " + " ".join(order[: 24 + number % 4]) + "."} | changes


def write(folder: Path, name: str, documents: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(each) + "\n" for each in documents))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """200 training and 120 held-out documents without a fault."""
    folder = tmp_path / "data"
    write(folder, "train.jsonl", [record(number) for number in range(200)])
    write(folder, "validation.jsonl", [record(number) for number in range(200, 320)])
    return folder


def failed(result: ValidationResult) -> list[str]:
    return [finding.measure for finding in result.failures]


def test_good_data_passes_every_check(data: Path) -> None:
    result = validate_data([str(data)])
    assert failed(result) == [] and result.num_documents == 320
    assert {finding.check for finding in result.findings} == set(CHECKS)
    result.require_valid()


def records(start: int, stop: int, **changes: str) -> list[dict]:
    """Further records; ``{n}`` in a change becomes the number."""
    return [record(n, **{key: value.replace("{n}", str(n)) for key, value in changes.items()}) for n in range(start, stop)]


SPACED = [record(n, id=f"c{n}", text=record(n)["text"].replace(" ", "\n ")) for n in range(9)]
CHANGED = [record(n, id=f"n{n}", text=record(n)["text"] + " Again.") for n in range(310)]
BROKEN = [{"text": 3}]
# What is added to the training file, the check that sees it, and the measure that fails.
FAULTS = {
    "a broken record": (BROKEN, "schema", "records that cannot be read"),
    "an id twice": (records(500, 501, id="d1"), "schema", "documents with an id that came before"),
    "low scores": (records(500, 560, text="{n} | {n} | {n}{n}"), "quality", "documents scoring below 0.5"),
    "garbled": (records(500, 510, text="\ufffd {n}"), "quality", "documents with control or replacement characters"),
    "short": (records(500, 530, text="no {n}"), "distribution", "documents of fewer than 5 words"),
    "one is all": (records(500, 501, text="word " * 90_000), "distribution", "largest document, of all text"),
    "shift": (records(500, 800, text="{n} " + "a long page " * 90), "distribution", "shift of lengths, train to validation"),
    "near-duplicates": (
        [record(n, id=f"n{n}", text=record(n)["text"] + " Again.") for n in range(30)],
        "duplicates",
        "near-duplicates of another document",
    ),
    "near leak": (
        [record(n, id=f"n{n}", text=record(n)["text"] + " Again.") for n in range(300, 310)],
        "leakage",
        "held-out documents that nearly repeat training",
    ),
    "copies": (records(0, 9, id="c{n}"), "duplicates", "copies of another document"),
    "white space": (SPACED, "duplicates", "copies of another document"),
    "leak": (records(300, 301, id="leak"), "leakage", "held-out documents that are also training documents"),
}

# Examples shown where there are not three.
EXAMPLES = {"a broken record": 1, "an id twice": 1, "one is all": 1, "shift": 0, "leak": 1}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_its_check(data: Path, name: str) -> None:
    added, check, measure = FAULTS[name]
    with (data / "train.jsonl").open("a") as file:
        file.write("".join(json.dumps(each) + "\n" for each in added))
    result = validate_data([str(data)], checks=check)
    assert failed(result) == [measure]
    (finding,) = result.failures
    lines = [line for line in result.remarks() if line.startswith(f"{finding.kind}: ")] if finding.kind else []
    assert len(lines) == EXAMPLES.get(name, 3), "what failed is shown by examples"
    with pytest.raises(DataError, match=f"fails 1 of {len(result.findings)} checks: {measure}"):
        result.require_valid()


def test_more_is_allowed_by_the_flag_that_the_finding_names(data: Path) -> None:
    write(data, "train.jsonl", [record(number % 150, id=f"t{number}") for number in range(200)])
    result = validate_data([str(data)], checks="duplicates")
    (finding,) = result.failures
    assert finding.value == pytest.approx(50 / 320) and finding.flag == "--max-duplicate-fraction"
    assert not validate_data([str(data)], checks="duplicates", thresholds=Thresholds(max_duplicate_fraction=0.2)).failures
    assert "repeats" in result.examples["copies"][0]


def test_near_duplicates_are_named(data: Path) -> None:
    with (data / "train.jsonl").open("a") as file:
        file.write("".join(json.dumps(each) + "\n" for each in CHANGED[:30] + CHANGED[300:]))
    result = validate_data([str(data)], checks="duplicates,leakage")
    near, leaks = result.examples["near-duplicates"], result.examples["near leaks"]
    assert len(near) == 5 and re.fullmatch(r"n0 nearly repeats d0 \(0\.[89]\d\)", near[0])
    assert len(leaks) == 5 and leaks[0].startswith("d300 nearly repeats n300 (0."), "the held-out one is what goes"
    assert [line for line in result.remarks() if line.startswith("near-duplicates: ")] == [f"near-duplicates: {each}" for each in near[:3]]
    assert set(validate_data([str(data)], checks="distribution").examples) == set(), "only what was checked"
    allowed = Thresholds(max_near_duplicate_fraction=1, max_near_leaked_fraction=1)
    result = validate_data([str(data)], checks="duplicates,leakage", thresholds=allowed)
    assert "near-duplicates" in result.examples and len(result.remarks()) == 1, "what is allowed is in the JSON only"


def test_a_large_bad_record_is_no_text(data: Path) -> None:
    """Near-duplicates are looked for and all is measured, however large the files are, while the text that can be read is small."""
    with (data / "train.jsonl").open("a") as file:
        file.write('{"text": 3, "other": "' + "x" * 3_000_000 + '"}\n')
    size = sum(path.stat().st_size for path in data.iterdir())
    result = validate_data([str(data)], measured_bytes=100_000)
    assert size > 3_000_000 and not result.skipped and "near-duplicates of another document" in [f.measure for f in result.findings]
    result = validate_data([str(data)], measured_bytes=10_000)
    assert result.skipped == ("Near-duplicates are not looked for: the text is larger than --measured-bytes.",)


def test_a_leak_is_counted_and_needs_its_flag(data: Path) -> None:
    """P-10: the same document in both splits."""
    with (data / "train.jsonl").open("a") as file:
        file.write("".join(json.dumps(record(number, id=f"leak{number}")) + "\n" for number in (300, 301, 302)))
    with pytest.raises(DataError, match=r"held-out documents that are also training documents 3 \(0 allowed\)"):
        validate_data([str(data)], checks="leakage").require_valid()
    validate_data([str(data)], checks="leakage", thresholds=Thresholds(max_leaked_documents=3)).require_valid()


def test_what_cannot_be_measured_is_said(data: Path) -> None:
    (data / "validation.jsonl").unlink()
    result = validate_data([str(data)], checks="leakage,distribution")
    assert result.skipped == ("leakage: nothing is held out in this data",)
    assert all(finding.check == "distribution" for finding in result.findings)


def test_prepared_data_is_valid(data: Path, tmp_path: Path) -> None:
    prepare([str(data / "train.jsonl")], str(tmp_path / "prepared"), vocab_size=280)
    validate_data([str(tmp_path / "prepared")]).require_valid()


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"checks": "quality,spelling"}, "--checks has spelling"),
        ({"checks": " , "}, "--checks has no check"),
        ({"thresholds": Thresholds(max_bad_fraction=1.5)}, "--max-bad-fraction is 1.5"),
        ({"thresholds": Thresholds(min_words=-1)}, "--min-words is -1"),
        ({"inputs": []}, "no data was given"),
    ],
)
def test_wrong_settings(data: Path, keywords: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        validate_data(**{"inputs": [str(data)]} | keywords)


def test_flags_and_thresholds_are_the_same() -> None:
    parameters = inspect.signature(command).parameters
    assert {name: parameters[name].default for name in asdict(Thresholds())} == asdict(Thresholds())
    assert parameters["checks"].default == ",".join(CHECKS)


@pytest.mark.data
@pytest.mark.slow
def test_real_text_is_valid_and_messy_text_is_not(test_data: Path) -> None:
    validate_data([str(test_data / "openstax")]).require_valid()
    found = validate_data([str(test_data / "messy" / "messy.jsonl.gz")])
    assert set(failed(found)) == {
        "records that cannot be read",
        "documents scoring below 0.5",
        "copies of another document",
        "near-duplicates of another document",
    }
