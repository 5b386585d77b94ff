"""The configuration as a value: right as a whole, or refused with every mistake."""

from __future__ import annotations

import copy
import datetime as clock
import inspect
import math
import pickle
import re
from dataclasses import FrozenInstanceError, fields, replace
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tmm_core import Config, ConfigError, PriorityList, TMMError
from tmm_core.errors import Mistake
from tmm_core.policy.validation import CATEGORIES, escaped, hidden_in, is_eui64, uncovered

EUI64 = re.compile(r"[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){7}")
ID, ID2 = "90-B3-D5-1F-30-01-00-00", "90-B3-D5-1F-30-02-00-00"
GOOD = Config(
    500,
    400,
    allocations={"A": 200.0, "B": 20.5},
    user_ids={ID: "A", ID2: "B"},
    priority=["7.4", "2.2"],
    costs={"4.8.1": 4},
    unknown_allocation=5,
    categories={"A": "large-supplier"},
)


def told(**changed: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        replace(GOOD, **changed)
    assert isinstance(caught.value, TMMError)
    assert isinstance(caught.value, ValueError)
    return [mistake.message for mistake in caught.value.mistakes]


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = Config(500, 400)
    expected = {
        "release_threshold": 380.0, "burst_s": 1.0, "activation_s": 0.25, "hold_s": 10.0, "tick_s": 0.01,
        "max_retry_after_s": 300.0, "sharing": "fair", "mode": "enforce", "unknown_allocation": 0.0,
        "spare_weight": 1.0, "max_users": 0, "shared": None, "cluster_url": None, "event_log": None, "users": (),
        "priority": PriorityList(()),
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


NAN, INF = math.nan, math.inf

#: What is changed, what is told.
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"operating_threshold": 520}, ["operating_threshold 520 is above system_capacity 500"]),
    ({"operating_threshold": NAN}, ["operating_threshold nan must be a finite number above 0"]),
    ({"operating_threshold": 0}, ["operating_threshold 0 must be above 0"]),
    ({"system_capacity": -INF}, ["system_capacity -inf must be a finite number above 0"]),
    ({"system_capacity": None}, ["system_capacity None must be a number above 0"]),
    ({"system_capacity": "500"}, ["system_capacity '500' must be a number above 0"]),
    ({"system_capacity": Decimal(500)}, ["system_capacity Decimal('500') must be a number above 0"]),
    ({"system_capacity": True}, ["system_capacity True must be a number above 0"]),
    ({"system_capacity": 10**400}, [f"system_capacity 1{'0' * 76}... must be a finite number above 0"]),
    ({"system_capacity": 2e9}, ["system_capacity 2000000000 must be at most 1e+09"]),
    ({"release_threshold": 400}, ["release_threshold 400 must be below operating_threshold 400"]),
    ({"release_threshold": -1}, ["release_threshold -1 must be above 0"]),
    ({"burst_s": 3601}, ["burst_s 3601 must be at most 3600"]),
    ({"activation_s": 0.001}, ["activation_s 0.001 must be from 0.01 to 10"]),
    ({"hold_s": -0.1}, ["hold_s -0.1 must be from 0 to 3600"]),
    ({"tick_s": 0}, ["tick_s 0 must be from 0.001 to 1"]),
    ({"max_retry_after_s": 0.5}, ["max_retry_after_s 0.5 must be from 1 to 86400"]),
    ({"spare_weight": 2e6}, ["spare_weight 2000000 must be at most 1e+06"]),
    ({"sharing": "fairly"}, ["sharing 'fairly' must be fair, first-come or none (did you mean 'fair'?)"]),
    ({"mode": None}, ["mode None must be enforce or observe"]),
    ({"unknown_allocation": -1}, ["unknown_allocation -1 must be 0 or more"]),
    ({"unknown_allocation": 300}, [
        "allocations add up to 520.5 units per second (unknown Users: 300), above operating_threshold 400",
    ]),
    ({"allocations": {"A": -3, "B": NAN}}, [
        "allocations['A']: allocation -3 must be 0 or more",
        "allocations['B']: allocation nan must be a finite number, 0 or more",
    ]),
    ({"allocations": {"A": 1e-6, "B": 2e6}}, [
        "allocations['A']: allocation 1e-06 must be 0, or from 1e-05 to 1e+06 units per second",
        "allocations['B']: allocation 2000000 must be 0, or from 1e-05 to 1e+06 units per second",
        "allocations add up to 2000005.000001 units per second (unknown Users: 5), above operating_threshold 400",
    ]),
    ({"allocations": {"A": "1", "B": None}}, [
        "allocations['A']: allocation '1' must be a number, units per second",
        "allocations['B']: allocation None must be a number, units per second",
    ]),
    ({"allocations": {"A": 1, "B": 1, 7: 1, "": 1, " C": 1, "D\u202e": 1, "E" * 201: 1}}, [
        "allocations[7]: name 7 must be text",
        "allocations['']: name must not be empty",
        "allocations[' C']: name ' C' must not begin or end with white space",
        "allocations['D\\u202e']: name 'D\\u202e' has the invisible character U+202E in it",
        f"allocations['{'E' * 76}...]: name '{'E' * 76}... has 201 characters, at most 200 are allowed",
    ]),
    ({"allocations": {"A": 1, "B": 1, ID.lower(): 1, ID.replace("00", "AB"): 1, ID.replace("00", "ab"): 1}}, [
        "allocations['90-B3-D5-1F-30-01-ab-ab']: User '90-B3-D5-1F-30-01-AB-AB' is listed twice",
        f"user_ids['{ID}']: {ID} of 'A' is the name of another User",
    ]),
    ({"allocations": [("A", 1)], "user_ids": {}, "categories": {}}, ["allocations [('A', 1)] must be a mapping"]),
    ({"user_ids": {ID: "A", ID.lower() + "0": "B"}}, [
        f"user_ids['{ID.lower()}0']: '{ID.lower()}0' must be an EUI-64: eight hexadecimal octets joined by '-'",
    ]),
    ({"user_ids": {"90-AB-D5-1F-30-01-00-00": "A", "90-ab-D5-1F-30-01-00-00": "B"}}, [
        "user_ids['90-ab-D5-1F-30-01-00-00']: 90-AB-D5-1F-30-01-00-00 is owned by 'A' and by 'B'",
    ]),
    ({"user_ids": {ID: "Aa"}}, [f"user_ids['{ID}']: owner 'Aa' has no allocation"]),
    ({"user_ids": {ID: None}}, [f"user_ids['{ID}']: owner None must be the name of a User"]),
    ({"user_ids": None}, ["user_ids None must be a mapping"]),
    ({"categories": {"C": "other", "A": "otter"}}, [
        "categories['C']: User 'C' has no allocation",
        f"categories['A']: category 'otter' must be one of {', '.join(CATEGORIES)} (did you mean 'other'?)",
    ]),
    ({"costs": {"4.8.1": 0, "4.8.2": 1001, "4.8.3": 1.5}}, [
        "costs['4.8.1']: cost 0 must be from 1 to 1,000, units",
        "costs['4.8.2']: cost 1001 must be from 1 to 1,000, units",
        "costs['4.8.3']: cost 1.5 must be a whole number from 1 to 1,000, units",
    ]),
    ({"costs": {"4.8": 2, "99.9": 2, 4: 2}}, [
        "costs['4.8']: '4.8' is a Service Reference: name its variants (4.8.1, 4.8.2, 4.8.3)",
        "costs['99.9']: '99.9' is not an SRV or a Service Reference of the catalogue",
        "costs[4]: 4 must be text, for example '4.1.1'",
    ]),
    ({"costs": {"4.8.1": 1000}, "allocations": {"A": 1e-5, "B": 1}}, [
        "allocations['A']: allocation 1e-05 needs 1157 days for a cost of 1000, at most 100 are allowed",
    ]),
    ({"priority": "7.4"}, ["priority '7.4' must be a list of SRVs, for example ['2.2', '7.4']"]),
    ({"priority": ["7.4", "7.4", "99.9", 7]}, [
        "priority[1]: '7.4' is listed twice",
        "priority[2]: '99.9' is not an SRV or a Service Reference of the catalogue",
        "priority[3]: 7 must be text, for example '4.1.1'",
    ]),
    ({"max_users": 1}, ["max_users 1 is below the number of Users, 2"]),
    ({"max_users": -1}, ["max_users -1 must be from 0 to 1,000,000"]),
    ({"max_users": 2.0}, ["max_users 2 must be a whole number from 0 to 1,000,000"]),
    ({"shared": " "}, ["shared ' ' must be a text that is not empty"]),
    ({"event_log": "a\nb"}, ["event_log 'a\\nb' has an invisible character in it"]),
    ({"effective_from": datetime(2026, 12, 1)}, [  # noqa: DTZ001
        "effective_from datetime.datetime(2026, 12, 1, 0, 0) must be a date",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "messages"), REFUSED, ids=[str(number) for number in range(len(REFUSED))]
)
def test_what_is_wrong_is_told(changed: dict[str, Any], messages: list[str]) -> None:
    assert told(**changed) == messages


def test_all_mistakes_come_at_once() -> None:
    """Lesson 12: validate the whole, and apply nothing of it when one thing is wrong."""
    assert told(operating_threshold=520, hold_s=NAN, mode="x", costs={"4.8.1": 0}, priority=["0"]) == [
        "operating_threshold 520 is above system_capacity 500",
        "hold_s nan must be a finite number from 0 to 3600",
        "mode 'x' must be enforce or observe",
        "costs['4.8.1']: cost 0 must be from 1 to 1,000, units",
        "priority[0]: '0' is not an SRV or a Service Reference of the catalogue",
    ]


def test_units_and_intervals_are_in_the_names() -> None:
    """Lesson 14: hidden intervals and units were misread by everybody."""
    rates = {
        "system_capacity",
        "operating_threshold",
        "release_threshold",
        "unknown_allocation",
        "spare_weight",
    }
    numbers = {
        each.name for each in fields(Config) if "float" in str(each.type) and "Mapping" not in str(each.type)
    }
    assert {name for name in numbers if not name.endswith("_s")} == rates, "units per second"


def test_numbers_of_any_kind_become_plain_ones() -> None:
    config = Config(
        np.float64(500), Fraction(400), allocations={"A": np.int64(3), "B": -0.0}, max_users=np.int32(7)
    )
    values = (
        config.system_capacity,
        config.operating_threshold,
        *config.allocations.values(),
        config.max_users,
    )
    assert [type(value) for value in values] == [float, float, float, float, int]
    assert math.copysign(1, config.allocations["B"]) == 1
    assert config.version == Config(500, 400, allocations={"A": 3, "B": 0}, max_users=7).version


def test_zero_is_a_legal_allocation() -> None:
    assert Config(500, 400, allocations={"A": 0}).allocations == {"A": 0.0}


def test_allocations_may_add_up_to_the_threshold_but_not_to_more() -> None:
    # Three times a third of 0.1 is a little more than 0.1 in binary: that is rounding, and no mistake.
    thirds = dict.fromkeys("ABC", 400 / 3)
    assert Config(500, 400, allocations=thirds).users == ("A", "B", "C")
    assert Config(500, 0.3, allocations={"A": 0.1, "B": 0.2}).users == ("A", "B")
    with pytest.raises(
        ConfigError, match=r"^allocations add up to 400\.001 units per second, above operating_threshold 400$"
    ):
        Config(500, 400, allocations={"A": 400, "B": 0.001})


def test_an_eui64_may_be_written_in_any_case() -> None:
    config = replace(
        GOOD,
        user_ids={"90-b3-d5-1f-30-aa-00-00": "A"},
        allocations={"A": 1, "90-b3-d5-1f-30-bb-00-00": 1},
        categories={},
    )
    assert dict(config.user_ids) == {"90-B3-D5-1F-30-AA-00-00": "A"}
    assert config.users == ("A", "90-B3-D5-1F-30-BB-00-00")


def test_it_cannot_be_changed_and_does_not_follow_what_it_was_made_of() -> None:
    allocations = {"A": 1.0}
    config = Config(500, 400, allocations=allocations)
    allocations["A"] = 399.0
    assert config.allocations["A"] == 1.0
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'hold_s'"):
        config.hold_s = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'hold_s'"):
        del config.hold_s
    with pytest.raises(TypeError):
        config.allocations["A"] = 2.0  # type: ignore[index]


@pytest.mark.parametrize("kind", [Config, PriorityList])
def test_every_field_is_a_parameter_of_its_name(kind: type[Any]) -> None:
    """They are written twice: a parameter that is no field would be dropped in silence."""
    assert list(inspect.signature(kind).parameters) == [each.name for each in fields(kind)]


def test_a_priority_list_shows_all_it_is_made_of() -> None:
    listed = PriorityList(("2.2", "4.8"), "7", date(2026, 12, 1), "Panel 141", "priority.toml")
    assert eval(repr(listed), {"PriorityList": PriorityList, "datetime": clock}) == listed
    assert len({listed, replace(listed), replace(listed, version="8")}) == 2
    assert listed != tuple(getattr(listed, each.name) for each in fields(listed))


def test_a_copy_is_equal_and_so_is_one_of_another_process() -> None:
    for other in (copy.deepcopy(GOOD), pickle.loads(pickle.dumps(GOOD)), replace(GOOD)):
        assert other == GOOD
        assert hash(other) == hash(GOOD)
        assert other.version == GOOD.version


CHANGES: dict[str, Any] = {
    "system_capacity": 501, "operating_threshold": 401, "release_threshold": 300, "burst_s": 2, "activation_s": 1,
    "hold_s": 11, "tick_s": 0.02, "max_retry_after_s": 200, "sharing": "none", "mode": "observe",
    "unknown_allocation": 6, "spare_weight": 2, "allocations": {"A": 200.0, "B": 21}, "user_ids": {ID: "A"},
    "costs": {"4.8.1": 5}, "priority": ["7.4"],
}  # fmt: skip
NO_CHANGES: dict[str, Any] = {
    "max_users": 9, "shared": "tmm", "cluster_url": "redis://x", "event_log": "e.db", "source": "a.toml",
    "allocations_file": "a.csv", "allocations_digest": "0" * 12, "effective_from": date(2026, 12, 1),
    "categories": {"A": "other"}, "candidate_allocations": {"A": 1.0}, "candidate_file": "b.csv",
}  # fmt: skip


def test_every_field_either_names_the_version_or_does_not() -> None:
    assert set(CHANGES) | set(NO_CHANGES) == {each.name for each in fields(Config)}


@pytest.mark.parametrize("name", CHANGES)
def test_what_decides_changes_the_version(name: str) -> None:
    assert replace(GOOD, **{name: CHANGES[name]}).version != GOOD.version


@pytest.mark.parametrize("name", NO_CHANGES)
def test_what_does_not_decide_keeps_the_version(name: str) -> None:
    assert replace(GOOD, **{name: NO_CHANGES[name]}).version == GOOD.version


def test_the_version_is_the_same_on_every_machine() -> None:
    """Twelve digits of SHA-256: pinned here, as every host of a cluster and every record names it."""
    assert re.fullmatch("[0-9a-f]{12}", GOOD.version)
    same = replace(
        GOOD, priority=["2.2", "7.4"], user_ids={ID2.lower(): "B", ID: "A"}, costs={"4.8.1": 4, "4.8.2": 1}
    )
    assert same.version == GOOD.version
    assert replace(GOOD, allocations={"B": 20.5, "A": 200.0}).version != GOOD.version, (
        "the order fixes the slots"
    )


def test_the_password_of_the_cluster_is_not_in_its_repr() -> None:
    assert "hunter2" not in repr(replace(GOOD, cluster_url="redis://tmm:hunter2@store"))


def test_a_priority_list_expands_references() -> None:
    priority = PriorityList(("4.8", "7.4"))
    assert priority.expanded == {"4.8.1", "4.8.2", "4.8.3", "7.4"}
    assert Config(500, 400, priority=priority).priority_srvs == priority.expanded


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        ({"srvs": "7.4"}, ["srvs '7.4' must be a list of SRVs, for example ['2.2', '7.4']"]),
        ({"srvs": ["7.4", "7.4"]}, ["srvs[1]: '7.4' is listed twice"]),
        ({"srvs": [], "version": 3}, ["version 3 must be a text on one line"]),
        ({"srvs": [], "approved_by": "a\nb"}, ["approved_by 'a\\nb' must be a text on one line"]),
        (
            {"srvs": [], "effective_from": "2026-12-01"},
            ["effective_from '2026-12-01' must be a date, for example 2026-12-01"],
        ),
    ],
)
def test_what_is_wrong_in_a_priority_list_is_told(values: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        PriorityList(**values)
    assert [mistake.message for mistake in caught.value.mistakes] == messages


def test_an_error_is_told_with_its_place() -> None:
    assert str(Mistake("wrong")) == "wrong"
    assert str(Mistake("wrong", file="a.csv", line=3, column=7)) == "a.csv:3:7: wrong"
    error = ConfigError([Mistake("one", file="a.csv", line=3, field="x"), Mistake("two")])
    assert (str(error), error.file, error.line, error.field) == ("a.csv:3: one\ntwo", "a.csv", 3, "x")
    assert (ConfigError("x").mistakes[0].message, ConfigError([]).file) == ("x", None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([each.name for each in fields(Config)]), ANYTHING, min_size=1, max_size=4)
)
def test_any_values_are_a_configuration_or_refused(values: dict[str, Any]) -> None:
    try:
        config = replace(GOOD, **values)
    except ConfigError:
        return
    assert 0 < config.operating_threshold <= config.system_capacity
    total = sum(config.allocations.values()) + config.unknown_allocation
    assert total <= config.operating_threshold * (1 + 1e-9)


# --- Hidden characters and identifiers: told without regular expressions, so told here once more with them


def test_what_is_hidden_is_as_the_pattern_says() -> None:
    pattern = re.compile(
        "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ud800-\\udfff\\ufeff]"
    )
    every = [chr(code) for code in range(0x110000)]
    assert [char for char in every if hidden_in(char)] == [char for char in every if pattern.match(char)]
    assert hidden_in("A\u200bB\x00") == "\u200b"
    assert uncovered("A\u200bB\x00é", escaped) == "A\\u200bB\\u0000é"
    assert uncovered("é", escaped) == "é"


@given(st.text(alphabet="0aAfFgG-٣é", min_size=20, max_size=26) | st.from_regex(EUI64, fullmatch=True))
@example("90-b3-D5-1F-30-01-00-00")
@example("90-B3-D5-1F-30-01-00-00\n")
@example("90-B3-D5-1F-30-01-00-0-")
@example("90-B3-D5-1F-30-01-00000")
def test_an_eui_64_is_as_the_pattern_says(text: str) -> None:
    assert is_eui64(text) == (EUI64.fullmatch(text) is not None)
