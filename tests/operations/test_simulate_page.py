"""The page of a simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tmm_core.operations.page import Table, shown
from tmm_core.operations.simulate import simulate
from tmm_core.operations.simulation.page import simulation_page
from tmm_core.operations.simulation.scenario import POLICIES
from tmm_core.operations.simulation.scenario_files import load_scenario

from .test_simulate import SMALL


def test_it_says_of_no_share_that_it_is_all_where_something_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to three places it was: 1 of 100,000 never answered was "100.0 %"."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    simulation = simulate(replace(load_scenario(str(path)), seconds=3), ["fair"])
    (fair,) = simulation.results
    monkeypatch.setattr(fair, "fresh", np.full_like(fair.fresh, 100_000))
    monkeypatch.setattr(fair, "answered", np.full_like(fair.fresh, 99_999))
    parts = simulation_page([simulation]).sections[0].parts
    (cell,) = [
        shown(row[place], column.kind)
        for part in parts
        for table in part.blocks
        if isinstance(table, Table)
        for place, column in enumerate(table.columns)
        for row in table.rows
        if column.name == "answered" and row[0] == POLICIES["fair"]
    ]
    assert cell == ">99.9 %"
