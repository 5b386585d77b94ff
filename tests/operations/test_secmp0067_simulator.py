"""SECMP0067, F15: the motivating events of its Modification Report, played through the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tmm_core import Decision
from tmm_core.operations.simulate import simulate
from tmm_core.operations.simulation.promises import checks
from tmm_core.operations.simulation.scenario_files import load_scenario

#: Event, seconds to play, whether a DSP without protection survives them in this model.
EVENTS = [
    ("beast-from-the-east", 240, False),  # extreme weather
    ("denial-of-service", 110, False),  # with stolen credentials
    ("runaway-user", 140, False),  # denial of service by accident
    ("same-hour", 130, True),  # several Users around the same time of day: all of them wait
]


@pytest.mark.parametrize(("event", "seconds", "survives"), EVENTS)
def test_f15_the_motivating_events_do_no_harm_to_who_is_inside(
    event: str, seconds: int, survives: bool
) -> None:
    """A fiftieth of DSP peak volume; the full volume is played by the slow tests."""
    scenario = replace(load_scenario(event).scaled(0.02), seconds=seconds, step_ms=20)
    simulation = simulate(scenario, ("none", "fair"))
    none, fair = simulation.results
    assert (none.outage_s == 0) is survives
    assert max(row.wait_s for row in none.rows) > 5, "urgent ones wait as long as all the others"
    assert fair.outage_s == 0
    assert max(row.wait_s for row in fair.rows) < 1
    assert len(fair.activations) == 1
    assert fair.refused(Decision.THROTTLED) > 0
    assert fair.refused(Decision.WITHIN_ALLOCATION) == fair.refused(Decision.PRIORITY) == 0
    inside = [fair.users.index(user) for user in simulation.inside]
    assert len(inside) >= 15
    assert (fair.answered[inside] == fair.fresh[inside]).all(), "every one of theirs was answered"
    # At this size the spare share of a small User is a handful of requests: P6 is for the full volume.
    assert [each for each in checks(fair) if each.holds is False and each.name != "P6"] == []
