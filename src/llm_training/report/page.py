"""A page in one file: nothing is fetched, and the policy in its head allows only the style and the script that it carries.

The parts are cards, tables, samples of text; what they say is the caller's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from llm_training.report.markup import Markup, joined, tag
from llm_training.report.theme import script, style_sheet


def page(title: str, lead: str, parts: Sequence[Markup], footer: str) -> bytes:
    """The whole file, UTF-8. Lone surrogates, which no file can hold, become question marks."""
    style, code = style_sheet(), script()
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(code)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    switch = tag("button", "Theme", id="theme", type="button", hidden="")
    body = tag(
        "body",
        tag("header", tag("h1", title), switch, tag("p", lead, class_="lead")),
        tag("main", *parts),
        tag("footer", tag("p", footer)),
        tag("div", id="tip", role="tooltip", hidden=""),
        tag("script", Markup(code)),
    )
    return joined(Markup("<!DOCTYPE html>\n"), tag("html", head, body, lang="en")).encode(errors="replace")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def tiles(facts: Mapping[str, str]) -> Markup:
    """The figures at the top: name to value."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="tiles")


def section(title: str, intro: str, *children: object) -> Markup:
    """A heading, a sentence, and what follows."""
    return tag("section", tag("h2", title), tag("p", intro, class_="intro"), *children)


def grid(*cards: Markup | None, is_narrow: bool = False) -> Markup:
    """Cards beside each other as far as there is room: three on a screen, four narrow ones."""
    return tag("div", *cards, class_="grid narrow" if is_narrow else "grid")


def card(title: str, sentence: str, chart: Markup, numbers: Markup | None = None, *, is_wide: bool = False) -> Markup:
    """A chart with what it says in words, and the same as a table for those who want or need one."""
    details = tag("details", tag("summary", "As a table"), numbers) if numbers is not None else None
    caption = tag("figcaption", tag("h3", title), tag("p", sentence))
    return tag("figure", caption, chart, details, class_="card wide" if is_wide else "card")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> Markup:
    """A table whose first ``words`` columns are text and whose others are numbers."""
    kinds = [None if number < words else "n" for number in range(len(columns))]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(columns, kinds, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def notes(lines: Sequence[str]) -> Markup | None:
    """What a reader should look at first; nothing when there is nothing."""
    return tag("ul", *(tag("li", line) for line in lines), class_="notes") if lines else None


def sample(name: str, facts: Sequence[str], text: str, chip: str = "") -> Markup:
    """One document (the parser drops the line break after ``pre``): its name, facts about it, a reason if it has one, and its text."""
    head = [tag("b", tag("bdi", name)), tag("span", chip, class_="chip") if chip else None, *(tag("span", fact) for fact in facts)]
    return tag(
        "article", tag("div", *head, class_="facts"), tag("pre", "\n" + text, class_="text", dir="auto", tabindex="0"), class_="sample"
    )
