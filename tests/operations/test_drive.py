"""What the Drive tallies is what the engine counted, and events are seen when they begin and end."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.traffic.drive import Drive, Outcome, Row, TrafficSecond
from tmm_core.policy.config import Config

NAMES = ("Alpha", "Beta", "Gamma")


def config(**more: object) -> Config:
    options: dict[str, object] = {
        "allocations": {"Alpha": 60.0, "Beta": 20.0, "Gamma": 0.0},
        "unknown_allocation": 10.0,
        "priority": ["7.4"],
        **more,
    }
    return Config(150, 100, **options)  # type: ignore[arg-type]


def second(number: int, users: list[int], srvs: list[int], steps: list[int] | None = None) -> TrafficSecond:
    return TrafficSecond(
        number,
        np.array(users, dtype=np.uint32),
        np.array(srvs, dtype=np.uint16),
        np.array(steps if steps is not None else [0] * len(users), dtype=np.int64),
    )


def random_second(number: int, chance: np.random.Generator, n: int) -> TrafficSecond:
    users = chance.integers(0, 4, n).tolist()
    srvs = chance.integers(0, 130, n).tolist()
    return second(number, users, srvs, sorted(chance.integers(0, 200, n).tolist()))


@pytest.mark.parametrize("costs", [{}, {"4.8.1": 7, "8.2": 3}])
def test_the_tallies_are_the_engines_own_counts(seed: int, costs: dict[str, int]) -> None:
    chance = np.random.default_rng(seed)
    rows: list[Row] = []
    throttled, highest = Counter[int](), Counter[int]()
    with Mechanism(config(costs=costs), start=0) as mechanism:
        drive = Drive(mechanism, on_row=rows.append)
        for number in range(60):
            fed = random_second(number, chance, int(chance.integers(0, 400)))
            out = drive.feed(fed)
            throttled.update(set(fed.users[out == Decision.THROTTLED].tolist()))
            for user, n in Counter(fed.users.tolist()).items():
                highest[user] = max(highest[user], n)
        outcome = drive.finish()
        counts, units = mechanism.snapshot().counts, mechanism.engine.units()
    n = len(outcome.users)
    assert outcome.activations >= 1 and outcome.of(Decision.THROTTLED) > 0  # else this proves little
    assert (outcome.counts == counts.sum(axis=1)[:n]).all()
    assert outcome.unknown_srv == counts[:, 0].sum()
    assert outcome.seconds_throttled.tolist() == [throttled[user] for user in range(n)]
    assert outcome.highest_offered.tolist() == [highest[user] for user in range(n)]
    for decision in Decision:
        assert outcome.of(decision) == sum(row.counts[decision] for row in rows)
    assert sum(row.offered_units for row in rows) == units.sum()
    assert sum(row.admitted_units for row in rows) == units.sum() - units[:, Decision.THROTTLED].sum()
    assert sum(event.throttled for event in outcome.events) == outcome.of(Decision.THROTTLED)


def test_decisions_come_back_in_the_order_of_the_requests() -> None:
    with Mechanism(config(), start=0) as mechanism:
        alpha, priority, plain = mechanism.user("Alpha"), mechanism.srv("7.4"), mechanism.srv("4.1.1")
        gamma = mechanism.user("Gamma")
        out = Drive(mechanism).feed(second(0, [alpha, gamma, alpha], [plain, plain, priority]))
    expected = [Decision.WITHIN_ALLOCATION, Decision.SPARE_CAPACITY, Decision.PRIORITY]
    assert out.tolist() == expected


def burst(mechanism: Mechanism, number: int, n: int = 40) -> TrafficSecond:
    """Requests of Gamma, which has no allocation, all at the beginning of a second."""
    return second(number, [mechanism.user("Gamma")] * n, [mechanism.srv("4.1.1")] * n)


def test_an_event_begins_with_the_backlog_and_ends_when_it_has_been_quiet() -> None:
    rows: list[Row] = []
    with Mechanism(config(hold_s=3), start=0) as mechanism:
        drive = Drive(mechanism, on_row=rows.append)
        drive.feed(burst(mechanism, 0, 5))
        # 40 at once on a threshold of 100 a second: active after the 26th, which makes the backlog 0.26 s.
        drive.feed(burst(mechanism, 2))
        drive.feed(second(30, [1], [1]))
        outcome = drive.finish()
    (event,) = outcome.events
    assert outcome.activations == 1
    assert event.began_s == 2.0
    # Gamma has no allocation and there is a backlog: what comes after the 26th is throttled.
    assert event.throttled == outcome.of(Decision.THROTTLED) == 14
    assert event.highest_offered == 40
    # Quiet from the start: the offered load never reaches 95 for a whole second. hold_s after it began, about.
    assert event.ended_s is not None and 5.0 <= event.ended_s <= 5.2
    # While inactive, silence leaves no row; while active each second has one.
    assert [row.second for row in rows] == [0, 2, 3, 4, 5, 30]
    assert [row.active for row in rows] == [False, True, True, True, True, False]
    assert all((row.level is not None) == (row.active and row.second < 5) for row in rows)
    assert outcome.seconds == 31


def test_an_event_that_is_not_over_has_no_end() -> None:
    with Mechanism(config(), start=0) as mechanism:
        drive = Drive(mechanism)
        drive.feed(burst(mechanism, 0))
        outcome = drive.finish()
    assert [event.ended_s for event in outcome.events] == [None]


def test_events_that_begin_and_end_within_one_second_are_all_seen() -> None:
    with Mechanism(config(hold_s=0, allocations={"Gamma": 0.0}), start=0) as mechanism:
        drive = Drive(mechanism)
        gamma, srv = mechanism.user("Gamma"), mechanism.srv("4.1.1")
        # Two bursts of 30, half a second apart, with one request in between to tick on.
        steps = [0] * 30 + [60, 80] + [100] * 30 + [180]
        drive.feed(second(0, [gamma] * len(steps), [srv] * len(steps), steps))
        drive.feed(second(3, [gamma], [srv]))
        outcome = drive.finish()
    assert outcome.activations == len(outcome.events) == 2
    first, last = outcome.events
    assert first.ended_s is not None
    assert 0 == first.began_s < first.ended_s <= last.began_s == 0.5


def test_the_closest_look_is_at_the_activation_that_throttled_most() -> None:
    with Mechanism(config(hold_s=1), start=0) as mechanism:
        drive = Drive(mechanism)
        for number, n in ((0, 30), (100, 60), (200, 40)):
            drive.feed(burst(mechanism, number, n))
        outcome = drive.finish()
    assert [event.throttled for event in outcome.events] == [4, 34, 14]
    assert outcome.closest_began_s == 100.0
    assert outcome.closest is not None
    assert max(outcome.closest.offered) == 60
    assert outcome.closest.first == 100  # nothing was asked in the 20 s before


def test_the_closest_look_begins_twenty_seconds_before() -> None:
    with Mechanism(config(hold_s=1), start=0) as mechanism:
        drive = Drive(mechanism)
        for number, n in ((70, 1), (85, 2), (99, 3), (100, 60), (119, 4), (140, 5)):
            drive.feed(burst(mechanism, number, n))
        outcome = drive.finish()
    assert outcome.closest is not None
    assert outcome.closest.first == 85
    # 20 s after the last active second, 101 or 102, the look ends: 119 is in it, 140 is not.
    assert outcome.closest.first + len(outcome.closest.offered) - 1 == 119


def test_the_highest_admitted_second_of_an_event_leaves_out_the_one_it_began_in() -> None:
    with Mechanism(config(hold_s=2), start=0) as mechanism:
        drive = Drive(mechanism)
        gamma, srv = mechanism.user("Gamma"), mechanism.srv("4.1.1")
        # 26 + what the brake lets through later; then 5 in the next second.
        drive.feed(burst(mechanism, 0, 30))
        drive.feed(second(1, [gamma] * 5, [srv] * 5, [190] * 5))
        outcome = drive.finish()
    assert outcome.admitted.highest == 26
    assert outcome.highest_while_active <= 5


def test_a_second_in_parts_is_the_same_as_at_once(seed: int) -> None:
    def run(parts: int) -> Outcome:
        chance = np.random.default_rng(seed)
        with Mechanism(config(), start=0) as mechanism:
            drive = Drive(mechanism)
            for number in range(20):
                whole = random_second(number, chance, 300)
                # Not within a step: its requests are decided at one instant, in one batch.
                edges = [int(np.searchsorted(whole.steps, step)) for step in (50, 120)] if parts > 1 else []
                for begin, end in zip([0, *edges], [*edges, 300], strict=True):
                    part = slice(begin, end)
                    drive.feed(TrafficSecond(number, whole.users[part], whole.srvs[part], whole.steps[part]))
            return drive.finish()

    once, parted = run(1), run(3)
    assert (once.counts == parted.counts).all()
    assert (once.offered, once.admitted, once.events) == (parted.offered, parted.admitted, parted.events)
    assert (once.seconds_throttled == parted.seconds_throttled).all()
    assert (once.highest_offered == parted.highest_offered).all()


def test_the_queues_are_fed_with_what_is_offered_and_what_is_admitted() -> None:
    with Mechanism(config(allocations={"Gamma": 0.0}), start=0) as mechanism:
        drive = Drive(mechanism)
        drive.feed(burst(mechanism, 0, 400))
        outcome = drive.finish()
    # A DSP of 150 a second that gets 400 has 250 waiting; behind the Mechanism it gets 26.
    assert outcome.offered.highest_backlog == 250
    assert outcome.admitted.highest == 26
    assert outcome.admitted.highest_backlog == 0


def test_no_traffic_is_no_outcome_but_no_failure() -> None:
    with Mechanism(config(), start=0) as mechanism:
        outcome = Drive(mechanism).finish()
    assert (outcome.requests, outcome.seconds, outcome.activations, outcome.closest) == (0, 0, 0, None)


def test_somebody_else_on_the_same_mechanism_is_found_out() -> None:
    with Mechanism(config(), start=0) as mechanism:
        drive = Drive(mechanism)
        drive.feed(burst(mechanism, 0))
        mechanism.admit_at(1, 1, 10**9)
        with pytest.raises(RuntimeError, match="differ from the engine"):
            drive.finish()


def test_a_mechanism_that_only_observes_is_refused() -> None:
    with (
        Mechanism(config(mode="observe"), start=0) as mechanism,
        pytest.raises(ValueError, match="mode 'observe' must be 'enforce'"),
    ):
        Drive(mechanism)


def test_time_does_not_go_back() -> None:
    with Mechanism(config(), start=0) as mechanism:
        drive = Drive(mechanism)
        drive.feed(burst(mechanism, 5))
        with pytest.raises(ValueError, match="second 4 is before second 5"):
            drive.feed(burst(mechanism, 4))
