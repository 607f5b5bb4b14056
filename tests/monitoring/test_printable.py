import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.monitoring.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("naïve — 漢字 👩‍🔬", "naïve — 漢字 👩‍🔬"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\x00b\x07", "a\\x00b\\x07"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\x9bC1", "\\x9bC1"),
        ("one\ntwo", "one\\ntwo"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
    ],
)
def test_control_characters_are_shown_by_their_escapes(raw, shown):
    assert printable(raw) == shown


def test_lines_keep_their_breaks_and_tabs_become_spaces():
    assert printable_lines("def f():\r\n\treturn 1\n") == ["def f():", "    return 1", ""]


@given(st.text(st.characters(codec=None)))
def test_nothing_that_moves_a_cursor_survives(text):
    for line in [printable(text), *printable_lines(text)]:
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line)
        line.encode("utf-8")
