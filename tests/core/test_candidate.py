"""A candidate allocation beside the real one: it decides nothing, and its bucket is that of the real thing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from block import Block, column
from hypothesis import given, settings
from hypothesis import strategies as st
from test_oracle import MS, NAMES, S, config_number, mixed_batch, operations

from tmm_core import Config, Decision, Mechanism
from tmm_core.snapshot import Difference

A = "Northern Energy"
TAT, CANDIDATE_TAT = column("tat"), column("candidate_tat")
#: Of a User's words, what decisions follow from.
REAL = slice(0, CANDIDATE_TAT)

with_candidate = st.integers(0, 399).map(config_number).filter(lambda config: config.candidate_version)


def drive(block: Block, kind: str, what: Any, detail: Any, now: int, extra: int) -> list[Any]:
    """Make one step of a trace; returns what is seen of it."""
    slot = block.names.index(what) if what in block.names else 0
    number = block.srvs.index(detail) if detail in block.srvs else 0
    if kind == "admit":
        return [block.engine.admit_at(slot, number, now)]
    if kind == "storm":
        return [block.engine.admit_at(slot, number, now) for _ in range(extra)]
    if kind == "batch":
        chance = np.random.default_rng(what)
        many = chance.integers(0, len(block.names), extra).astype(np.uint32)
        codes = chance.integers(0, len(block.srvs), extra).astype(np.uint16)
        return [block.engine.admit_many(many, codes, now=now).tolist()]
    if kind == "retry":
        return [block.engine.retry_after(slot, now)]
    return [block.engine.tick(now)]


def traces() -> st.SearchStrategy[list[Any]]:
    return operations.map(lambda trace: [step for step in trace if step[0] != "apply"])


@settings(max_examples=150)
@given(config=with_candidate, trace=traces())
def test_a_candidate_changes_no_decision_no_count_and_no_word(config: Config, trace: list[Any]) -> None:
    now = 10**15
    tried, alone = Block(config, now=now), Block(replace(config, candidate_allocations=None), now=now)
    for kind, what, detail, ahead, extra in trace:
        now += ahead
        assert drive(tried, kind, what, detail, now, extra) == drive(alone, kind, what, detail, now, extra)
        assert np.array_equal(tried.words[:, REAL], alone.words[:, REAL])
        assert np.array_equal(tried.control, alone.control)
        assert tried.pending() == alone.pending()
        assert tried.engine.state(now) == alone.engine.state(now)
    assert np.array_equal(tried.engine.counts(), alone.engine.counts())
    assert np.array_equal(tried.engine.units(), alone.engine.units())
    assert not alone.engine.differences().any()


@settings(max_examples=150)
@given(config=with_candidate, trace=traces())
def test_its_bucket_is_the_own_bucket_of_a_mechanism_that_has_it_in_force(
    config: Config, trace: list[Any]
) -> None:
    assert config.candidate_allocations is not None
    now = 10**15
    real = replace(config, allocations=dict(config.candidate_allocations), candidate_allocations=None)
    tried, other = Block(config, now=now), Block(real, now=now)
    for kind, what, detail, ahead, extra in trace:
        now += ahead
        drive(tried, kind, what, detail, now, extra)
        drive(other, kind, what, detail, now, extra)
        assert np.array_equal(tried.words[:, CANDIDATE_TAT], other.words[:, TAT])


@settings(max_examples=100)
@given(config=with_candidate, trace=traces())
def test_a_user_whose_candidate_is_its_allocation_never_differs(config: Config, trace: list[Any]) -> None:
    now = 10**15
    block = Block(replace(config, candidate_allocations=dict(config.allocations)), now=now)
    for kind, what, detail, ahead, extra in trace:
        now += ahead
        drive(block, kind, what, detail, now, extra)
    assert not block.engine.differences().any()


@pytest.mark.parametrize("costs", [{}, {"4.8.1": 3}])
@pytest.mark.parametrize("n", [0, 1, 8, 64, 200])
def test_by_the_clock_too_a_candidate_that_is_the_allocation_never_differs(
    n: int, costs: dict[str, int]
) -> None:
    """Each bucket is asked again before a refusal: both at the same time, or the candidate's would see a later one.

    In batches of `n`; 0 is `admit`.
    """
    rates = {A: 1000.0}
    config = Config(
        1000,
        1000,
        allocations=rates,
        candidate_allocations=rates,
        sharing="none",
        activation_s=0.01,
        costs=costs,
    )
    with Mechanism(config) as mechanism:
        user, srvs = mechanism.user(A), [mechanism.srv("4.1.1"), mechanism.srv("4.8.1")]
        users, drawn = np.full(n, user, np.uint32), np.resize(np.array(srvs, np.uint16), n)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            if n:
                mechanism.admit_many(users, drawn)
            else:
                mechanism.admit(user, srvs[0])
        units = mechanism.engine.units()[user]
        # At the edge all the time: what was admitted after the burst was admitted as soon as it conformed.
        assert units[Decision.WITHIN_ALLOCATION] > 1100
        assert units[Decision.THROTTLED] > 1000
        assert differs(mechanism) == {"OVER": 0, "OVER_WHILE_ACTIVE": 0, "WITHIN": 0, "ADMITTED": 0}


def begun(candidate: float, **terms: Any) -> Mechanism:
    """Northern Energy with 10 units per second and no burst beyond one unit, and a candidate."""
    config = Config(
        2000, 1000, allocations={A: 10.0}, burst_s=0.0, candidate_allocations={A: candidate}, **terms
    )
    return Mechanism(config, start=0)


def differs(mechanism: Mechanism) -> dict[str, int]:
    candidate = mechanism.snapshot().candidate
    assert candidate is not None
    return {each.name: int(candidate.units[mechanism.user(A), each]) for each in Difference}


def test_a_smaller_candidate_is_over_where_the_allocation_is_not() -> None:
    mechanism = begun(5.0)
    for index in range(10):
        # Every 100 ms is 10 a second: inside the allocation, and every second one over 5 a second.
        mechanism.admit_at(mechanism.user(A), mechanism.srv("4.1.1"), index * 100 * MS)
    assert differs(mechanism) == {"OVER": 5, "OVER_WHILE_ACTIVE": 0, "WITHIN": 0, "ADMITTED": 0}


def test_a_larger_candidate_is_within_where_the_allocation_is_not() -> None:
    mechanism = begun(20.0)
    for index in range(10):
        # 20 a second: all inside the candidate, every second one over the allocation; the Mechanism is inactive.
        mechanism.admit_at(mechanism.user(A), mechanism.srv("4.1.1"), index * 50 * MS)
    assert differs(mechanism) == {"OVER": 0, "OVER_WHILE_ACTIVE": 0, "WITHIN": 5, "ADMITTED": 0}


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize("many", [False, True])
def test_what_is_throttled_and_inside_the_candidate_would_have_been_admitted(mode: str, many: bool) -> None:
    mechanism = begun(20.0, mode=mode, sharing="none")
    user, srv = mechanism.user(A), mechanism.srv("4.1.1")
    # 300 at once are a backlog of 0.3 s, above activation_s: active. One is inside either allocation.
    mechanism.admit_many(np.zeros(300, np.uint32), np.full(300, srv, np.uint16), now=0)
    assert mechanism.snapshot().active
    for index in range(10):
        at = S + index * 50 * MS
        if many:
            mechanism.admit_many(np.full(100, user, np.uint32), np.full(100, srv, np.uint16), now=at)
        else:
            for _ in range(100):
                mechanism.admit_at(user, srv, at)
    # At every 50 ms one is inside the candidate; at every second of them it is inside the allocation too.
    assert differs(mechanism) == {"OVER": 0, "OVER_WHILE_ACTIVE": 0, "WITHIN": 5, "ADMITTED": 5}


def test_what_is_over_the_candidate_while_active_is_told_apart() -> None:
    mechanism = begun(5.0, hold_s=3600.0)
    user, srv = mechanism.user(A), mechanism.srv("4.1.1")
    mechanism.admit_at(user, srv, 0)
    mechanism.admit_at(user, srv, 100 * MS)  # over the candidate
    mechanism.admit_many(np.zeros(300, np.uint32), np.full(300, srv, np.uint16), now=150 * MS)
    assert mechanism.snapshot().active
    mechanism.admit_at(user, srv, 200 * MS)
    mechanism.admit_at(user, srv, 300 * MS)  # over the candidate
    assert differs(mechanism) == {"OVER": 2, "OVER_WHILE_ACTIVE": 1, "WITHIN": 0, "ADMITTED": 0}


def test_priority_requests_are_no_matter_of_a_candidate() -> None:
    mechanism = begun(0.0, priority=["7.4"])
    for index in range(10):
        mechanism.admit_at(mechanism.user(A), mechanism.srv("7.4"), index)
    assert not any(differs(mechanism).values())


def test_units_are_counted_not_requests() -> None:
    mechanism = begun(0.0, costs={"4.1.1": 4})
    mechanism.admit_at(mechanism.user(A), mechanism.srv("4.1.1"), 0)
    assert differs(mechanism)["OVER"] == 4


def test_another_candidate_begins_at_nothing_and_where_the_own_buckets_are() -> None:
    mechanism = begun(0.0)
    user, srv = mechanism.user(A), mechanism.srv("4.1.1")
    mechanism.admit_at(user, srv, 0)
    assert differs(mechanism)["OVER"] == 1
    mechanism.apply(replace(mechanism.config, candidate_allocations={A: 10.0}), now=0)
    assert differs(mechanism)["OVER"] == 0
    for index in range(40):
        mechanism.admit_at(user, srv, index * 30 * MS)
    assert not any(differs(mechanism).values()), "it is the allocation in force, and began as full as that"
    # The list alone changes: the candidate goes on.
    mechanism.apply(replace(mechanism.config, candidate_allocations={A: 0.0}), now=2 * S)
    mechanism.admit_at(user, srv, 2 * S)
    mechanism.apply(replace(mechanism.config, priority=["7.4"]), now=2 * S)
    assert differs(mechanism)["OVER"] == 1
    mechanism.apply(replace(mechanism.config, candidate_allocations=None), now=2 * S)
    assert mechanism.snapshot().candidate is None


def test_a_user_that_the_candidate_does_not_name_has_nothing_in_it() -> None:
    config = Config(2000, 1000, allocations={A: 10.0, "Avon Power": 10.0}, candidate_allocations={A: 10.0})
    mechanism = Mechanism(config, start=0)
    mechanism.admit_at(mechanism.user("Avon Power"), mechanism.srv("4.1.1"), 0)
    candidate = mechanism.snapshot().candidate
    assert candidate is not None
    assert candidate.units[:, Difference.OVER].tolist() == [0, 0, 1]


@pytest.mark.parametrize("costs", [{}, {"4.8.1": 30, "4.1.1": 2}])
def test_gates_lanes_and_records_ask_the_candidate_too(costs: dict[str, int]) -> None:
    config = replace(config_number(3), mode="enforce", costs=costs, candidate_allocations={NAMES[0]: 1.0})
    plain, other = Mechanism(config, start=0), Mechanism(config, start=0)
    many, codes = mixed_batch(plain, 7, 500)
    names = {plain.user(name): name for name in [*NAMES, "nobody"]}
    for index, (user, srv) in enumerate(zip(many.tolist(), codes.tolist(), strict=True)):
        now = index * MS
        decision = plain.admit_at(user, srv, now)
        if index % 2:
            assert other.gate(names[user]).admit_at(srv, now) is decision
        else:
            assert other.engine.admit_recorded(user, srv, now)[0] is decision
    assert plain.engine.differences().any()
    assert np.array_equal(plain.engine.differences(), other.engine.differences())


@pytest.mark.parametrize(("own", "candidate"), [(1e4, 1e3), (1e3, 1e4), (1e4, 0.0), (0.0, 1e4), (1e3, 900.0)])
def test_a_batch_of_mixed_costs_differs_as_a_loop_does(own: float, candidate: float) -> None:
    # 2000 requests of 1 and 2 units, about 3000: more than a bucket of 1000 holds, and less than one of 10,000;
    # enough to be decided by User, and too few to change the state.
    config = Config(
        80_000, 40_000, allocations={A: own}, candidate_allocations={A: candidate}, costs={"4.1.1": 2}
    )
    whole, single = Block(config), Block(config)
    codes = np.random.default_rng(5).integers(1, 60, 2000).astype(np.uint16)
    codes[::2] = whole.srvs.index("4.1.1")
    whole.engine.admit_many(np.ones(2000, np.uint32), codes, now=0)
    for code in codes.tolist():
        single.engine.admit_at(1, code, 0)
    assert single.engine.differences().any()
    assert np.array_equal(whole.engine.differences(), single.engine.differences())
    assert np.array_equal(whole.words, single.words)
    assert np.array_equal(whole.engine.counts(), single.engine.counts())
