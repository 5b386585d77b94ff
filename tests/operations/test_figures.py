"""The charts are valid, safe, the same bytes each time, and say what they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from tmm_core.operations.figures import Panel, clock_label, elapsed_label, load_chart
from tmm_core.operations.traffic.drive import Row, Series

SVG = "{http://www.w3.org/2000/svg}"


def series(offered: Sequence[int], admitted: Sequence[int], active: Sequence[bool] = ()) -> Series:
    made = Series(0)
    for second, (one, other) in enumerate(zip(offered, admitted, strict=True)):
        on = bool(active) and active[second]
        made.add(Row(second, (one - other, 0, other, 0), one, other, on, None, 0.0))
    return made


def chart(shown: Series, title: str = "A title", heading: str = "A heading", **more: object) -> str:
    panel = Panel(heading, shown, clock_label)
    options = {"operating_threshold": 100.0, "system_capacity": 125.0, **more}
    return load_chart(title, "A description", [panel], **options)  # type: ignore[arg-type]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_lines_the_levels_and_the_units_are_named() -> None:
    said = texts(chart(series([50, 150, 140], [50, 100, 99], [False, True, True])))
    assert "offered: 150 at most" in said
    assert "admitted" in said
    assert "operating threshold 100" in said
    assert "system capacity 125" in said
    assert "Service Requests per second" in said
    assert "Mechanism active" in said


def test_where_nothing_is_throttled_one_line_carries_both_names() -> None:
    said = texts(chart(series([50, 90], [50, 90])))
    assert "offered, all admitted: 90 at most" in said
    assert "admitted" not in said


def test_points_are_where_the_figures_are() -> None:
    svg = ElementTree.fromstring(chart(series([0, 125], [0, 125])))
    lines = list(svg.iter(f"{SVG}polyline"))
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in lines[0].get("points", "").split())
    # The line of the capacity, 125, is at the height of the second point; zero is at the lowest line.
    across = [line for line in svg.iter(f"{SVG}line") if line.get("x2") == "532"]
    levels = sorted({float(line.get("y1", "0")) for line in across})
    assert y0 == levels[-1]
    assert y1 in levels and y1 < y0
    # Two bins share the plot, which ends at 540 - 8 = 532: their middles are half of it apart.
    assert x1 - x0 == pytest.approx((532 - float(across[0].get("x1", "0"))) / 2, abs=0.2)


def test_active_periods_are_shaded_and_a_single_second_is_still_seen() -> None:
    active = [False] * 600
    active[10] = active[300] = active[301] = True
    svg = ElementTree.fromstring(chart(series([10] * 600, [10] * 600, active)))
    shades = [each for each in svg.iter(f"{SVG}rect") if each.get("height") == "210"]
    assert len(shades) == 2
    assert all(float(each.get("width", "0")) >= 2 for each in shades)


def test_the_same_figures_give_the_same_bytes_and_no_date() -> None:
    once, again = (chart(series([5, 6], [5, 6])) for _ in range(2))
    assert once == again
    assert not re.search(r"20\d\d-\d\d-\d\d", once)


def test_no_script_no_network_no_style_sheet() -> None:
    svg = chart(series([5], [5]))
    assert not re.search(r"<script|<image|<style|href|@import|onload", svg)
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]


def test_text_from_outside_does_no_harm() -> None:
    evil = "<script>alert(1)</script> & \x1b[31m \x00 \u202e \" '"
    svg = chart(series([5], [5]), title=evil, heading=evil, subtitle=evil, unit=evil)
    ElementTree.fromstring(svg)  # well formed
    assert "<script" not in svg
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", svg)


def test_a_long_title_is_wrapped() -> None:
    said = texts(chart(series([5], [5]), title="word " * 30))
    assert max(len(text) for text in said) <= 62
    assert " ".join(text for text in said if text.startswith("word")).split() == ["word"] * 30


def test_a_chart_says_what_it_shows_and_has_no_identifier_that_another_could_have() -> None:
    svg = chart(series([5], [5]))
    drawing = ElementTree.fromstring(svg)
    assert (drawing.get("role"), drawing.get("aria-label")) == ("img", "A title A description")
    assert drawing.findtext(f"{SVG}title") == "A title"
    assert not re.search(r'\bid="', svg)


@pytest.mark.parametrize("load", [0, 1, 7, 1000, 10**9])
def test_nothing_and_a_lot_can_be_drawn(load: int) -> None:
    ElementTree.fromstring(chart(series([load], [load]), system_capacity=1.5, operating_threshold=1.0))
    ElementTree.fromstring(chart(Series(0)))


@pytest.mark.parametrize("seconds", [1, 3, 59, 3600, 86_400, 40 * 86_400])
def test_an_axis_has_a_few_labels_at_round_times(seconds: int) -> None:
    shown = Series(0)
    shown.add(Row(0, (0, 0, 1, 0), 1, 1, False, None, 0.0))
    shown.add(Row(seconds - 1, (0, 0, 1, 0), 1, 1, False, None, 0.0))
    svg = load_chart("t", "d", [Panel("h", shown, str)], operating_threshold=1.0, system_capacity=1.0)
    marks = [int(text) for text in texts(svg) if text.isdigit() and not text.startswith("00")]
    ticks = [
        each for each in ElementTree.fromstring(svg).iter(f"{SVG}line") if each.get("x1") == each.get("x2")
    ]
    assert 2 <= len(ticks) <= 7, marks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00"), (63_000, "17:30"), (63_001, "17:30:01"), (86_400, "00:00"), (-1, "23:59:59")],
)
def test_a_clock_label_is_a_time_of_day(seconds: int, text: str) -> None:
    assert clock_label(seconds) == text


def test_an_elapsed_label_has_a_sign_and_a_unit() -> None:
    assert [elapsed_label(each) for each in (-20, 0, 60)] == ["-20 s", "0 s", "+60 s"]
