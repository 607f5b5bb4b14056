"""llm-analyze-data: what the page holds for real folders, the same page twice, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.report.hostile import PAYLOADS, Structure

from llm_training.errors import ConfigError, DataError
from llm_training.events import EventBus, Notice
from llm_training.jobs import data_measures
from llm_training.jobs.analyze_data import analyze_data
from llm_training.jobs.clean_corpus import cleaning_plan
from llm_training.jobs.prepare import prepare


def write_records(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    words = "The river ran down to the sea and the people of the town walked along it in the evening".split()  # noqa: SIM905
    records = []
    for number in range(90):
        text = " ".join(words[: 6 + number % 12]) + f" {number}."
        records.append({"id": f"d{number}", "text": text, "book": f"book {number % 3}"})
    return write_records(tmp_path / "raw.jsonl", [*records, records[4] | {"id": "copy"}, {"id": "bad", "text": 3}])


def test_a_file_without_a_tokenizer(texts: Path, tmp_path: Path) -> None:
    result = analyze_data([str(texts)], str(tmp_path / "new" / "page.html"), group_by="book")
    found = result.statistics
    assert found["total"]["num_documents"] == 91 and found["total"]["num_tokens"] == 0
    assert found["repeats"]["num_copies"] == 1 and found["dropped"] == {"text not a string": 1}
    assert set(found["by_group"]) == {"book 0", "book 1", "book 2"} and found["languages"]["en"] > 80
    text = (tmp_path / "new" / "page.html").read_text()
    assert "no tokenizer was given" in text and "Text by book" in text and "text not a string" in text
    assert result.facts()["Copies"] == "1" and "Bytes per token" not in result.facts()


def test_many_files_are_compared_by_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / "many" / folder).mkdir(parents=True)
        for number in range(25):
            (tmp_path / "many" / folder / f"{number}.txt").write_text(f"{folder} text {number}\n")
    found = analyze_data([str(tmp_path / "many")], str(tmp_path / "page.html")).statistics
    assert set(found["by_group"]) == {"many/one", "many/two"} and "Text by folder" in (tmp_path / "page.html").read_text()
    found = analyze_data([str(tmp_path / "many" / "one")], str(tmp_path / "page.html")).statistics
    assert len(found["by_group"]) == 25


def test_prepared_data_brings_its_tokenizer_and_its_reasons(texts: Path, tmp_path: Path) -> None:
    prepare([str(texts)], str(tmp_path / "data"), vocab_size=280, skip_bad=True)
    for place in (tmp_path / "data", tmp_path / "data" / "train.json"):
        result = analyze_data([str(place)], str(tmp_path / "page.html"))
        assert result.statistics["bytes_per_token"]["count"] > 80
        assert result.statistics["dropped"] == {"text not a string": 1}, "as it is called when the raw file is looked at"
    assert set(analyze_data([str(tmp_path / "data")], str(tmp_path / "page.html")).statistics["by_split"]) == {"train", "validation"}


def test_dropped_documents_are_shown_with_their_reasons(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dropped"
    folder.mkdir()
    write_records(folder / "dropped.jsonl", [{"id": "x", "text": "buy now buy now", "reason": "repeated words"}])
    analyze_data([str(texts)], str(tmp_path / "page.html"), dropped_folder=str(folder))
    text = (tmp_path / "page.html").read_text()
    assert "buy now buy now" in text and "repeated words" in text
    cleaning = cleaning_plan((), languages=("en",), min_length=0, min_quality=0.2, near_similarity=0.8, tests=())
    prepare([str(texts)], str(tmp_path / "data"), vocab_size=280, skip_bad=True, cleaning=cleaning, keep_dropped=str(tmp_path / "kept"))
    found = analyze_data([str(tmp_path / "data")], str(tmp_path / "page.html"), dropped_folder=str(tmp_path / "kept")).statistics
    text = (tmp_path / "page.html").read_text()
    assert found["dropped"]["score: low_quality"] > 3 and text.count('<span class="chip">score: low_quality</span>') == 2
    with pytest.raises(ConfigError, match="no such directory"):
        analyze_data([str(texts)], str(tmp_path / "page.html"), dropped_folder=str(tmp_path / "none"))


def test_what_reading_left_out_has_one_name(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    steps = [{"step": "read", "reason": "not a page"}, {"step": "score", "reason": "low_quality"}, {"reason": "by hand"}]
    write_records(tmp_path / "kept" / "gone.jsonl", [{"id": f"g{n}", "text": f"gone {n}"} | step for n, step in enumerate(steps)])
    analyze_data([str(texts)], str(tmp_path / "page.html"), dropped_folder=str(tmp_path / "kept"))
    chips = re.findall(r'<span class="chip">([^<]*)</span>', (tmp_path / "page.html").read_text())
    assert sorted(chips) == ["by hand", "not a page", "score: low_quality"]


def test_the_same_data_gives_the_same_page(texts: Path, tmp_path: Path) -> None:
    pages = []
    for _ in range(2):
        analyze_data([str(texts)], str(tmp_path / "page.html"), tokenizer="bytes", seed=3, num_samples=5)
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]
    analyze_data([str(texts)], str(tmp_path / "page.html"), tokenizer="bytes", seed=4, num_samples=5)
    assert (tmp_path / "page.html").read_bytes() != pages[0]


def test_large_data_is_measured_on_a_stable_sample(texts: Path, tmp_path: Path) -> None:
    whole = analyze_data([str(texts)], str(tmp_path / "page.html"))
    part = [analyze_data([str(texts)], str(tmp_path / "page.html"), measured_bytes=3000).statistics for _ in range(2)]
    assert part[0] == part[1] and part[0]["total"] == whole.statistics["total"]
    assert 0 < part[0]["measured_documents"] < whole.statistics["measured_documents"]
    assert "even sample of" in (tmp_path / "page.html").read_text()


def test_what_is_no_text_does_not_make_data_large(tmp_path: Path) -> None:
    """Other fields and bad records: they make the file larger than --measured-bytes, the text is not."""
    records = [{"id": f"d{number}", "text": f"the river ran to the sea {number}", "other": "x" * 2000} for number in range(300)]
    path = write_records(tmp_path / "raw.jsonl", [*records, {"text": 3, "other": "x" * 500_000}])
    found = analyze_data([str(path)], str(tmp_path / "page.html"), measured_bytes=10_000).statistics
    assert path.stat().st_size > 1_000_000 and found["total"]["num_bytes"] < 10_000
    assert found["measured_documents"] == 300 and found["near_duplicates"] is not None
    assert "--measured-bytes" not in (tmp_path / "page.html").read_text()
    found = analyze_data([str(path)], str(tmp_path / "page.html"), measured_bytes=5_000).statistics
    assert 0 < found["measured_documents"] < 300 and found["near_duplicates"] is None


def test_a_field_that_no_record_has_is_one_warning(texts: Path, tmp_path: Path) -> None:
    bus, seen = EventBus(), []
    bus.subscribe(seen.append)
    analyze_data([str(texts)], str(tmp_path / "page.html"), group_by="nosuch", bus=bus)
    warnings = [event.message for event in seen if isinstance(event, Notice) and event.level == "warning"]
    assert warnings == ["no record has the field nosuch (--group-by); fields are book"]
    assert "no record has the field nosuch" in (tmp_path / "page.html").read_text()
    seen.clear()
    write_records(texts, [{"text": "only text"}])
    analyze_data([str(texts)], str(tmp_path / "page.html"), group_by="nosuch", bus=bus)
    warnings = [event.message for event in seen if isinstance(event, Notice)]
    assert warnings == ["no record has the field nosuch (--group-by); the records have none but text and id"]
    seen.clear()
    write_records(texts, [{"text": "one"}, {"text": "two", "nosuch": "here"}])
    analyze_data([str(texts)], str(tmp_path / "page.html"), group_by="nosuch", bus=bus)
    assert not [event for event in seen if isinstance(event, Notice)]


def test_hostile_documents_stay_text(tmp_path: Path) -> None:
    plain = write_records(
        tmp_path / "plain.jsonl", [{"id": f"n{n}", "text": f"words {n}", "source": f"s{n}"} for n in range(len(PAYLOADS))]
    )
    hostile = write_records(tmp_path / "hostile.jsonl", [{"id": p, "text": f"{p} {n}", "source": p} for n, p in enumerate(PAYLOADS)])
    pages = []
    for path in (plain, hostile):
        analyze_data([str(path)], str(tmp_path / "page.html"), group_by="source", tokenizer="bytes", title=path.name, num_samples=40)
        pages.append(Structure((tmp_path / "page.html").read_text()))
    assert set(pages[1].tags) == set(pages[0].tags) and set(pages[1].attributes) == set(pages[0].attributes)
    assert pages[1].tags["script"] == 1 and pages[1].tags["article"] == pages[0].tags["article"] and pages[1].links == ["data:,"]


def test_a_missing_library_is_one_line_of_the_page(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_text: str) -> tuple[str, float]:
        raise ConfigError("telling languages apart needs py3langid", remedy="pip install 'llm-training[data]'")

    monkeypatch.setattr(data_measures, "identify", refuse)
    result = analyze_data([str(texts)], str(tmp_path / "page.html"))
    assert result.statistics["languages"] is None and "needs py3langid" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("keywords", "error", "expected"),
    [
        ({"inputs": []}, ConfigError, "no data was given"),
        ({"num_samples": 999}, ConfigError, "--samples is 999"),
        ({"measured_bytes": 0}, ConfigError, "--measured-bytes is 0"),
        ({"inputs": ["nowhere"]}, DataError, "nowhere"),
        ({"tokenizer": "./none.json"}, ConfigError, "none.json"),
    ],
)
def test_wrong_settings(texts: Path, tmp_path: Path, keywords: dict, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        analyze_data(**{"inputs": [str(texts)], "output": str(tmp_path / "page.html")} | keywords)
    assert not (tmp_path / "page.html").exists()


def test_token_ids_have_no_text(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match="token ids have no text"):
        analyze_data([f"token-ids:{tmp_path / 'tokens.txt'}"], str(tmp_path / "page.html"))


def test_torch_is_not_needed(texts: Path, tmp_path: Path, repository: Path) -> None:
    code = (
        "import sys; from llm_training.jobs.analyze_data import analyze_data; from llm_training.jobs.validate_data import validate_data;"
        f"analyze_data([{str(texts)!r}], {str(tmp_path / 'page.html')!r}); sys.exit('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(repository / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.data
@pytest.mark.slow
def test_the_messy_set(test_data: Path, tmp_path: Path) -> None:
    messy = test_data / "messy" / "messy.jsonl.gz"
    found = analyze_data([str(messy)], str(tmp_path / "page.html"), tokenizer=str(test_data / "gpt2" / "tokenizer.json")).statistics
    labels = [json.loads(line) for line in (test_data / "messy" / "labels.jsonl").read_text().splitlines()]
    malformed = json.loads((test_data / "messy" / "malformed_lines.json").read_text())
    with gzip.open(messy, "rt", errors="replace") as file:
        num_lines = sum(1 for _ in file)
    assert found["total"]["num_documents"] + sum(found["dropped"].values()) == num_lines and len(malformed) == 13
    copies = {label["id"] for label in labels if label["category"] in ("exact_dup", "whitespace_dup")}
    assert abs(found["repeats"]["num_copies"] + found["repeats"]["num_spaced_copies"] - len(copies)) <= 2
    near = sum(label.get("word5gram_jaccard", 0) >= 0.8 for label in labels)
    assert 0.97 * near <= found["near_duplicates"]["num_near"] <= 2.5 * near
    foreign = sum(label["category"] == "non_en" for label in labels)
    assert sum(count for code, count in found["languages"].items() if code != "en") >= 0.9 * foreign
    assert found["quality"]["p10"] < 0.3 and found["quality"]["p50"] > 0.9
    assert Structure((tmp_path / "page.html").read_text()).links == ["data:,"]
