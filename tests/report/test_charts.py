"""Charts: what is drawn is what was given, inside the picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from llm_training.report.charts import Bar, Mark, Row, histogram, label_span, legend, placed, rows
from llm_training.report.distribution_chart import distribution_histogram
from llm_training.report.numbers import three_digits
from llm_training.report.sketches import Distribution


def rectangles(markup: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(f"<root>{markup}</root>")
    return [element.attrib for element in root.iter("rect") if "bar" in element.get("class", "")]


def percent(text: str) -> float:
    return float(text.removesuffix("%"))


def test_columns_have_the_heights_of_their_values() -> None:
    drawn = histogram(
        "T", "D", [Bar(0, 0.5, 10, "ten"), Bar(0.5, 0.9, 5, "five"), Bar(0.9, 1, 0, "none")], [(0, "0"), (1, "1")], [Mark(0.3, "here")]
    )
    first, second = rectangles(drawn)
    assert float(first["height"]) == pytest.approx(2 * float(second["height"]))
    assert float(first["y"]) + float(first["height"]) == pytest.approx(float(second["y"]) + float(second["height"]))
    assert first["data-tip"] == "ten" and percent(second["x"]) == pytest.approx(50.1)
    assert 'role="img"' in drawn and 'aria-label="T: D"' in drawn and "<title>T</title>" in drawn and ">here<" in drawn


def test_rows_share_one_scale_and_their_parts_touch() -> None:
    drawn = rows([Row("a<b", [("s1", 3), ("s2", 1)], "4"), Row("c", [("s1", 2), ("s3", 0)], "2")])
    widths = [percent(each["width"]) for each in rectangles(drawn)]
    assert widths == [75, 25, 50] and percent(rectangles(drawn)[1]["x"]) == 75
    assert "a&lt;b" in drawn and "a<b" not in drawn
    assert percent(rectangles(rows([Row("a", [("s1", 1)], "1")], whole=4))[0]["width"]) == 25


def test_nothing_to_draw_is_drawn() -> None:
    assert rectangles(histogram("T", "D", [], [])) == [] and rectangles(rows([])) == []
    assert "no values" in distribution_histogram("T", Distribution(), "words")
    assert legend([("s2", "held out")]).count("held out") == 1


@pytest.mark.parametrize("values", [[5], [0, 0], [1, 1_000_000], [3.9, 4.1, 4.4, 0.3], list(range(1, 3000)), [10**12]])
def test_every_value_is_in_some_column(values: list[float]) -> None:
    found = Distribution()
    for value in values:
        found.add(value)
    drawn = distribution_histogram("T", found, "words")
    counted = [int(count.replace(",", "")) for count in re.findall(r"data-tip=\"[^\"]*: ([\d,]+) documents", drawn)]
    assert sum(counted) == sum(value > 0 for value in values) and len(counted) <= 40
    for each in rectangles(drawn):
        assert percent(each["x"]) >= 0 and percent(each["x"]) + percent(each["width"]) <= 100.2


def texts(markup: str, kind: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(f"<root>{markup}</root>")
    return [element.attrib | {"words": element.text or ""} for element in root.iter("text") if element.get("class") == kind]


@pytest.mark.parametrize(
    ("values", "least"), [([14] * 60, 3), ([4.1], 3), ([3.14, 3.3], 3), ([3.9, 4.4, 4.9], 3), ([1], 1), ([2, 2], 1), ([150, 900], 3)]
)
def test_every_axis_has_its_words(values: list[float], least: int) -> None:
    """Equal values too, which once were one block of the whole width with the other axis printed on it."""
    found = Distribution()
    for value in values:
        found.add(value)
    drawn = distribution_histogram("T", found, "words", show=three_digits, is_whole=all(value == int(value) for value in values))
    on_axis = [each for each in texts(drawn, "tick") if each["x"] != "-8"]
    shown = [float(each["words"]) for each in on_axis]
    assert len(shown) >= least and len(set(shown)) == len(shown) <= 8
    assert shown[0] <= 1.5 * min(values) and shown[-1] >= max(values) / 1.5
    for each in rectangles(drawn):
        assert percent(each["width"]) <= 50
    others = [each for each in texts(drawn, "tick") if each["x"] == "-8"]
    assert others and all(each["text-anchor"] == "end" for each in others), "the words of the other axis are outside of the columns"
    assert all(each["words"].isdigit() for each in others), "there is no half document"


@pytest.mark.parametrize("first", [0, 0.05, 0.28, 0.5, 0.9])
@pytest.mark.parametrize("second", [0, 0.28, 0.3, 0.55, 0.7, 0.97, 1])
def test_no_line_of_a_mark_runs_through_a_label(first: float, second: float) -> None:
    marks = [Mark(first, "worst tenth ≤ 0.2"), Mark(second, "median 0.9")]
    for width in (250, 700):
        for mark, (level, anchor) in zip(marks, placed(marks), strict=True):
            start, stop = label_span(mark, anchor, width)
            assert start >= -0.15 and stop <= 1.15, "inside the card"
            for other, (above, _) in zip(marks, placed(marks), strict=True):
                assert above >= level or not start < other.at < stop
    lines = [element.attrib for element in ElementTree.fromstring(histogram("T", "D", [], [], marks)).iter("line")]
    tops = {float(each["y1"]) for each in lines if each["class"] == "mark"}
    assert {float(each["y"]) + 5 for each in texts(histogram("T", "D", [], [], marks), "marked")} == tops and len(tops) == 2
