"""The day of the demonstration: from its seed alone, in the shape it is said to have."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from tmm_core.mechanism import Mechanism
from tmm_core.operations.simulate import day_of, traffic_of
from tmm_core.operations.simulation import streams
from tmm_core.operations.simulation.arrivals import srv_table
from tmm_core.operations.simulation.scenario import MIXES
from tmm_core.operations.traffic.drive import TrafficSecond


def day(seed: int, seconds: int) -> list[TrafficSecond]:
    scenario = day_of(seed, seconds)
    with Mechanism(scenario.config, start=0) as mechanism:
        return list(traffic_of(scenario, mechanism))


def digest(seed: int, seconds: int) -> str:
    found = hashlib.sha256()
    for each in day(seed, seconds):
        for array in (each.users, each.srvs, each.steps):
            found.update(array.astype("<i8").tobytes())
    return found.hexdigest()


def test_a_seed_gives_these_requests_on_every_machine_and_with_every_numpy() -> None:
    # Made once; a change of it changes what everybody with a seed has seen.
    assert digest(1, 36) == "3b6e88fd4b42639e7c16a17c8c5bafdb756eea984f89c7d4486df3369222bbec"


def test_another_seed_gives_other_requests() -> None:
    assert len({digest(seed, 10) for seed in range(3)}) == 3


def test_no_distribution_of_numpy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, *_: object) -> None:
            raise AssertionError("distributions may change between versions of NumPy")

    before = digest(5, 10)
    monkeypatch.setattr(np.random, "Generator", Refused)
    monkeypatch.setattr(np.random, "default_rng", Refused)
    monkeypatch.setattr(np.random, "RandomState", Refused)
    assert digest(5, 10) == before


def test_the_requests_are_in_the_order_of_time_and_in_range() -> None:
    scenario, seconds = day_of(2, 36), day(2, 36)
    known = len(scenario.users) + 1
    assert [each.second for each in seconds] == list(range(36))
    for each in seconds:
        assert (np.diff(each.steps) >= 0).all()
        assert each.steps.min() >= 0 and each.steps.max() < scenario.steps_per_s == 200
        assert each.users.max() < known
        assert each.users.size == each.srvs.size == each.steps.size


def test_the_day_reaches_dsp_peak_volume_twice_and_is_calm_between() -> None:
    sizes = [each.users.size for each in day(1, 288)]
    per_hour = 12  # simulated seconds in an hour of the day
    night, noon, storm = (
        sizes[: 2 * per_hour],
        sizes[6 * per_hour : 17 * per_hour],
        sizes[17 * per_hour : 19 * per_hour],
    )
    assert max(night) > 28_000  # daily reads and the runaway User
    assert max(storm) > 28_000  # freak weather
    assert max(noon) < 2_000
    # Before the runaway User starts, at half past midnight, the daily reads alone are below the threshold.
    assert 14_000 < max(sizes[: per_hour // 2]) < 20_000


def test_the_mean_day_is_the_published_one_and_its_two_floods() -> None:
    total = sum(each.users.size for each in day(1, 720))
    # 10 million in 3,600 s: the same rates in a fifth of the time.
    assert total == pytest.approx(2_000_000, rel=0.02)


def test_the_allocations_leave_room_for_the_priority_list() -> None:
    config = day_of(1, 3600).config
    total = sum(config.allocations.values()) + config.unknown_allocation
    # 12,750 large + 800 small + 6 x 200 and 4 x 100 networks + 20 x 40 others + 50 unknown
    assert total == pytest.approx(12_750 + 800 + 1_200 + 400 + 800 + 50)
    assert total == pytest.approx(0.8 * config.operating_threshold)


def test_the_users_are_tens_and_heavy_tailed() -> None:
    users = day_of(1, 3600).users
    assert Counter(user.category for user in users) == {
        "large-supplier": 13,
        "small-supplier": 9,
        "electricity-network": 6,
        "gas-network": 4,
        "other": 20,
    }
    assert len(users) == 52
    rates = sorted((user.allocation for user in users), reverse=True)
    assert sum(rates[:5]) > 0.5 * sum(rates)


def test_a_shape_is_straight_lines_through_its_points() -> None:
    # 24 seconds for a day: one an hour, in its middle.
    knots, hours = ((1, 0.0), (3, 1.0), (4, 0.5)), np.arange(24) + 0.5
    shape = streams._along(knots, hours)
    # 0.5 h: before the first; 1.5: a quarter; 2.5: three quarters; 3.5: half-way from 1 to 0.5; then 0.5
    assert shape[:6].tolist() == [0.0, 0.25, 0.75, 0.75, 0.5, 0.5]
    assert streams._along(knots, np.array([-3.0, 1.0, 3.0, 4.0, 30.0])).tolist() == [0.0, 0.0, 1.0, 0.5, 0.5]


def test_a_shorter_day_has_the_same_rates_and_reads_as_far_apart_in_the_day() -> None:
    whole, short = day_of(1, 3600), day_of(1, 360)
    assert (short.speed, short.seconds) == (240, 360)
    assert [each.rate for each in short.traffic] == [each.rate for each in whole.traffic]
    spread = [each.spread_s * day.speed for day in (whole, short) for each in day.traffic if each.spread_s]
    assert spread == [360.0] * 6, "six minutes of the day"


@pytest.mark.parametrize("mix", list(MIXES))
def test_a_mix_is_kept_to_one_part_in_4096(mix: str) -> None:
    weights = MIXES[mix]
    numbers = {code: place for place, code in enumerate(weights)}
    table = srv_table(weights, numbers.__getitem__)
    assert table.size == 4096
    found = Counter(table.tolist())
    largest = max(weights, key=lambda code: weights[code])
    for code, weight in weights.items():
        assert found[numbers[code]] >= 1
        if code != largest:  # gets what rounding leaves over
            assert abs(found[numbers[code]] - 4096 * weight / sum(weights.values())) <= 1


def test_every_service_request_of_the_day_but_one_kind_is_in_the_catalogue() -> None:
    codes = {code for mix in MIXES.values() for code in mix}
    with Mechanism(day_of(1, 36).config, start=0) as mechanism:
        assert {code for code in codes if mechanism.srv(code) == 0} == {"(unknown)"}
