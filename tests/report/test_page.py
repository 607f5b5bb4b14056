"""The page as a whole: its policy, its colours, its structure."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from llm_training.report import page as parts
from llm_training.report.theme import DARK, LIGHT
from tests.report.hostile import PAYLOADS, Structure


def luminance(colour: str) -> float:
    values = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough_for_letters_and_for_bars(theme: dict[str, str]) -> None:
    for ground in ("paper", "card", "track"):
        for letters in ("ink", "muted"):
            assert contrast(theme[letters], theme[ground]) >= 4.5, (letters, ground)
    for series in ("s1", "s2", "s3", "s4", "s5"):
        assert contrast(theme[series], theme["card"]) >= 3 and contrast(theme[series], theme["track"]) >= 3, series


def make(text: str) -> str:
    body = parts.section(text, text, parts.tiles({text: text}), parts.grid(parts.card(text, text, parts.table((text,), [(text,)]))))
    lines = parts.notes([text])
    assert lines is not None
    return parts.page(text, text, [body, lines, parts.sample(text, [text], text, text)], text).decode()


def test_the_policy_allows_what_the_page_carries_and_nothing_else() -> None:
    text = make("plain")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    policy = policy.replace("&#x27;", "'")
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<script>")
    assert Structure(text).links == ["data:,"]
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL))
    assert "@import" not in text and "url(" not in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_add_no_element_and_no_attribute(payload: str) -> None:
    plain, hostile = Structure(make("plain")), Structure(make(payload))
    assert hostile.tags == plain.tags and hostile.attributes == plain.attributes and hostile.links == plain.links


def test_a_lone_surrogate_does_not_stop_the_page() -> None:
    assert "[U+D800]" in make("a\ud800b")


def test_tables_say_which_columns_are_numbers() -> None:
    assert parts.table(("name", "count"), [("a", "1")]).count('class="n"') == 2
    assert parts.notes([]) is None
