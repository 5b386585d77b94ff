"""The shipped scenarios at DSP peak volume, and a hundred million Service Requests: minutes."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from tmm_core import Config, Decision, Mechanism
from tmm_core.operations.simulate import simulate
from tmm_core.operations.simulation.checks import checks
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.scenario_files import load_scenario, shipped_scenarios

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ONE_MECHANISM = [name for name in shipped_scenarios() if name != "store-lost"]


@pytest.mark.parametrize("name", ONE_MECHANISM)
def test_what_is_promised_holds_in_every_scenario(name: str) -> None:
    """P1 to P7 at full volume; a User that was limited in spare capacity is what P6 is about."""
    scenario = load_scenario(name)
    (result,) = simulate(scenario, ("fair",)).results
    broken = [f"{each.name}: {each.promise}: {each.found}" for each in checks(result) if each.holds is False]
    assert broken == []
    assert len(result.activations) == scenario.overloads, "one activation for each overload, none without"
    assert result.outage_s == 0


def test_after_an_outage_the_storm_is_over_when_the_backlog_is_worked_off_and_hold_has_passed() -> None:
    scenario = load_scenario("retry-storm")
    (result,) = simulate(scenario, ("fair",)).results
    assert result.attempts_per_request <= 2.2, "all clients honour Retry-After"
    fault, config = scenario.faults[0], scenario.config
    end = round(fault.at_s + fault.lasts_s)
    backlog = result.rows[end - 1].waiting
    new = np.mean([row.fresh for row in result.rows[end:]])
    drain_s = backlog / (config.operating_threshold - new)
    assert 30 < drain_s < 120, "there is a storm"
    assert result.recovery_s is not None
    assert result.recovery_s <= drain_s + config.hold_s + 1, "seconds are counted whole"


def test_the_page_of_results_is_what_its_command_writes(tmp_path: Path) -> None:
    """To the last byte, charts too; for one scenario, as all of them take many minutes."""
    docs = Path(__file__).parents[2] / "docs"
    part = runpy.run_path(str(docs / "make_simulation.py"))["part_of"]("ordinary-day", tmp_path)
    assert part in (docs / "simulation" / "results.md").read_text(encoding="utf-8")
    charts = sorted(tmp_path.iterdir())
    assert [chart.name for chart in charts] == ["ordinary-day-load.svg", "ordinary-day-wait.svg"]
    for chart in charts:
        assert chart.read_bytes() == (docs / "simulation" / chart.name).read_bytes()


def test_not_one_of_a_hundred_million_is_lost_inside_an_allocation() -> None:
    """Fifty Users at exactly their allocations, beside a User that asks for as much again as all of them."""
    users = {f"User {number:02d}": 100.0 * (1 + number % 5) for number in range(50)}  # 15,000 in all
    config = Config(25_000, 20_000, allocations={**users, "Flood": 1_000.0}, burst_s=0.01)
    mechanism = Mechanism(config, start=0)
    slots = [mechanism.user(name) for name in users]
    # Each 10 ms a User may send 1 to 5 units, as its allocation says; the flood comes first.
    calm = np.repeat(slots, [1 + number % 5 for number in range(50)])
    flood = np.full(calm.size, mechanism.user("Flood"))
    step = np.concatenate([flood, calm]).astype(np.uint32)
    srvs = np.full(step.size, mechanism.srv("4.8.1"), dtype=np.uint16)
    out = np.empty(step.size, dtype=np.uint8)
    steps = 10**8 // calm.size + 1
    for number in range(steps):
        mechanism.admit_many(step, srvs, out=out, now=number * 10_000_000)
    counts = mechanism.snapshot().counts.sum(axis=1)
    inside = counts[slots]
    assert inside.sum() >= 10**8
    assert inside[:, Decision.THROTTLED].sum() == 0
    assert inside[:, Decision.WITHIN_ALLOCATION].sum() == inside.sum()
    assert counts[mechanism.user("Flood"), Decision.THROTTLED] > 0.6 * steps * calm.size


def test_it_runs_twenty_times_faster_than_real_time_at_dsp_peak_volume() -> None:
    """20,000 new Service Requests per second with clients that retry; time of one core, audits included."""
    base = load_scenario("at-the-threshold")
    # The calmer half of a minute before the Mechanism acts counts as well: what is timed is the whole.
    scenario: Scenario = replace(base, seconds=60)
    began = process_time()
    (result,) = simulate(scenario, ("fair",)).results
    took = process_time() - began
    assert result.requests / scenario.seconds > 19_500
    assert scenario.seconds / took >= 20, f"{scenario.seconds / took:.1f}"
