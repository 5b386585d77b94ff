"""The labels of a chart's levels: in order, on their own, clear of the axis."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tmm_core.operations.charts import BLUE, NARROW, WIDE, Level, Line, line_chart

LETTERS = 15  # the height of a label


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("highest", [1_000, 2_450, 2_600, 4_000, 6_900, 15_000, 33_000, 150_000])
def test_the_labels_of_levels_are_in_order_and_clear_of_the_axis(highest: float, width: int) -> None:
    """A chart far higher than its levels has both of them just above the axis, where the times are written below."""
    levels = (Level("operating threshold", 2_000), Level("system capacity", 2_500, "2 3"))
    line = Line("sent", [(0, 0.0), (10, highest)], BLUE, "", 2)
    text = line_chart(
        "T", "D", (line,), [(0, "0"), (10, "10")], until=10, unit="U", levels=levels, width=width
    )
    found = [
        (each.text or "", float(each.get("y", "")))
        for each in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")
    ]
    at = {label.split(" ")[0]: y for label, y in found if label != "0" and label != "sent"}
    axis = min(y for label, y in found if label == "0") - 5  # the other 0 is a time, below it
    for upper, lower in pairwise([at["U"] - 1, at["system"], at["operating"], axis + LETTERS - 3]):
        assert upper + LETTERS <= lower
