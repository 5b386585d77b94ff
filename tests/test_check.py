"""What is in force, for programs, and the warnings: each is shown to come, and a sound configuration has none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from config_folder import ON

from tmm_core import Config, Decision, Mechanism, PriorityList
from tmm_core.policy.check import burst_at_once, burst_in, describe, warnings, without_password
from tmm_core.policy.service_requests import srv_codes

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "config"

#: Nothing to warn of.
SOUND = Config(
    500,
    400,
    allocations={"Northern Energy": 200.0, "Harbour Analytics": 20.5},
    user_ids={"90-B3-D5-1F-30-01-00-00": "Northern Energy", "90-B3-D5-1F-30-02-00-00": "Harbour Analytics"},
    priority=PriorityList(("2.2", "7.4"), "7", date(2026, 11, 1), "the Panel", "minutes"),
    unknown_allocation=5,
    categories={"Northern Energy": "large-supplier"},
    costs={"4.8.1": 4},
    event_log="events.db",
    effective_from=date(2026, 11, 1),
    source="tmm.toml",
    allocations_file="allocations.csv",
)


def test_a_sound_configuration_has_no_warnings() -> None:
    assert warnings(SOUND, on=ON) == []


def test_the_example_has_no_warnings() -> None:
    assert warnings(Config.load(EXAMPLE / "tmm.toml", on=ON), on=ON) == []


LISTED = SOUND.priority
assert isinstance(LISTED, PriorityList)

#: What is changed, what is told.
WARNINGS: list[tuple[dict[str, object], str]] = [
    (
        {"cluster_url": "redis://store:6379/0"},
        (
            "[cluster] url is kept but not used: hosts do not share a state yet, so each host gives every User the "
            "whole of its allocation; divide allocations and thresholds by the number of hosts."
        ),
    ),
    ({"mode": "observe"}, 'mode is "observe": decisions are counted and logged, and nothing is refused.'),
    (
        {"system_capacity": 400},
        (
            "operating_threshold is equal to system_capacity: there is no room for what is admitted "
            "while the Mechanism "
            "becomes active."
        ),
    ),
    (
        {"release_threshold": 398},
        "release_threshold 398 is within 1 % of operating_threshold 400: one overload may become several activations.",
    ),
    (
        {"release_threshold": 199},
        (
            "release_threshold 199 is below half of operating_threshold 400: the Mechanism may stay "
            "active long after an "
            "overload."
        ),
    ),
    ({"hold_s": 0.5}, "hold_s 0.5 is below 1 second: one overload may become several activations."),
    ({"hold_s": 601}, "hold_s 601 keeps the Mechanism active over ten minutes after each overload."),
    (
        {"activation_s": 5},
        "activation_s 5 lets a backlog of 2,000 units build up before the Mechanism becomes active.",
    ),
    ({"event_log": None}, "No event_log is named: activations and throttling are not recorded."),
    (
        {"allocations": {}, "user_ids": {}, "categories": {}},
        "No allocations are named: all Service Users share the pool of the unknown ones.",
    ),
    (
        {"effective_from": date(2026, 12, 1)},
        "The allocations begin on 2026-12-01, after 2026-11-25, but are in force: they are named as a file.",
    ),
    (
        {"effective_from": date(2026, 10, 24)},
        "The allocations are those of 2026-10-24, 32 days old: they are to be updated monthly.",
    ),
    (
        {"system_capacity": 5000, "operating_threshold": 4000, "release_threshold": None},
        (
            "The allocations add up to 225.5 units per second, 5.6 % of the operating_threshold: most of "
            "what it allows is "
            "shared as spare capacity."
        ),
    ),
    (
        {"unknown_allocation": 179.5},
        (
            "The allocations add up to 400 units per second, 100 % of the operating_threshold: priority "
            "requests, which "
            "come on top, may lift the load above it."
        ),
    ),
    ({"max_users": 2}, "max_users 2 leaves no slot for a new User: one would need a restart."),
    (
        # floor((1 + 0.1) * 5) + 1 = 6 in 100 ms are inside the allocation, 7 are not
        {"allocations": {"Northern Energy": 200.0, "Harbour Analytics": 5.0}},
        (
            "A burst of 7 in 100 ms from Harbour Analytics would be throttled once active: its "
            "allocation is 5 units per "
            "second with burst_s 1."
        ),
    ),
    (
        # floor((0 + 0.1) * 80) + 1 = 9, floor(0.1 * 20.5) + 1 = 3
        {
            "burst_s": 0,
            "allocations": {"Northern Energy": 80.0, "Harbour Analytics": 20.5},
            "release_threshold": 350,
        },
        (
            "A burst of 4 in 100 ms from Harbour Analytics would be throttled once active: its "
            "allocation is 20.5 units "
            "per second with burst_s 0; so would one of 10 from 1 other User."
        ),
    ),
    (
        {"user_ids": {"90-B3-D5-1F-30-01-00-00": "Northern Energy"}},
        "Harbour Analytics has no EUI-64: only a gateway that passes the name can tell them.",
    ),
    (
        {"user_ids": {}},
        "Northern Energy and Harbour Analytics have no EUI-64: only a gateway that passes the name can tell them.",
    ),
    (
        {"allocations": {"Northern Energy": 200.0, "Harbour Analytics": 0.0}},
        "Harbour Analytics has an allocation of 0: while active, spare capacity only.",
    ),
    (
        {"unknown_allocation": 0},
        "[unknown_users] allocation is 0: while active, Users that are not in the allocations get spare capacity only.",
    ),
    ({"priority": ()}, "The priority list is empty: every Service Request may be throttled."),
    ({"priority": replace(LISTED, approved_by=" ")}, "The priority list 7 does not say who approved it."),
    (
        {"priority": replace(LISTED, effective_from=date(2027, 1, 1))},
        "The priority list 7 begins on 2027-01-01, after 2026-11-25, but it is in force.",
    ),
    (
        {"priority": replace(LISTED, effective_from=date(2025, 11, 1))},
        "The priority list 7 is that of 2025-11-01, more than a year before 2026-11-25: it may be out of date.",
    ),
    (
        {"priority": replace(LISTED, effective_from=None, version="")},
        "The priority list does not say since when it is in force.",
    ),
]


@pytest.mark.parametrize(("changed", "told"), WARNINGS, ids=[told[:50] for _, told in WARNINGS])
def test_what_is_probably_not_meant_is_told_in_one_sentence(changed: dict[str, object], told: str) -> None:
    """Lesson 14: units and intervals that are not told are misread by everybody."""
    assert warnings(replace(SOUND, **changed), on=ON) == [told]


def test_a_list_of_most_of_the_catalogue_is_told() -> None:
    chapters = tuple(code for code in srv_codes() if code.startswith(("1.", "3.", "4.", "6.")))
    assert 129 // 2 < len(chapters) < 129
    config = replace(SOUND, priority=replace(LISTED, srvs=chapters))
    assert warnings(config, on=ON) == [
        f"The priority list 7 names {len(chapters)} of the 129 SRVs: what is on it is never throttled."
    ]


def test_warnings_are_few_however_many_users_there_are() -> None:
    users = {f"User {number}": 0.0 if number % 2 else 1.0 for number in range(300)}
    found = warnings(replace(SOUND, allocations=users, user_ids={}, categories={}), on=ON)
    assert len(found) == 3
    assert "User 0, User 1, User 2 and 297 other Users have no EUI-64" in found[1]


@pytest.mark.parametrize("burst_s", [0.0, 0.05, 1.0, 2.5])
@pytest.mark.parametrize("allocation", [0.5, 3.0, 20.5, 400.0])
def test_a_burst_of_one_more_than_is_told_is_not_inside_the_allocation(
    burst_s: float, allocation: float
) -> None:
    """Lesson 14: what `tmm check` says of a burst is what the engine does, to the unit."""
    config = Config(5000, 4000, allocations={"A": allocation}, burst_s=burst_s)
    for window_s, told in [
        (0.0, burst_at_once(config, allocation)),
        (0.1, burst_in(config, allocation, 0.1)),
    ]:
        # As fast as can be: request k conforms from k / allocation - burst_s on, rounded up to a nanosecond.
        times = [
            max(0, math.ceil((k / Fraction(allocation) - Fraction(str(burst_s))) * 10**9))
            for k in range(told)
        ]
        end = round(window_s * 1e9)
        assert max(times) <= end
        with Mechanism(config, start=0) as mechanism:
            user, srv = mechanism.user("A"), mechanism.srv("4.1.1")
            assert {mechanism.admit_at(user, srv, now) for now in times} == {Decision.WITHIN_ALLOCATION}
            assert mechanism.admit_at(user, srv, end) is not Decision.WITHIN_ALLOCATION


def test_what_is_in_force_is_ready_for_json() -> None:
    shown = describe(replace(SOUND, cluster_url="redis://tmm:secret@store:6379/0", shared="tmm"))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert "secret" not in json.dumps(shown)
    assert shown["cluster"] == {"url": "redis://tmm:***@store:6379/0"}
    assert shown["version"] == SOUND.version
    assert shown["capacity"] == {
        "unit": "units per second",
        "system_capacity": 500.0,
        "operating_threshold": 400.0,
        "release_threshold": 380.0,
    }
    assert shown["users"][1] == {
        "user": "Harbour Analytics",
        "category": "",
        "user_ids": ["90-B3-D5-1F-30-02-00-00"],
        "allocation": 20.5,
        "burst_at_once": 21,  # floor(1 * 20.5) + 1
        "burst_in_100_ms": 23,  # floor(1.1 * 20.5) + 1 = floor(22.55) + 1
    }
    assert shown["priority_list"]["srvs"] == [
        {"srv": "2.2", "name": "Top Up Device"},
        {"srv": "7.4", "name": "Read Supply Status"},
    ]
    assert shown["costs"] == [{"srv": "4.8.1", "name": "Read Active Import Profile Data", "cost": 4}]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://:pa:ss@store/0", "rediss://:***@store/0"),
        ("redis://tmm:p@ss@store:6379/0", "redis://tmm:***@store:6379/0"),
        ("redis://tmm@store:6379/0", "redis://tmm@store:6379/0"),
        ("unix://tmm:secret@/run/valkey.sock?db=1", "unix://tmm:***@/run/valkey.sock?db=1"),
        (None, None),
    ],
)
def test_a_password_is_never_shown(url: str | None, shown: str | None) -> None:
    assert without_password(url) == shown
