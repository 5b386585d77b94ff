"""Other people's bugs in rate limiters, each a test that would find it here.

The numbers are those of the project's list of lessons.

Lessons 12 and 14 are about configuration files and are tested where those are.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from traffic_days import MS, S, drive

from tmm_core import Config, Decision, Mechanism

YEAR = 365 * 86_400 * S


def strict(rate: float = 10.0, **terms: Any) -> tuple[Mechanism, int]:
    """Active for an hour and nothing shared, so that the User's own bucket alone decides; at rest at time 0."""
    given = {"hold_s": 3600, "sharing": "none", "allocations": {"Tees Gas": rate}, **terms}
    mechanism = Mechanism(Config(2000, 1000, **given), start=0)
    mechanism.admit_many(np.zeros(400, dtype=np.uint32), np.zeros(400, dtype=np.uint16), now=0)
    assert mechanism.snapshot().active
    return mechanism, mechanism.user("Tees Gas")


def burst(mechanism: Mechanism, user: int, now: int, srv: int = 0) -> int:
    """How many are admitted at one instant before the first refusal."""
    found = 0
    while mechanism.admit_at(user, srv, now):
        found += 1
    return found


def test_lesson_1_it_limits_after_an_idle_gap_too() -> None:
    """A limiter of one word was shipped without any limit, then without one after a gap, then without its slack."""
    mechanism, user = strict()
    assert burst(mechanism, user, 0) == 11
    assert burst(mechanism, user, 30 * 60 * S) == 11
    assert [bool(mechanism.admit_at(user, 0, 1800 * S + turn * 50 * MS)) for turn in range(1, 9)] == [
        False,
        True,
    ] * 4


def test_lesson_2_every_admission_changes_the_word() -> None:
    """A compare-and-swap from a value to the same value succeeds for everyone."""
    mechanism, user = strict(1e5 / 128, allocations={"Tees Gas": 900.0})
    words = [mechanism.engine.words(user)[0] for turn in range(2000) if mechanism.admit_at(user, 0, turn)]
    assert len(set(words)) == len(words) > 900


def test_lesson_3_a_stale_clock_is_never_worth_anything() -> None:
    """An old `now` used again gave a full refill: here it never gives more than the true one."""
    mechanism, user = strict()
    burst(mechanism, user, 5 * S)
    for late in (1, MS, S // 2, S):
        assert not mechanism.admit_at(user, 0, 5 * S - late)


def test_lesson_4_clocks_in_turn_before_and_after_create_nothing() -> None:
    """Callers a skew e apart get at most r*t + b + r*e, in whatever order their clocks come."""
    mechanism, user = strict(100.0)
    skew, admitted = 300 * MS, 0
    for turn in range(20_000):
        now = turn * MS + (skew if turn % 2 else 0)
        admitted += bool(mechanism.admit_at(user, 0, now))
    assert admitted <= 100 * (20 + 0.3) + 101
    assert admitted >= 100 * 20


def test_lesson_5_no_residue_ever_denies() -> None:
    """With fractions of a token, 0.9999999 was not enough: at an interval that no binary fraction can hold."""
    for rate in (0.1, 0.3, 3.0, 7.0, 333.3):
        mechanism, user = strict(rate, burst_s=0)
        interval = Fraction(S) / Fraction(repr(rate))
        for turn in range(300):
            assert mechanism.admit_at(user, 0, turn * -int(-interval // 1)), (rate, turn)


def test_lesson_6_zero_is_an_allocation() -> None:
    """Neither a division by zero nor no limit: only spare capacity and the priority list."""
    mechanism, user = strict(0.0, priority=["7.4"])
    assert not mechanism.admit_at(user, 0, S)
    assert mechanism.admit_at(user, mechanism.srv("7.4"), S) is Decision.PRIORITY
    assert mechanism.retry_after(user, now=S) > 0
    free = Mechanism(Config(2000, 1000, allocations={"Tees Gas": 0.0}), start=0)
    assert free.admit_at(free.user("Tees Gas"), 0, 0) is Decision.SPARE_CAPACITY


def test_lesson_7_a_refusal_writes_nothing_to_the_bucket() -> None:
    mechanism, user = strict(sharing="fair")
    burst(mechanism, user, S)
    before, load = mechanism.engine.words(user), mechanism.engine.state(S)["backlog"]
    for turn in range(500):
        assert not mechanism.admit_at(user, 0, S + turn)
    assert mechanism.engine.words(user) == before
    assert mechanism.engine.state(S)["backlog"] == load


@pytest.mark.parametrize("burst_s", [0.0, 0.1, 1.0, 2.5])
def test_lesson_8_tolerance_is_not_burst_plus_one_more(burst_s: float) -> None:
    """Four years of one too many: from rest, exactly the burst in seconds of allocation and the one in hand."""
    mechanism, user = strict(10.0, burst_s=burst_s)
    assert burst(mechanism, user, S) == int(10 * burst_s) + 1


@pytest.mark.parametrize(
    "idle", [12 * 3600 * S, YEAR // 2, YEAR, 2 * YEAR, 5 * YEAR // 2, 43 * YEAR // 10, 100 * YEAR]
)
def test_lesson_9_years_of_idling_overflow_nothing(idle: int) -> None:
    mechanism, user = strict(sharing="none")
    burst(mechanism, user, 0)
    mechanism.tick(idle)
    other = mechanism.engine.admit_many(
        np.zeros(400, dtype=np.uint32), np.zeros(400, dtype=np.uint16), now=idle
    )
    assert other.any()
    assert mechanism.snapshot(idle).active
    assert burst(mechanism, user, idle) == 11, "a whole burst, and no more"


def test_lesson_10_what_is_admitted_is_what_is_allocated() -> None:
    """600 of 1000, and 83,300 of 80,000, from rounding; ten minutes at an odd rate here, 10^9 in core/test_gcra."""
    mechanism, user = strict(777.7)
    found = drive(mechanism, 60, {"Tees Gas": 2000.0}, step=5 * MS)
    assert found[:, user, Decision.WITHIN_ALLOCATION].sum() == pytest.approx(
        777.7 * 61, abs=777.7 * 0.005 + 2
    )


@pytest.mark.parametrize(("before", "after"), [(100.0, 1.0), (1.0, 100.0), (1 / 86_400, 10.0), (100.0, 0.0)])
def test_lesson_11_a_lowered_allocation_goes_on_refilling(before: float, after: float) -> None:
    """The monthly update with an empty bucket: nobody is stopped for ever, nobody gets a fresh burst."""
    mechanism, user = strict(before)
    burst(mechanism, user, S)
    terms = mechanism.config
    mechanism.apply(
        Config(2000, 1000, allocations={"Tees Gas": after}, sharing="none", hold_s=terms.hold_s), now=S
    )
    admitted = sum(bool(mechanism.admit_at(user, 0, S + turn * 10 * MS)) for turn in range(1, 3000))
    assert abs(admitted - 30 * after) <= 2 + max(after, 1), "thirty seconds of the new allocation"


def test_lesson_13_refusals_do_not_stand_in_the_way_of_a_raised_limit() -> None:
    mechanism, user = strict(1.0)
    for turn in range(5000):
        mechanism.admit_at(user, 0, turn * MS)
    mechanism.apply(
        Config(2000, 1000, allocations={"Tees Gas": 500.0}, sharing="none", hold_s=3600), now=5 * S
    )
    found = drive(mechanism, 2, {"Tees Gas": 600.0}, begin=5 * S)
    assert found[:, user, 1:].sum() == pytest.approx(1000, rel=0.3)
    assert found[1000:, user, 1:].sum() >= 499, "at once, not when old refusals are forgotten"


def test_lesson_15_a_dry_run_counts_what_it_would_refuse_and_refuses_nothing() -> None:
    real, dry = strict()[0], strict(mode="observe")[0]
    user = real.user("Tees Gas")
    for turn in range(200):
        assert dry.admit_at(user, 0, turn * MS)
        real.admit_at(user, 0, turn * MS)
    assert np.array_equal(real.snapshot().counts, dry.snapshot().counts)
    assert dry.snapshot().counts[user, :, Decision.THROTTLED].sum() > 100


def test_lesson_16_one_can_ask_without_being_counted() -> None:
    mechanism, user = strict()
    for _ in range(100):
        assert mechanism.explain("Tees Gas", "4.1.1", now=S).decision is Decision.WITHIN_ALLOCATION
    assert burst(mechanism, user, S) == 11
    told = mechanism.explain("Tees Gas", "4.1.1", now=S)
    assert told.decision is Decision.THROTTLED
    assert "over its allocation of 10 units per second" in str(told)
    assert "admits again in 0.1 s" in str(told)


@pytest.mark.parametrize("back", [0, 1, S, -3600 * S])
def test_lesson_17_retry_after_is_never_zero_negative_or_too_early(back: int) -> None:
    """One limiter said -1,484,742,195 s. Waiting it out admits, a tick less does not, and it is rounded up."""
    mechanism, user = strict(7.0, burst_s=0)
    now = 2 * S
    burst(mechanism, user, now)
    seconds = mechanism.retry_after(user, now=now - back if back > 0 else now)
    assert 0 < seconds <= 2
    wait = int(seconds * 1e9) - max(back, 0)
    if back < 0:
        assert 0 <= mechanism.retry_after(user, now=now + back) <= 300
    elif back == 0:
        assert not mechanism.admit_at(user, 0, now + wait - 1)
    assert mechanism.admit_at(user, 0, now + wait)


def test_lesson_18_callers_are_told_different_instants() -> None:
    mechanism, user = strict()
    burst(mechanism, user, S)
    told = [mechanism.retry_after(user, now=S) for _ in range(50)]
    assert len(set(told)) == 50
    assert np.allclose(np.diff(told), 0.1)


def test_lesson_28_a_request_that_costs_more_counts_as_more() -> None:
    """In the bucket, the load and the units; and one above the burst is let in from a bucket at rest."""
    mechanism, user = strict(10.0, costs={"4.8.1": 4, "7.4": 100})
    dear, huge = mechanism.srv("4.8.1"), mechanism.srv("7.4")
    assert burst(mechanism, user, S, dear) == 3, "4 + 4 leave 2 of 10, and the third conforms"
    assert mechanism.engine.units()[user].tolist() == [4, 0, 12, 0]
    assert mechanism.admit_at(user, huge, 10 * S) is Decision.WITHIN_ALLOCATION
    assert not mechanism.admit_at(user, 0, 18 * S)
    assert mechanism.admit_at(user, 0, 19 * S + 1)
    load = Mechanism(Config(2000, 1000, costs={"4.8.1": 50}), start=0)
    for _ in range(6):
        load.admit_at(0, load.srv("4.8.1"), 0)
    assert load.snapshot(0).active, "six requests, 300 units"
