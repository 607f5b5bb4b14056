"""Statistics of documents, and the page made of them."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator

import pytest

from llm_training.report.dataset import DatasetStatistics, Seen, distinct_runs
from llm_training.report.dataset_cards import NearFacts, PageFacts
from llm_training.report.dataset_page import dataset_page
from tests.report.hostile import PAYLOADS, Structure


def documents() -> Iterator[Seen]:
    for number in range(60):
        split = "validation" if number % 10 == 0 else "train"
        text = f"the cat sat on mat {number} " * (1 + number % 7)
        language = "de" if number % 4 == 0 else "en"
        yield Seen(f"doc-{number}", text, f"file-{number % 3}", split, len(text) // 4, (number % 11) / 10, language)
    yield Seen("again", "the cat  sat on mat 7 " * 1, "file-0", "validation")
    yield Seen("garbled", "a \x07 bell", "file-1")
    yield Seen("empty", " \n", "file-1")


def collected() -> DatasetStatistics:
    found = DatasetStatistics(num_samples=4, seed=1)
    for document in documents():
        found.add(document)
    found.count_dropped("too short", 12)
    found.add_dropped(Seen("gone", "x", "dropped", reason="too short"))
    return found


def test_sums_are_those_of_the_documents() -> None:
    found, given = collected(), list(documents())
    assert found.total.num_documents == len(given) == sum(sizes.num_documents for sizes in found.by_split.values())
    assert found.total.num_bytes == sum(len(document.text.encode()) for document in given)
    assert found.total.num_words == sum(len(document.text.split()) for document in given)
    assert set(found.by_group) == {"file-0", "file-1", "file-2"} and found.languages.total() == 60
    assert (found.num_garbled, found.num_empty) == (1, 1)
    assert found.repeats.counts().num_leaked == 1
    assert found.worst[0].quality == 0 and len(found.worst) == 4
    assert found.longest[0].num_bytes == max(len(document.text) for document in given)
    plain = found.to_json()
    assert plain["dropped"] == {"too short": 12} and plain["top_ngrams"]["1"][0][0] in ("the", "cat", "sat", "on", "mat")
    assert plain["quality"] == {"p10": 0.0, "p50": 0.4, "p90": 0.9}


def test_a_run_that_is_another_moved_by_a_word_is_shown_once() -> None:
    sentence = ("this", "page", "needs", "a", "newer", "browser", "to", "be", "shown")
    windows = [(sentence[start : start + 5], 100 - start) for start in range(5)]
    other = (("a", "b", "c", "d", "e"), 50)
    assert distinct_runs([*windows, other], 5) == [("this page needs a newer", 100), ("a newer browser to be", 97), ("a b c d e", 50)]
    assert distinct_runs([(("of", "the"), 3), (("the", "of"), 2)], 5) == [("of the", 3), ("the of", 2)]


def test_the_page_is_the_same_for_the_same_documents() -> None:
    facts = PageFacts("Title", ["texts/"], "a tokenizer", missing=["nothing"])
    assert dataset_page(collected(), facts) == dataset_page(collected(), facts)


def test_the_page_names_what_a_reader_asks_for() -> None:
    text = dataset_page(collected(), PageFacts("Title", ["texts/"], "a tokenizer", near=NearFacts(3, 63, 1))).decode()
    for words in (
        "Document lengths in words",
        "Bytes per token",
        "Splits",
        "Text by file",
        "Quality scores",
        "Languages",
        "How often a text occurs",
        "near-duplicates of another text",
        "Runs of five words",
        "Reasons",
        "too short",
        "Samples",
        "Lowest quality",
        "hold control characters",
    ):
        assert words in text, words


def test_a_single_document_and_no_measures_give_a_page() -> None:
    found = DatasetStatistics()
    found.add(Seen("only", "漢字", "file"))
    text = dataset_page(found, PageFacts("One", ["file"])).decode()
    assert "<dt>document</dt><dd>1</dd>" in text and "1 document drawn evenly." in text
    assert "Quality scores" not in text and "Bytes per token" not in text and "Splits" not in text


def hostile(text: str) -> DatasetStatistics:
    found = DatasetStatistics(num_samples=4)
    for number, split in enumerate(("train", "validation", text)):
        found.add(Seen(text + str(number), f"{text} word {text}", f"{text}{number}", split, 5, 0.3, text))
    found.count_dropped(text, 3)
    found.add_dropped(Seen(text, text, text, reason=text))
    return found


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_in_every_field_are_text(payload: str) -> None:
    """Id, text, group, split, language, reason, title, source, tokenizer, field name, remarks."""

    def page(text: str) -> Structure:
        return Structure(dataset_page(hostile(text), PageFacts(text, [text], text, text, NearFacts(1, 2, 1), [text])).decode())

    plain, found = page("plain words here"), page(payload)
    assert set(found.tags) == set(plain.tags) and set(found.attributes) == set(plain.attributes) and found.links == plain.links
    assert found.tags["script"] == 1 and found.tags["style"] == 1 and found.tags["article"] == plain.tags["article"]


def test_memory_does_not_grow_with_the_text() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        found = DatasetStatistics(exact_words=10_000)
        for number in range(count):
            found.add(Seen(f"d{number}", f"{number} " + " ".join(f"w{number}x{k}" for k in range(200)), "f", "train", 100, 0.5, "en"))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak(600) < 1.25 * peak(300)


def test_only_languages_count_as_languages() -> None:
    found = DatasetStatistics()
    for number, code in enumerate(("uncertain", "uncertain", "zxx", "an", "en", "en")):
        found.add(Seen(f"d{number}", f"words {number}", "file", language=code))
    text = dataset_page(found, PageFacts("T", ["file"])).decode()
    assert "<dt>languages</dt><dd>2</dd>" in text and "English is the main language, with 33.3 % of" in text
    assert ">Aragonese<" in text and ">uncertain<" in text and ">no language<" in text
    nothing = DatasetStatistics()
    nothing.add(Seen("d", "123", "file", language="zxx"))
    text = dataset_page(nothing, PageFacts("T", ["file"])).decode()
    assert "<dt>languages</dt><dd>0</dd>" in text and "No language was found with certainty." in text


def test_reasons_that_have_no_row_are_counted_in_the_last_one() -> None:
    found = DatasetStatistics()
    found.add(Seen("kept", "words", "file"))
    for number in range(21):
        found.count_dropped(f"reason {number}", 100 - number)
    text = dataset_page(found, PageFacts("T", ["file"])).decode()
    card = text[text.index("<h3>Reasons</h3>") : text.index("</figure>", text.index("<h3>Reasons</h3>"))]
    rows, table = card.split("<details>")
    counts = [int(count.replace(",", "")) for count in re.findall(r'<span class="value">([\d,]+) · ', rows)]
    assert len(counts) == 20 and sum(counts) == sum(range(80, 101)) and "2 other reasons, in the table" in rows
    assert "for 21 reasons." in rows and table.count("<tr>") == 22
    found.dropped.pop("reason 20")
    assert "other reason" not in dataset_page(found, PageFacts("T", ["file"])).decode()


def test_runs_are_counted_exactly_and_what_is_left_out_is_said() -> None:
    """Of runs that overlap the first is shown, and the caption says so; a sketch is named where it begins."""
    generator = random.Random(2)
    noise = [f"w{int(generator.paretovariate(0.6)) % 9000}" for _ in range(60_000)]
    texts = [" ".join([*noise[start : start + 60], *"the end of this section".split()]) for start in range(0, len(noise), 60)]  # noqa: SIM905

    def page(exact_words: int) -> tuple[DatasetStatistics, str]:
        found = DatasetStatistics(exact_words=exact_words)
        for number, text in enumerate(texts):
            found.add(Seen(f"d{number}", text, "file"))
        return found, dataset_page(found, PageFacts("T", ["file"])).decode()

    exact, text = page(100_000)
    assert exact.top_runs(5, 1) == [("the end of this section", 1000)] and exact.to_json()["top_ngrams_too_low_by"]["5"] == 0
    assert text.count("most frequent that do not overlap: of runs that share more than half of their words") == 2
    assert "too low" not in text
    sketched, text = page(1000)
    assert sketched.runs.error(5) > 0 and f"counts may be up to {sketched.runs.error(5):,} too low" in text
