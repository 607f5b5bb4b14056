"""The form that rules judge: hard-wrapped prose as paragraphs, everything else as it is."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from llm_training.cleaning import C4Quality, Cleaner, CleaningSettings, TextView
from llm_training.cleaning.wrapping import paragraph_form

WORDS = [
    *("the", "old", "harbour", "of", "that", "town", "was", "never", "quiet", "and", "every", "morning"),
    *("its", "fishermen", "carried", "nets", "along", "a", "narrow", "wall"),
]


def lines_of(low: int, high: int, count: int = 60, seed: int = 1) -> list[str]:
    """Lines of so many characters that end for no reason of width."""
    rng = random.Random(seed)
    drawn = (" ".join(rng.choices(WORDS, k=rng.randint(4, 13))) for _ in iter(int, 1))
    return list(itertools.islice((line for line in drawn if low <= len(line) <= high), count))


def prose(paragraphs: int = 12, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(40, 120))).capitalize() + "." for _ in range(paragraphs)]


@pytest.mark.parametrize("width", [50, 65, 72, 78, 100])
def test_hard_wrapped_paragraphs_are_lines_again(width: int) -> None:
    paragraphs = prose(seed=width)
    wrapped = "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs)
    assert paragraph_form(wrapped).rstrip("\n") == "\n\n".join(paragraphs)


@pytest.mark.parametrize(
    "text",
    [
        "\n\n".join(prose()),
        "\n".join(prose()),
        "short\ntext",
        "",
        "\n".join(" ".join(line) for line in zip(WORDS * 3, WORDS[3:] * 3, WORDS[5:] * 3, WORDS[7:] * 3, strict=False)),
        "\n".join(f"- {word} of the {other}" for word in WORDS for other in WORDS[:3]),
        "\n".join(lines_of(30, 60)),
        "\n".join(line.ljust(60, ".") for line in lines_of(45, 60)),
        "\n".join(f"2024-01-{day:02} 10:{day + 20}:11 INFO {line}" for day, line in enumerate(lines_of(30, 60, 28), 1)),
        "\n".join(",".join(str(1_000_003 * row * column % 999_983) for column in range(3, 11)) for row in range(1, 60)),
        "\n".join(chr(0x4E00 + row) * (45 + row * 7 % 15) for row in range(60)),
        "def run(number):\n    total = 0\n    for place in range(number):\n        total += place\n    return total\n\n\n" * 9,
    ],
    ids=["paragraphs", "lines", "short", "empty", "verse", "list", "long-verse", "table", "log", "numbers", "chinese", "code"],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert paragraph_form(text) is text


def test_verse_within_a_wrapped_book_keeps_its_lines() -> None:
    song = "\n".join(["Row, row, row your boat", "gently down the stream,", "merrily, merrily, merrily,", "life is but a dream."])
    wrapped = "\n\n".join([*(textwrap.fill(paragraph, 72) for paragraph in prose()), song])
    assert song in paragraph_form(wrapped)


def test_white_space_at_line_ends_hides_no_mark() -> None:
    text = "".join(f" {paragraph} \n\n" for paragraph in prose())
    assert paragraph_form(text).split("\n\n")[0].endswith(".")


def test_a_run_of_blanks_takes_no_longer_than_its_length() -> None:
    text = f"a{' ' * 4_000_000}b\n" + "words \n" * 20
    began = time.process_time()
    assert paragraph_form(text).startswith("a ")
    assert time.process_time() - began < 2.0


def test_rules_other_than_those_of_lines_see_the_text_as_it_is() -> None:
    """A line about scripts is set aside, not the paragraph around it."""
    paragraph = f"A word on JavaScript came first. {' '.join(prose(6))}"
    wrapped = textwrap.fill(paragraph, 72)
    assert "JavaScript" in wrapped and C4Quality(needs_terminal=False).judge(TextView(wrapped)) is None
    assert Cleaner(CleaningSettings(steps=("c4",))).clean(wrapped).verdict is None


@pytest.mark.data
@pytest.mark.slow
def test_wrapping_makes_no_difference_to_the_verdict(test_data: Path) -> None:
    """Passages of books and textbooks as paragraphs, and wrapped at 72 characters."""
    cleaner = Cleaner(CleaningSettings())
    verdicts: Counter[tuple[str | None, str | None]] = Counter()
    for path in (test_data / "gutenberg" / "valid.jsonl.gz", test_data / "openstax" / "valid.jsonl.gz"):
        with gzip.open(path, "rt") as lines:
            for row in map(json.loads, lines):
                paragraphs = [" ".join(paragraph.split()) for paragraph in row["text"].split("\n\n")][:40]
                straight = cleaner.clean("\n\n".join(paragraphs)).reason
                wrapped = cleaner.clean("\n\n".join(textwrap.fill(paragraph, 72) for paragraph in paragraphs)).reason
                verdicts[straight, wrapped] += 1
    assert verdicts.total() > 40 and all(straight == wrapped for straight, wrapped in verdicts), verdicts


def test_one_bracket_does_not_judge_a_book() -> None:
    page, book = f"{prose(1)[0]} See {{1}}.", f"{' '.join(prose(40))} See {{1}}."
    published, eased = C4Quality(), C4Quality(min_sentences=2, max_curly_brackets_per_word=0.001)
    assert C4Quality(min_sentences=1, max_curly_brackets_per_word=-1).judge(TextView(page)) is None
    for rule, text, reason in ((published, page, True), (published, book, True), (eased, page, True), (eased, book, False)):
        verdict = rule.judge(TextView(text))
        assert (verdict is not None and verdict.reason == "curly_bracket") is reason
