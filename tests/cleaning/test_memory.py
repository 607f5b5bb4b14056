"""Memory of the steps: a few times the text for one long document, and none that grows with the number of short ones."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from llm_training.cleaning import Cleaner, CleaningSettings, TextView
from llm_training.cleaning.contamination import ContaminationIndex
from llm_training.cleaning.outcome import judged_part
from llm_training.cleaning.shingles import band_keys, shingles

MEGABYTE = 1 << 20
STEPS = ("normalise", "html", "gopher", "repetition", "c4", "fineweb", "pii")


def peak(function: Callable[[], object]) -> float:
    """Most memory taken while the function ran, megabytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / MEGABYTE
    finally:
        tracemalloc.stop()


def long_text(characters: int) -> str:
    rng = random.Random(1)
    words = [*["the", "be", "to", "of", "and", "that", "have", "with"], *("".join(rng.choices("abcdefghij", k=6)) for _ in range(4_000))]
    lines = ["The " + " ".join(rng.choices(words, k=14)) + ".\n" for _ in range(20_000)]
    text = "".join(rng.choices(lines, k=characters // 90))
    return text[:characters]


def test_a_long_document_takes_a_few_times_its_length() -> None:
    text = long_text(24_000_000)
    cleaner = Cleaner(CleaningSettings(steps=STEPS))
    assert peak(lambda: cleaner.clean(text)) < 250
    assert peak(lambda: ContaminationIndex([PROSE]).judge(TextView(text))) < 250
    assert peak(lambda: shingles(text)) < 250


PROSE = "An old man with a grey coat stood at the end of the pier and counted them as they passed, one by one."


def test_only_very_long_documents_are_judged_on_pieces() -> None:
    text = "x" * 8_000_000
    assert judged_part(text) is text
    lines = "".join(f"line {number} of the text\n" for number in range(500_000))
    part = judged_part(lines)
    assert 3_900_000 < len(part) < 4_000_100 and set(part.split("\n")) <= set(lines.split("\n"))
    assert part.startswith("line 0 of") and part.endswith("line 499999 of the text\n")
    numbers = [int(line.split()[1]) for line in part.split("\n") if line]
    assert numbers == sorted(set(numbers)) and max(np.diff(numbers)) < 30_000
    assert len(judged_part("y" * 9_000_000)) == 16 * 250_000 + 15


def test_a_test_is_found_anywhere_in_a_long_document() -> None:
    text = long_text(5_000_000)
    index = ContaminationIndex([PROSE])
    assert index.judge(TextView(text)) is None
    for place in (0, 1_048_550, 1_048_590, 3_000_000):
        verdict = index.judge(TextView(f"{text[:place]} {PROSE} {text[place:]}"))
        assert verdict is not None and verdict.reason == "contaminated"


def test_keys_of_many_short_documents_take_little() -> None:
    sets = [np.array([number], dtype=np.uint64) for number in range(20_000)]
    assert peak(lambda: band_keys(sets)) < 40
    few = np.concatenate([band_keys(sets[start : start + 700]) for start in range(0, 4_900, 700)], axis=1)
    assert np.array_equal(band_keys(sets[:4_900]), few)


@pytest.mark.parametrize("characters", [0, 10, 1_048_576, 3_000_000])
def test_shingles_do_not_depend_on_parts(characters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = long_text(characters)
    found = shingles(text)
    monkeypatch.setattr("llm_training.cleaning.words.PART_CHARACTERS", 1 << 40)
    assert np.array_equal(found, shingles(text))
