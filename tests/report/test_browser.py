"""The page in a real browser: nothing fetched, no script error, the switch works, a telephone needs no sideways scrolling."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_training.report.dataset_cards import PageFacts
from llm_training.report.dataset_page import dataset_page
from tests.report.browser import NAMES, Browser, find_browser
from tests.report.hostile import PAYLOADS
from tests.report.test_dataset import collected

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A report with every section, and with every payload in it."""
    found = collected()
    for number, payload in enumerate(PAYLOADS):
        found.count_dropped(payload, number + 1)
        found.samples.items.append(found.samples.items[0].__class__(payload, payload, payload, quality=0.5, language=payload))
    path = tmp_path / "report.html"
    path.write_bytes(dataset_page(found, PageFacts("A report " + "long" * 30, ["texts/"], "a tokenizer", near_duplicates=(3, 63))))
    return path


def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path / "profile") as browser:
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        browser.open(page)
        light = browser.value(BACKGROUND)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        dark = browser.value(BACKGROUND)
        assert light == "rgb(250, 248, 244)" and dark == "rgb(19, 21, 25)", "it follows the system"

        browser.value("document.getElementById('theme').click()")
        assert browser.value(BACKGROUND) == light and "Dark" in browser.value("document.getElementById('theme').textContent")
        browser.open(page)
        assert browser.value(BACKGROUND) == light, "the choice is remembered"
        browser.value("document.getElementById('theme').click()")
        assert browser.value(BACKGROUND) == dark

        browser.value(
            "(() => { const bar = document.querySelector('rect[data-tip]'); const box = bar.getBoundingClientRect();"
            "bar.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: box.x, clientY: box.y})); })()"
        )
        assert browser.value("!tip.hidden && tip.textContent === document.querySelector('rect[data-tip]').getAttribute('data-tip')")

        for width in (360, 1280):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
            assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value("document.querySelectorAll('main script, main iframe, main img, main form, main [onclick]').length") == 0
        assert browser.value("window.stolen === undefined && !document.querySelector('h1 + h1')")
        assert {request.partition(":")[0] for request in browser.requests} <= {"file", "data"}
        assert not browser.errors
