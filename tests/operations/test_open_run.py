"""Runs without clients: whole arrays give what single steps give, and larger steps the same answer."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmm_core import Decision, Mechanism
from tmm_core.operations.cli import main
from tmm_core.operations.simulate import Simulation, simulate
from tmm_core.operations.simulation import arrivals as of_arrivals
from tmm_core.operations.simulation import born_of, policies, srvs_of, users_of
from tmm_core.operations.simulation.arrivals import Arrivals, Fresh, Senders
from tmm_core.operations.simulation.open_run import OpenRun, Requests, run_of, tallied
from tmm_core.operations.simulation.promises import checks
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.run import Run
from tmm_core.operations.simulation.scenario import Change, DspTerms, Fault, Scenario, Traffic
from tmm_core.operations.simulation.scenario_files import load_scenario
from tmm_core.operations.simulation.streams import Drawn
from tmm_core.operations.simulation.summary import figures_of, finding

from .test_simulate import SMALL

Decisions = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def small(tmp_path: Path) -> Scenario:
    """Quiet, an overload that is throttled or puts the DSP under strain, and quiet again; nobody sends again."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return load_scenario(str(path)).without_clients()


def results(scenario: Scenario, *runs: Run, together: int = 1) -> list[PolicyResult]:
    """Run so many seconds at a time."""
    with Mechanism(scenario.config, start=0) as mechanism:
        arrivals = Arrivals(scenario, mechanism.user, mechanism.srv)
        for first in range(0, scenario.seconds, together):
            fresh = arrivals.seconds(first, min(together, scenario.seconds - first))
            for run in runs:
                run.seconds(fresh)
    return [run.finish() for run in runs]


def same(one: PolicyResult, other: PolicyResult) -> None:
    assert one.rows == other.rows
    assert one.activations == other.activations
    for name in ("table", "fresh", "answered"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("priority_fresh", "priority_answered", "open", "failures", "wasted"):
        assert getattr(one, name) == getattr(other, name), name
    assert [one.wait_s(share / 20) for share in range(21)] == [
        other.wait_s(share / 20) for share in range(21)
    ]
    assert one.throttled_while_inactive == other.throttled_while_inactive
    if one.audit is None or other.audit is None:
        assert one.audit is other.audit
        return
    assert replace(one.audit, excess=0.0) == replace(other.audit, excess=0.0)
    assert one.audit.excess == pytest.approx(other.audit.excess, rel=1e-9)


TIGHT = DspTerms(queue_s=8, timeout_s=1.5, strain_s=1, slowdown=0.1, restart_s=4)
VARIANTS = {
    "as it is": lambda s: s,
    "a DSP that just copes": lambda s: replace(s, config=replace(s.config, system_capacity=520.0)),
    "a DSP that fails": lambda s: replace(s, dsp=TIGHT),
    "an outage and a slow DSP": lambda s: replace(
        s, faults=(Fault("outage", 1.3, 2.0), Fault("slow", 20.0, 3.5, 0.3))
    ),
    "new allocations": lambda s: replace(s, changes=(Change(7.13, ("Flood 01",), 0.2), Change(9, ("*",), 0.5))),
    "an early change": lambda s: replace(s, changes=(Change(1.53, ("Calm",), 0.1),)),
    "short steps": lambda s: replace(s, step_ms=10),
    "costs": lambda s: replace(s, config=replace(s.config, costs={"8.2": 3, "4.8.1": 2})),
    "very little backlog": lambda s: replace(s, config=replace(s.config, activation_s=0.02)),
}  # fmt: skip


def test_the_new_requests_of_a_second_are_in_the_order_of_time() -> None:
    """Of two streams of one traffic and one of another, with words between the seconds that are no requests."""
    random = np.random.default_rng(1)
    words = random.integers(0, 1 << 64, 30_000, dtype=np.uint64)
    words[10_000:20_000] = words[:10_000] & ~np.uint64(0xFF << 40)  # some at the same time
    begins = np.array([[2, 6_000, 11_000], [11_002, 15_000, 15_000], [20_000, 20_000, 29_000]])
    counts = np.array([[5_998, 4_998, 2], [3_996, 0, 5_000], [0, 8_000, 1_000]])
    srvs = [random.integers(1, 200, 4096, dtype=np.uint32) for _ in range(2)]
    senders = Senders(np.array([7, 3, 7], dtype=np.uint32), [2, 3], srvs, np.zeros(256, dtype=np.uint32))
    fresh = Fresh(Drawn(begins, counts, words), senders, 50, 14)
    assert (fresh.first, fresh.seconds) == (14, 3)
    for place in range(3):
        drawn = [
            (int(word) >> 40, slot << 8 | int(table[int(word) & 4095]))
            for begin, size, slot, table in zip(
                begins[:, place], counts[:, place], (7, 3, 7), (srvs[0], srvs[0], srvs[1]), strict=True
            )
            for word in words[begin : begin + size]
        ]
        drawn.sort(key=lambda each: each[0])  # stable
        expected = [(time * 50 >> 24) + (14 + place) * 50 << 28 | code << 8 for time, code in drawn]
        found, edges = fresh.in_time(place)
        assert found.tolist() == expected
        steps = [(time * 50) >> 24 for time, _ in drawn]
        assert edges == [bisect_left(steps, step) for step in range(51)]


@pytest.mark.parametrize("few", [0, 3, 1000], ids=["twice", "as it is", "steps added up"])
@pytest.mark.parametrize("words", [50, 1 << 16])
@pytest.mark.parametrize("together", [5, 7])
def test_what_is_counted_is_what_comes_in_time(
    together: int, words: int, few: int, small: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of any size, by either way; with rates that jump, a User that begins late, and past traffic."""
    monkeypatch.setattr(of_arrivals, "_WORDS", words)
    monkeypatch.setattr(of_arrivals, "_FEW", few)
    past = tmp_path / "past.csv"
    srvs = cycle(["8.2", *sorted(small.config.priority_srvs)])
    users_of_past = cycle(["Calm", "Flood 02", "?", "Flood 01"])
    lines = [f"{place / 10:.1f},{next(users_of_past)},{next(srvs)}" for place in range(250)]
    past.write_text("\n".join(["second,user,srv", *lines]), encoding="utf-8")
    jumps = Traffic(("Calm",), "mmpp", 40.0, factors=(0.2, 1.0, 3.0), dwell_s=(2.0, 2.0, 2.0))
    late = Traffic(("Flood *",), "steady", 90.0, at_s=4.0, lasts_s=13.0)
    replay = Traffic((), "replay", file=past)
    scenario = replace(small, traffic=(*small.traffic, jumps, late, replay))
    listed = 0
    with Mechanism(scenario.config, start=0) as mechanism:
        on_list = [code in scenario.config.priority_srvs for code in mechanism.snapshot().srvs]
        users = len(mechanism.snapshot().users)
        arrivals = Arrivals(scenario, mechanism.user, mechanism.srv)
        for first in range(0, 27, 9):
            fresh = arrivals.seconds(first, 9)
            edges, alike = fresh.counted(together, users)
            expected, before = np.zeros_like(alike), 0
            for place in range(9):
                asked, mine = fresh.in_time(place)
                assert edges[place].tolist() == [before + edge for edge in mine]
                before += mine[-1]
                step = born_of(asked) - (first + place) * scenario.steps_per_s
                kind = np.array(on_list)[srvs_of(asked)].astype(int)
                np.add.at(expected, (place, step // together, kind, users_of(asked)), 1)
            assert np.array_equal(alike, expected)
            listed += int(alike[:, :, 1].sum())
        arrivals.close()
    assert listed > 100


def test_what_was_drawn_is_gone_when_other_seconds_are(small: Scenario) -> None:
    with Mechanism(small.config, start=0) as mechanism:
        arrivals = Arrivals(small, mechanism.user, mechanism.srv)
        fresh = arrivals.seconds(0, 3)
        kept = fresh.in_time(1)
        arrivals.seconds(3)
        assert fresh.in_time(1) is kept
        for look in (lambda: fresh.in_time(0), lambda: fresh.counted(5, 4)):
            with pytest.raises(RuntimeError, match="other seconds have been drawn"):
                look()


def test_decisions_on_what_is_alike_are_tallied_as_one_by_one() -> None:
    random = np.random.default_rng(5)
    for most, changing in ((0, 0.0), (1, 0.5), (6, 0.1), (40, 0.0), (40, 0.02), (40, 1.0)):
        alike = random.integers(0, most + 1, (3, 5, 2, 7)) * random.integers(0, 2, (3, 5, 2, 7))
        kinds = np.arange(alike.size).repeat(alike.ravel())
        decisions = random.integers(0, 4, alike.size, dtype=np.uint8)[kinds]
        others = random.random(kinds.size) < changing
        decisions[others] = random.integers(0, 4, np.count_nonzero(others), dtype=np.uint8)
        expected = np.zeros((15, 7, 4), dtype=np.int64)
        np.add.at(expected, (kinds // 14, kinds % 7, decisions), 1)
        assert np.array_equal(tallied(alike, decisions), expected)


def test_seconds_drawn_together_are_those_drawn_one_by_one(small: Scenario) -> None:
    """With rates that jump, which draw too, and a User that begins late."""
    jumps = Traffic(("Calm",), "mmpp", 40.0, factors=(0.2, 1.0, 3.0), dwell_s=(2.0, 2.0, 2.0))
    late = Traffic(("Flood *",), "steady", 90.0, at_s=11.0, lasts_s=13.0)
    scenario = replace(small, traffic=(*small.traffic, jumps, late))
    found = []
    for together in (1, 7, 20):
        with Mechanism(scenario.config, start=0) as mechanism:
            arrivals = Arrivals(scenario, mechanism.user, mechanism.srv)
            words: list[np.ndarray[Any, np.dtype[np.int64]]] = []
            for first in range(0, scenario.seconds, together):
                fresh = arrivals.seconds(first, min(together, scenario.seconds - first))
                words += [fresh.in_time(place).words for place in range(fresh.seconds)]
        found.append(words)
    assert sum(map(len, found[0])) > 10_000
    for other in found[1:]:
        assert all(np.array_equal(*each) for each in zip(found[0], other, strict=True))


@pytest.mark.parametrize("policy", ["none", "hard", "first-come", "fair"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_arrays_give_what_single_steps_give(
    variant: str, policy: str, small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for Retry-After, which nobody reads here: so none is taken in either."""
    monkeypatch.setattr(policies, "_slots", lambda _, users, __: np.zeros(users.size))
    scenario = VARIANTS[variant](small)
    one, other = results(scenario, Run(policy, scenario), OpenRun(policy, scenario, scenario.step_ms))
    assert one.requests > 5000
    same(one, other)
    if policy == "fair":
        assert one.refused(Decision.THROTTLED) > 1000
    if (variant, policy) == ("a DSP that fails", "none"):
        assert one.failures > 0 and one.wasted > 0


@pytest.mark.parametrize("policy", ["none", "fair"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_seconds_counted_together_give_what_each_on_its_own_gives(
    variant: str, policy: str, small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = VARIANTS[variant](small)
    (one,) = results(scenario, OpenRun(policy, scenario))
    together: list[int] = []
    run_calm = OpenRun._run_calm

    def watched(run: OpenRun, fresh: Fresh, begin: int, end: int) -> None:
        together.extend(range(fresh.first + begin, fresh.first + end))
        run_calm(run, fresh, begin, end)

    monkeypatch.setattr(OpenRun, "_run_calm", watched)
    (other,) = results(scenario, OpenRun(policy, scenario), together=9)
    same(one, other)
    assert (len(together) > scenario.seconds // 8) == (variant not in ("costs", "very little backlog"))
    assert not {int(change.at_s) for change in scenario.changes} & set(together), "to the step"
    rows = [other.rows[second] for second in together]
    assert not any(row.active or row.refused or row.wait_s for row in rows)
    assert all(row.answered == row.attempts for row in rows)


class InTime(OpenRun):
    """Asks for every Service Request of a quiet second, in the order of time, and counts each second on its own."""

    def _asked(self, fresh: Fresh, begin: int, end: int) -> Requests:
        words = np.concatenate([fresh.in_time(place).words for place in range(begin, end)])
        return Requests(users_of(words), srvs_of(words))

    def _calm(self, fresh: Fresh, begin: int, quiet: int) -> int:
        return 0


@pytest.mark.parametrize("policy", ["none", "hard", "first-come", "fair"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_srv_that_stands_for_others_changes_no_figure(variant: str, policy: str, small: Scenario) -> None:
    """What is asked in quiet seconds, against all of it in the order of time."""
    scenario = VARIANTS[variant](small)
    assert scenario.config.priority_srvs
    one, other = results(scenario, InTime(policy, scenario), OpenRun(policy, scenario), together=9)
    assert one.priority_fresh > 100
    same(one, other)


@pytest.mark.parametrize("name", ["beast-from-the-east", "prepayment-surge", "ordinary-day"])
def test_no_order_within_a_quiet_part_changes_a_figure_of_a_scenario(name: str) -> None:
    scenario = replace(load_scenario(name).scaled(0.2).without_clients(), seconds=120)
    one, other = results(scenario, InTime("fair", scenario), OpenRun("fair", scenario), together=20)
    assert one.requests > 100_000
    same(one, other)


def test_a_refusal_in_a_calm_second_is_found(small: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that throttles while inactive, and inside the allocation."""
    decide = OpenRun._decide

    def wrong(run: OpenRun, asked: Requests, edges: list[int], now: list[int], made: Decisions) -> None:
        decide(run, asked, edges, now, made)
        of_second = made[edges[0] : edges[-1]]
        of_second[np.flatnonzero(of_second == Decision.WITHIN_ALLOCATION)[:1]] = Decision.THROTTLED

    monkeypatch.setattr(OpenRun, "_decide", wrong)
    monkeypatch.setattr(np, "array_equal", lambda *_: True)  # or its own counts would tell
    scenario = replace(small, seconds=3)
    (result,) = results(scenario, OpenRun("fair", scenario), together=3)
    assert not result.activations
    assert result.throttled_while_inactive == result.refused(Decision.THROTTLED) == 3
    assert result.audit is not None and result.audit.within_throttled > 0
    assert {check.name for check in checks(result) if check.holds is False} >= {"P1", "P3"}
    simulation, breaches = Simulation(scenario, (result,), [], 0.0), result.audit.within_throttled
    assert figures_of(simulation, result)["refused_inside"] == breaches
    assert f"3 attempts were throttled, {breaches} of them inside" in finding(simulation)


@pytest.mark.parametrize(
    "name", ["beast-from-the-east", "same-hour", "runaway-user", "month-change", "ordinary-day"]
)
def test_larger_steps_while_all_is_quiet_give_the_same_answer(name: str) -> None:
    """At a fifth of the volume: activations at the same step, and 1 in 10,000 decided otherwise."""
    scenario = replace(load_scenario(name).scaled(0.2).without_clients(), seconds=150)
    fine, coarse = results(scenario, OpenRun("fair", scenario, 10), OpenRun("fair", scenario))
    assert fine.activations == coarse.activations
    assert bool(fine.activations) == (name != "ordinary-day")
    moved = np.abs(fine.table.sum(axis=(0, 2)) - coarse.table.sum(axis=(0, 2)))
    assert moved.max() <= 1e-4 * fine.requests
    assert moved[Decision.PRIORITY] == 0
    waits = [(each.wait_s(0.5), each.wait_s(0.99), each.outage_s) for each in (fine, coarse)]
    assert waits[0] == waits[1]


def test_most_seconds_of_an_ordinary_day_are_quiet_ones_and_none_is_while_active(
    small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decide = OpenRun._decide

    def watched(run: OpenRun, asked: Requests, edges: list[int], now: list[int], made: Decisions) -> None:
        sizes.append(len(now))
        decide(run, asked, edges, now, made)

    monkeypatch.setattr(OpenRun, "_decide", watched)
    (fair,) = results(small, OpenRun("fair", small))
    active = [row.active for row in fair.rows]
    assert {size for size, each in zip(sizes, active, strict=True) if not each} == {10, 50}
    assert {size for size, each in zip(sizes, active, strict=True) if each} == {50}, "steps of 20 ms"
    assert sizes[:2] == [10, 10]


def test_a_run_is_open_only_where_nothing_comes_back(small: Scenario) -> None:
    assert small.is_open
    for policy in ("none", "hard", "first-come", "fair"):
        assert type(run_of(policy, small)) is OpenRun
    for policy in ("network-503", "alternative"):  # what the DSP does, and what is held, comes back
        assert type(run_of(policy, small)) is Run
    assert type(run_of("fair", replace(small, hosts=4))) is Run
    closed = load_scenario("beast-from-the-east")
    assert not closed.is_open
    assert type(run_of("fair", closed)) is Run


def test_who_stays_inside_is_the_same_with_and_without_a_look_of_its_own(small: Scenario) -> None:
    """With a policy that is no open run the Users' own buckets are asked apart."""
    inside = simulate(small, ["fair"]).inside
    assert inside == simulate(small, ["network-503"]).inside == ["Calm"]


def test_the_command_leaves_the_clients_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    command = ["simulate", str(tmp_path / "small.toml"), "--policies", "fair", "-o", str(tmp_path / "out")]
    attempts = []
    for more in ([], ["--open-loop"]):
        assert main([*command, *more]) == 0
        said = capsys.readouterr().out
        line = next(line for line in said.splitlines() if "attempts per request" in line)
        attempts.append(float(line.split()[-1]))
    assert attempts[0] > 1.2 and attempts[1] == 1
