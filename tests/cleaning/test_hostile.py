"""Texts made to take long: the time of every step grows no faster than their length."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from llm_training.cleaning import C4Quality, Cleaner, CleaningSettings, FineWebQuality, GopherQuality, GopherRepetition, TextView
from llm_training.cleaning.html import is_html
from llm_training.cleaning.normalise import normalise
from llm_training.cleaning.pii import mask
from llm_training.cleaning.words import count_sentences, sentence_spans
from llm_training.pages import extract_page, strip_tags

CHARACTERS = 12_500
TIMES = 16
PIECES = (
    "<!-- a -->\n", "<!--", "<?xml ", "</p", "</p ", "<", "<div", "<div>", "</div>", '<a b="', "<a b='c' ", "=\"", "<script>", "<b id=",
    "&#9",
    ".", "!?", ".)", '."', ". ", "…", "\n", "\r\n", " ", "\t", "#", "-", "•",
    "\x1b", "\x1b[", "\x1b[0;", "\x00", "\ufeff", "â€", "Ã©", "Ã", "ðŸ˜", "e\u0301", "\u0301",
    "@", "a@", "a.", "a.b", "!a.", "@a.", "a-", "1", "+1", "+", " +1 ", "(555) ", "555-", "1.", "1.1.1.1.", ":", "::", "a:", "ff:",
    "version ",
    "[", "[1", "[edit]", "{", "lorem", "word ", "the the ", "x", "\u2028",
)  # fmt: skip


def seconds(function: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    function(text)
    return time.process_time() - start


def assert_linear(function: Callable[[str], object], make: Callable[[int], str]) -> None:
    """Sixteen times the length takes sixteen times as long; a square would take 256 times."""
    small = max(0.002, min(seconds(function, make(CHARACTERS)) for _ in range(2)))
    assert seconds(function, make(CHARACTERS * TIMES)) < 5 * TIMES * small


@pytest.mark.parametrize("start", ["", "<p>@ 555- ::</p>"])
@pytest.mark.parametrize(
    "function",
    [is_html, normalise, mask, sentence_spans, lambda text: count_sentences(text, 10**9), extract_page, strip_tags],
    ids=["is_html", "normalise", "mask", "sentence_spans", "count_sentences", "extract_page", "strip_tags"],
)
def test_patterns_are_linear(function: Callable[[str], object], start: str) -> None:
    for piece in PIECES:
        assert_linear(function, lambda size, piece=piece: start + piece * (size // len(piece)))


@pytest.mark.parametrize("rule", [GopherQuality(min_words=0), GopherRepetition(), C4Quality(), FineWebQuality()])
def test_rules_are_linear(rule: GopherQuality) -> None:
    for piece in PIECES:
        assert_linear(lambda text: rule.judge(TextView(text)), lambda size, piece=piece: "a b" + piece * (size // len(piece)))


@pytest.mark.parametrize(
    "page",
    [
        "<!-- badge -->\n" * 40 + "# Title\n<b>Hello</b>",
        "<html><body>" + "<div>" * 50_000 + "deep" + "</div>" * 50_000,
        "<html><body>" + "".join(f"<div><b id={number}>deep</div>" for number in range(30_000)),
        "<html><body>" + "".join(f"<font size={number}>" for number in range(300)) + "<p>deep</p>" * 20_000,
        "<html><body>" + "".join("<div></span>" for _ in range(50_000)) + "deep",
        "<html><body>" + "<div title='</div>'><script>'</div>'</script><!-- </div> -->" * 20_000 + "deep",
        "<html><body><div " + " ".join(f"a{number}=1" for number in range(60_000)) + ">deep</div>",
    ],
    ids=["comments", "nested", "styles", "styles before blocks", "wrong ends", "hidden ends", "attributes"],
)
def test_no_page_takes_for_ever(page: str) -> None:
    assert seconds(Cleaner(CleaningSettings(steps=("html",))).clean, page) < 2
    if page.startswith("<html>"):
        assert "deep" in extract_page(page)
