"""Engine and oracle, driven with the same traces: every decision, count and Retry-After is equal.

`admit_many` against a loop of `admit_at`, and a gate against `admit_at`: bit for bit, the words left behind too.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from block import Block
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle

from tmm_core import Config, Mechanism

MS, S = 1_000_000, 1_000_000_000
YEAR = 365 * 86_400 * S
NAMES = ["Northern Energy", "Avon Power", "Suspended"]
SRVS = ["4.1.1", "7.4", "4.8.1", "99.9"]  # plain, on the priority list, may cost more, unknown


@cache
def config_number(seed: int) -> Config:
    """One of a few hundred configurations: every choice of terms with every other."""
    choose = random.Random(seed).choice
    threshold = choose([40.0, 100.0, 1000.0])
    shares = [choose([0.0, 0.001, 0.1, 0.25, 0.3]), choose([0.0, 0.1, 0.25]), 0.0]
    tried = [choose([0.0, 0.001, 0.1, 0.3]), choose([0.0, 0.1, 0.25]), choose([0.0, 0.05])]
    candidate = {name: share * threshold for name, share in zip(NAMES, tried, strict=True)}
    return Config(
        2 * threshold, threshold,
        allocations={name: share * threshold for name, share in zip(NAMES, shares, strict=True)},
        user_ids={"90-B3-D5-1F-30-01-00-00": choose(NAMES)},
        priority=choose([["7.4"], [], ["7.4", "4.8.1"]]),
        costs=choose([{}, {"4.8.1": 4}, {"4.8.1": 30, "4.1.1": 2}]),
        burst_s=choose([0.0, 0.05, 1.0]),
        activation_s=choose([0.05, 0.25]),
        hold_s=choose([0.0, 0.5, 10.0]),
        max_retry_after_s=choose([1, 300]),
        sharing=choose(["fair", "fair", "first-come", "none"]),
        mode=choose(["enforce", "enforce", "observe"]),
        unknown_allocation=choose([0.0, 2.0]),
        spare_weight=choose([1.0, 5.0]),
        candidate_allocations=choose([None, candidate, candidate]),
        max_users=8,
    )  # fmt: skip


def configs() -> st.SearchStrategy[Config]:
    return st.integers(0, 399).map(config_number)


users = st.sampled_from([*NAMES, "nobody"])
srvs = st.sampled_from([*SRVS, "4.1.1", "4.1.1"])
steps = st.one_of(
    st.just(0),
    st.integers(0, 2 * MS),
    st.sampled_from([1, 10 * MS, 100 * MS, S]),
    st.integers(0, 3 * S),
    st.sampled_from([60 * S, 3600 * S, 86_400 * S, YEAR // 3, YEAR, 5 * YEAR]),
    st.sampled_from([-1, -MS, -S, -2 * S, -3600 * S, -YEAR]),
)
stale = st.sampled_from([0, 0, 0, 1, 4 * MS, 900 * MS])
#: So few are tallied by User; so many, for 8 Users and 130 SRVs, are counted in a histogram.
few, many_more = st.integers(1, 400), st.integers(1040, 1300)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), users, srvs, steps, stale),
        st.tuples(st.just("storm"), users, srvs, steps, st.integers(2, 200)),
        st.tuples(st.just("storm"), users, srvs, st.integers(0, 20 * MS), st.integers(2, 200)),
        st.tuples(st.just("batch"), st.integers(1, 2**30), st.just(0), steps, few),
        st.tuples(st.just("batch"), st.integers(1, 2**30), st.just(0), steps, many_more),
        st.tuples(st.just("retry"), users, st.integers(1, 4), steps, stale),
        st.tuples(st.just("apply"), configs(), st.just(0), st.sampled_from([0, S]), st.just(0)),
        st.tuples(st.just("tick"), st.just(0), st.just(0), steps, stale),
    ),
    min_size=1,
    max_size=25,
)


def mixed_batch(mechanism: Mechanism, seed: int, n: int) -> tuple[Any, Any]:
    chance = np.random.default_rng(seed)
    slots = np.array([mechanism.user(name) for name in [*NAMES, "nobody"]], dtype=np.uint32)
    numbers = np.array([mechanism.srv(code) for code in SRVS], dtype=np.uint16)
    few = chance.integers(1, 5)
    return slots[chance.integers(0, few, n)], numbers[chance.integers(0, chance.integers(1, 5), n)]


def cells(mechanism: Mechanism) -> dict[tuple[int, int, int], int]:
    counts = mechanism.engine.counts()
    return {tuple(map(int, at)): int(counts[tuple(at)]) for at in np.argwhere(counts)}  # type: ignore[misc]


@pytest.mark.parametrize("before", range(120, 205))
def test_it_is_active_at_the_very_unit_wherever_a_tick_or_a_change_comes(before: int) -> None:
    """A worker looks at the backlog once in a block of 12 units here; what it holds back counts all the same."""
    config = Config(
        4_000, 2_000, allocations={"Northern Energy": 1_000}, activation_s=0.096, burst_s=60, tick_s=0.001
    )
    for between in ("nothing", "tick", "apply", "batch"):
        now = 10**15
        mechanism, oracle = Mechanism(config, start=now), Oracle(config, now)
        user, srv, now = mechanism.user("Northern Energy"), mechanism.srv("4.1.1"), now + 10**9
        for number in range(240):
            if number == before and between == "tick":
                now += 1_000_000  # 2 units drain
                mechanism.tick(now)
                oracle.tick(now)
            elif number == before and between == "apply":
                sooner = replace(config, activation_s=0.09)
                mechanism.apply(sooner, now=now)
                oracle.apply(sooner, now)
            elif number == before and between == "batch":
                # Long enough for a slab of its own, which takes over what is held back.
                mechanism.admit_many(np.full(64, user, np.uint32), np.full(64, srv, np.uint16), now=now)
                for _ in range(64):
                    oracle.admit(user, srv, now)
            mechanism.admit_at(user, srv, now)
            oracle.admit(user, srv, now)
            assert mechanism.engine.state(now)["active"] == oracle.active, (between, number)
        assert oracle.active


@settings(max_examples=150)
@given(first=configs(), trace=operations)
def test_engine_and_oracle_decide_alike(first: Config, trace: list[Any]) -> None:
    now = 10**15
    mechanism, oracle = Mechanism(first, start=now), Oracle(first, now)
    gate = mechanism.gate("90-B3-D5-1F-30-01-00-00")
    for step, (kind, what, detail, ahead, extra) in enumerate(trace):
        now += ahead
        where = (step, kind, what, detail, ahead, extra)
        if kind == "admit":
            user, srv, at = mechanism.user(what), mechanism.srv(detail), now - extra
            expected = oracle.admit(user, srv, at)
            decide = gate.admit_at if gate.slot == user else lambda s, t, u=user: mechanism.admit_at(u, s, t)
            assert decide(srv, at) == expected, where
        elif kind == "storm":
            user, srv = mechanism.user(what), mechanism.srv(detail)
            found = [int(mechanism.admit_at(user, srv, now)) for _ in range(extra)]
            assert found == [oracle.admit(user, srv, now) for _ in range(extra)], where
        elif kind == "batch":
            many, codes = mixed_batch(mechanism, what, extra)
            found = mechanism.admit_many(many, codes, now=now).tolist()
            assert found == [oracle.admit(int(u), int(s), now) for u, s in zip(many, codes, strict=True)], (
                where
            )
        elif kind == "retry":
            user = mechanism.user(what)
            for _ in range(detail):
                seconds = mechanism.retry_after(user, now=now - extra)
                # As seconds it may be a nanosecond more, never less.
                assert int(seconds * 1e9) - oracle.retry_after(user, now - extra) in (0, 1), where
        elif kind == "apply":
            mechanism.apply(what, now=now)
            oracle.apply(what, now)
        else:
            mechanism.tick(now - extra)
            oracle.tick(now - extra)
        state = mechanism.engine.state(now)
        assert (state["active"], state["activations"]) == (oracle.active, oracle.activations), where
        assert state["level"] == oracle.level, where
        assert state["backlog"] == oracle.backlog(now * 128), where
        assert (state["load"], state["offered"]) == (oracle.rates["load"], oracle.rates["offered"]), where
    assert cells(mechanism) == {at: count for at, count in sorted(oracle.counts.items()) if count}
    units = mechanism.engine.units()
    assert {(u, o): int(units[u, o]) for u, o in np.argwhere(units)} == {
        at: n for at, n in oracle.units.items() if n
    }
    differences = mechanism.engine.differences()
    assert {(u, d): int(differences[u, d]) for u, d in np.argwhere(differences)} == {
        at: n for at, n in oracle.differences.items() if n
    }


blocks = st.lists(
    st.tuples(
        st.integers(1, 2**30), st.one_of(few, st.integers(401, 700), many_more), st.integers(0, 200 * MS)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100)
@given(config=configs(), then=configs(), batches=blocks)
def test_admit_many_leaves_the_words_a_loop_of_admit_at_leaves(
    config: Config, then: Config, batches: list[Any]
) -> None:
    whole, single = Block(config), Block(config)
    now = 0
    for index, (seed, n, step) in enumerate(batches):
        now += step
        if index == 3:
            whole.apply(then, now)
            single.apply(then, now)
        chance = np.random.default_rng(seed)
        many = chance.integers(0, chance.integers(1, len(whole.names) + 1), n).astype(np.uint32)
        numbers = [whole.srvs.index(code) if code in whole.srvs else 0 for code in SRVS]
        codes = np.array(numbers, dtype=np.uint16)[chance.integers(0, chance.integers(1, 5), n)]
        found = whole.engine.admit_many(many, codes, now=now)
        one_by_one = [
            int(single.engine.admit_at(int(u), int(s), now)) for u, s in zip(many, codes, strict=True)
        ]
        observing = (then if index >= 3 else config).mode == "observe"
        assert not (observing and 0 in found)
        assert found.tolist() == one_by_one
        assert np.array_equal(whole.words, single.words)
        where = whole.control != single.control
        where[[3]] = False  # slabs used
        assert not where.any(), np.flatnonzero(where)
        assert whole.pending() == single.pending()
        assert np.array_equal(whole.engine.counts(), single.engine.counts())
        assert np.array_equal(whole.engine.units(), single.engine.units())
        assert np.array_equal(whole.engine.differences(), single.engine.differences())
        assert whole.engine.state()["healed"] == single.engine.state()["healed"]


@pytest.mark.parametrize("n", [1, 63, 64, 65, 20_000])
def test_a_batch_of_any_length_is_a_loop(n: int) -> None:
    config = Config(2000, 1000, allocations={"Northern Energy": 400.0, "Avon Power": 300.0}, priority=["7.4"])
    whole, single = Block(config), Block(config)
    many = np.tile(np.array([0, 1, 2, 1], dtype=np.uint32), n)[:n]
    codes = np.tile(np.array([1, 2, 3], dtype=np.uint16), n)[:n]
    out = np.full(n, 9, dtype=np.uint8)
    assert whole.engine.admit_many(many, codes, out, 5) is out
    assert out.tolist() == [
        single.engine.admit_at(int(u), int(s), 5) for u, s in zip(many, codes, strict=True)
    ]
    assert np.array_equal(whole.words, single.words)


@given(config=configs(), seed=st.integers(1, 2**30), n=st.integers(1, 300))
def test_a_gate_decides_as_admit_does(config: Config, seed: int, n: int) -> None:
    through, plain = Mechanism(config, start=0), Mechanism(config, start=0)
    many, codes = mixed_batch(plain, seed, n)
    names = {plain.user(name): name for name in [*NAMES, "nobody"]}
    gates = {slot: through.gate(name) for slot, name in names.items()}
    for index, (user, srv) in enumerate(zip(many.tolist(), codes.tolist(), strict=True)):
        now = index * MS
        assert gates[user].admit_at(srv, now) is plain.admit_at(user, srv, now)
        if index % 7 == 0:
            assert gates[user].retry_after(now) == plain.retry_after(user, now)
    assert np.array_equal(through.engine.counts(), plain.engine.counts())


@settings(max_examples=150)
@given(config=configs(), trace=operations)
def test_peek_tells_what_the_next_decision_will_be(config: Config, trace: list[Any]) -> None:
    now = 10**15
    mechanism = Mechanism(config, start=now)
    for kind, what, detail, ahead, extra in trace:
        if kind not in ("admit", "storm"):
            continue
        now += ahead
        mechanism.tick(now)
        user, srv = mechanism.user(what), mechanism.srv(detail)
        for _ in range(extra if kind == "storm" else 1):
            before = mechanism.engine.words(user)
            told = mechanism.explain(what, detail, now=now).decision
            assert mechanism.engine.words(user) == before
            decided = mechanism.admit_at(user, srv, now)
            assert decided == told or (config.mode == "observe" and (told, decided) == (0, 1))
