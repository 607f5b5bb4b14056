"""Charts: what is drawn is what was given, inside the picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from llm_training.report.charts import Bar, Mark, Row, histogram, legend, rows
from llm_training.report.distribution_chart import distribution_histogram
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
