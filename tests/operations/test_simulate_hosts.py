"""Four hosts that lose their store: each is held to what is promised, by its own part, and all to the sum."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tmm_core import Decision, Mechanism
from tmm_core.operations.simulate import simulate
from tmm_core.operations.simulation import policies
from tmm_core.operations.simulation.promises import Check, checks
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.scenario import Change, Scenario
from tmm_core.operations.simulation.scenario_files import load_scenario
from tmm_core.operations.simulation.summary import figures_of, finding
from tmm_core.policy.config import Config


@pytest.fixture
def lost() -> Scenario:
    """A twentieth of the volume; as one until second 60, in the middle of the overload."""
    return replace(load_scenario("store-lost").scaled(0.05), seconds=130, step_ms=20)


def judged(scenario: Scenario) -> tuple[PolicyResult, dict[str, Check]]:
    (result,) = simulate(scenario, ("fair",)).results
    return result, {check.name: check for check in checks(result)}


def test_each_host_is_held_to_p1_to_p7_by_its_own_part(lost: Scenario) -> None:
    simulation = simulate(lost, ("fair",))
    (result,) = simulation.results
    found = checks(result)
    assert [check.name for check in found] == [f"P{number}" for number in range(1, 8)]
    assert all(check.holds for check in found), found
    assert all(check.promise.startswith("On each host, by its own part: ") for check in found)
    for check in found:
        if check.name in ("P2", "P3", "P7"):
            assert check.found.endswith(", of all as one and of each host") and check.found[0] in "01"
        else:
            assert [part.split()[0] for part in check.found.split("; ")][:5] == ["as", *["host"] * 4]
    as_one, *hosts = result.hosts
    assert [host.scenario.config.operating_threshold for host in result.hosts] == [1000, *[250] * 4]
    # Every attempt is judged once: by all as one in the first minute, and by one host after it.
    assert np.array_equal(sum(host.table for host in result.hosts), result.table)
    assert sum(row.attempts for row in as_one.rows[:60]) == as_one.attempts > 0
    for host in hosts:
        assert sum(row.attempts for row in host.rows[60:]) == host.attempts > 0
        assert host.refused(Decision.THROTTLED) > 100 and len(host.activations) == 1
    # In all they let through no more than the sum of the bounds.
    assert result.audit is not None
    excess, bounds = result.audit.excess, sum(host.audit.bound for host in result.hosts if host.audit)
    assert max(host.audit.excess for host in result.hosts if host.audit) < excess < bounds
    assert found[3].found.endswith(f"; in all {excess:,.0f}, at most {bounds:,.0f}")
    # What no host can promise is counted: throttled, though the whole allocation had room.
    inside = result.audit.within_throttled
    assert figures_of(simulation, result)["refused_inside"] == inside
    assert 0 < inside < 1e-3 * result.refused(Decision.THROTTLED)
    assert f"throttled, {inside} of them inside an allocation or on the priority list" in finding(simulation)


def test_a_user_that_one_host_gets_alone_is_throttled_inside_its_whole_allocation(
    lost: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load balancer that sends everything to host 2: no host breaks its promise, and the figure tells."""
    decide = policies._Hosts.decide

    def unfair(self: policies._Hosts, *of: object) -> policies.Verdict:
        self._random = type("One", (), {"random_raw": lambda _, size: np.ones(size, dtype=np.uint64)})()  # type: ignore[assignment]
        return decide(self, *of)  # type: ignore[arg-type]

    monkeypatch.setattr(policies._Hosts, "decide", unfair)
    result, found = judged(lost)
    assert [host.attempts > 0 for host in result.hosts] == [True, False, True, False, False]
    assert found["P1"].holds and found["P2"].holds and found["P4"].holds
    assert result.audit is not None and result.audit.within_throttled > 1000


def test_a_host_that_throttles_inside_its_part_or_while_inactive_is_found(
    lost: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = policies._admit

    def wrong(mechanism: Mechanism, attempts: policies.Attempts, now: int) -> np.ndarray:  # type: ignore[type-arg]
        decisions = admit(mechanism, attempts, now)
        if mechanism.config.operating_threshold == 250 and now > 125 * policies.NS:  # calm again
            decisions[np.flatnonzero(decisions == Decision.WITHIN_ALLOCATION)[:1]] = Decision.THROTTLED
            decisions[np.flatnonzero(decisions == Decision.PRIORITY)[:1]] = Decision.THROTTLED
        return decisions

    monkeypatch.setattr(policies, "_admit", wrong)
    monkeypatch.setattr(np, "array_equal", lambda *_: True)  # or the engine's own counts would tell
    calm = replace(
        lost, traffic=tuple(replace(each, lasts_s=10.0) for each in lost.traffic[-1:]) + lost.traffic[:-1]
    )
    _, found = judged(calm)
    assert {name for name, check in found.items() if check.holds is False} >= {"P1", "P2", "P3"}
    assert found["P4"].holds
    for name in ("P1", "P2", "P3"):
        as_one, *hosts = found[name].found.split("; ")
        assert as_one.startswith("as one 0 throttled")
        assert not any(part.split()[2] == "0" for part in hosts)


@pytest.mark.parametrize(("share", "broken"), [(1, {"P4"}), (16, {"P5"})])
def test_a_host_with_another_part_than_its_own_is_found(
    share: int, broken: set[str], lost: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the whole of every allocation four hosts let four times as much through; with too little they waste it."""
    part = policies._Hosts._share

    def wrong(self: policies._Hosts, config: Config) -> Config:
        return part(type("Of", (), {"_hosts": share})(), config)  # type: ignore[arg-type]

    make = policies._Hosts.__init__

    def made(self: policies._Hosts, *of: object) -> None:
        monkeypatch.setattr(policies._Hosts, "_share", wrong)
        make(self, *of)  # type: ignore[arg-type]
        monkeypatch.setattr(policies._Hosts, "_share", part)
        whole, *_ = self.parts
        self.parts = [whole, *[partial(part, self)] * 4]

    monkeypatch.setattr(policies._Hosts, "__init__", made)
    _, found = judged(lost)
    assert {name for name, check in found.items() if check.holds is False} >= broken


def test_new_allocations_are_shared_out_to_the_hosts_and_to_who_judges_them(lost: Scenario) -> None:
    """A tenth for everybody, at once: judged by the old allocations, what is throttled would be inside them."""
    changed = replace(lost, seconds=100, changes=(Change(70.5, ("*",), 0.1),))
    result, found = judged(changed)
    assert found["P1"].holds and found["P4"].holds
    assert [row.refused > 0 for row in result.rows[72:80]] == [True] * 8
