"""Escaping: a text is never a tag, and unseen characters are seen."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training.report.markup import clipped, escaped, joined, tag, visible
from tests.report.hostile import PAYLOADS, Structure


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_are_text_in_content_and_in_attributes(payload: str) -> None:
    found = Structure(tag("p", payload, data_tip=payload))
    assert found.tags == {"p": 1} and found.attributes == {("p", "data-tip"): 1}
    assert "".join(found.text) == visible(payload)


@given(st.text())
def test_escaping_is_undone_by_the_parser_and_by_nothing_else(text: str) -> None:
    shown = escaped(text)
    assert not set(shown) & set("<>\"'")
    assert html.unescape(shown) == visible(text)
    assert escaped(shown) is shown


def test_unseen_characters_are_shown() -> None:
    assert visible("a\x00b\x1b[31m\x7f\r\nc\u202ed\tend") == "a␀b␛[31m␡\ncd\tend".replace("cd", "c[U+202E]d")
    assert visible("é 漢字 👍🏽 \u200d") == "é 漢字 👍🏽 \u200d"
    assert visible("\ud800") == "[U+D800]"


def test_elements_and_attributes() -> None:
    assert tag("td", 3, class_="n", title=None) == '<td class="n">3</td>'
    assert tag("rect", text_anchor="end") == '<rect text-anchor="end"/>'
    assert joined("a<", None, tag("b", "c")) == "a&lt;<b>c</b>"


@pytest.mark.parametrize("name", ["onclick", "style", "a b", "x>"])
def test_attributes_that_the_policy_forbids_are_a_mistake_of_ours(name: str) -> None:
    with pytest.raises(AssertionError):
        tag("p", "x", **{name: "y"})


def test_clipping_keeps_combined_characters_whole() -> None:
    assert clipped("abc", 3) == "abc" and clipped("abcd", 3) == "ab…"
    assert clipped("e\u0301e\u0301e\u0301", 4) == "e\u0301…"
