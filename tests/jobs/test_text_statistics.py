from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_training.jobs.text_statistics import SplitStatistics, cut_to_length, summary


def encode(text: str) -> list[int]:
    return list(text.encode())


@given(st.text(max_size=300), st.integers(8, 60))
def test_pieces_join_to_the_text_and_fit(text: str, limit: int) -> None:
    pieces = cut_to_length(text, limit, encode)
    assert "".join(pieces) == text
    assert all(len(encode(piece)) <= limit for piece in pieces)
    assert all(pieces) or text == ""


def test_cuts_fall_after_white_space() -> None:
    pieces = cut_to_length("alpha beta gamma delta epsilon zeta", 14, encode)
    assert pieces == ["alpha beta ", "gamma delta ", "epsilon zeta"]


def test_a_character_of_more_tokens_than_allowed_stays_whole() -> None:
    assert cut_to_length("🙂🙂", 3, encode) == ["🙂", "🙂"]


def test_summary_and_sums() -> None:
    assert summary([]) == {}
    assert summary([5, 1, 3]) == {"min": 1, "p10": 1, "median": 3, "p90": 5, "p99": 5, "max": 5, "mean": 3.0}
    found = SplitStatistics(with_lengths=True)
    found.add("two words", 4)
    found.add("é", 2)
    assert found.as_json()["num_bytes"] == 11 and found.as_json()["num_tokens"] == 6 and found.as_json()["num_words"] == 3
