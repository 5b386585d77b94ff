"""The parameters file of the allocation formula."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from damage import damaged
from hypothesis import event, example, given
from hypothesis import strategies as st

from tmm_core.errors import ConfigError
from tmm_core.policy.parameters import NOTICE, Parameters
from tmm_core.policy.portfolio import METER_KINDS
from tmm_core.policy.validation import CATEGORIES

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "allocation" / "parameters.toml"


def changed(*changes: tuple[str, str]) -> bytes:
    """Return the example with some of its text replaced; each text must be there."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text.encode()


def mistakes(*changes: tuple[str, str]) -> list[str]:
    """Return what is told of the example with some of its text replaced."""
    with pytest.raises(ConfigError) as caught:
        Parameters.read(changed(*changes), file="p.toml")
    return str(caught.value).splitlines()


def test_the_example_is_read_exactly() -> None:
    parameters = Parameters.load(EXAMPLE)
    assert parameters.operating_threshold == 20_000
    # 20,000 less a tenth for priority traffic less 50 for unknown Users, in thousandths
    assert parameters.distributable_quanta == 17_950_000
    assert parameters.meter_rates("large-supplier") == {
        "electricity_credit": Fraction(17, 10),
        "electricity_prepayment": Fraction(255, 100),  # 1.7 * 1.5
        "gas_credit": Fraction(17, 10),
        "gas_prepayment": Fraction(255, 100),
        "other_devices": Fraction(1, 10),
    }
    assert parameters.meter_rates("gas-network")["gas_prepayment"] == Fraction(75, 1000)
    assert parameters.busy_hour_factor["other"] == Fraction(144, 10)
    assert parameters.busy_hour_factor["gas-network"] == 6
    assert (parameters.minimum_quanta("other"), parameters.minimum_quanta("gas-network")) == (20_000, 2_000)
    assert len(parameters.digest) == 12


def test_the_example_says_that_it_is_illustrative() -> None:
    assert NOTICE in EXAMPLE.read_text(encoding="utf-8")
    [told] = mistakes((f'"{NOTICE}"', '"The formula of the SEC"'))
    assert told == f"p.toml:3:11: label is 'The formula of the SEC', expected {NOTICE!r}"


@pytest.mark.parametrize(
    ("has_forecast", "has_actual", "shares"),
    [
        (True, True, ("1/2", "3/10", "1/5")),
        (True, False, ("5/8", "3/8", "0")),  # 0.5 and 0.3 of 0.8
        (False, True, ("5/7", "0", "2/7")),  # 0.5 and 0.2 of 0.7
        (False, False, ("1", "0", "0")),
    ],
)
def test_a_missing_forecast_leaves_its_share_to_the_others(
    has_forecast: bool, has_actual: bool, shares: tuple[str, str, str]
) -> None:
    blend = Parameters.load(EXAMPLE).blend_for(has_forecast, has_actual)
    assert blend == tuple(map(Fraction, shares))


def test_with_nothing_left_to_blend_the_portfolio_decides() -> None:
    data = changed(("portfolio = 0.5", "portfolio = 0"), ("forecast  = 0.3", "forecast = 0.8"))
    assert Parameters.read(data).blend_for(False, False) == (1, 0, 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("= 25000", "= 0", "7:23: system_capacity 0, expected a number above 0, at most 1,000,000,000"),
        ("= 25000", "= '9'", "7:23: system_capacity '9' is not a number, expected a number above 0, at most"),
        ("= 20000", "= 30000", "8:23: operating_threshold 30000 is above system_capacity 25000"),
        ("= 20000", "= inf", "8:23: operating_threshold Infinity is not finite, expected a number above 0"),
        ("share = 0.1 ", "share = 1 ", "11:18: priority_share 1, expected a number at least 0, below 1"),
        ("= 50 ", "= 20000 ", "12:18: unknown_users 20000 is more than the 18000 units per second that"),
        ("gas_credit   ", "gas_credit = -1 #", "17:14: gas_credit -1, expected a number at least 0, at most"),
        ("gas_credit   ", "#", "14:1: requests_per_day.gas_credit is missing, expected a number at least 0"),
        ("= 0.1\n", "= 0.1234567891\n", "19:26: other_devices has 10 decimals, expected at most 9"),
        ("= 1.5", "= true", "30:10: weight True is not a number, expected a number at least 0, at most 100"),
        ("= 14.4", "= 0.5", "33:23: default 0.5, expected a number at least 1, at most 24"),
        ("= 20 ", "= 0.0005 ", "38:22: guaranteed_minimum 0.0005 has more than three decimals"),
        ("= 0.5", "= 0.4", "41:1: portfolio, forecast and actual add up to 0.9, expected 1"),
        ('= "2026-12"', "= 2026", "4:11: version is 2026, expected a short text, for example '2026-12'"),
    ],
)
def test_a_mistake_is_told_with_place_found_and_expected(old: str, new: str, told: str) -> None:
    assert any(line.startswith(f"p.toml:{told}") for line in mistakes((old, new))), mistakes((old, new))


def test_a_number_in_the_place_of_a_table_is_told() -> None:
    told = mistakes(
        ('version = "2026-12"', 'version = "2026-12"\nprepayment = 3'), ("[prepayment]", "[blend.x]")
    )
    assert "p.toml:5:14: prepayment 3 must be a table: [prepayment]" in told


def test_a_slip_in_a_key_is_no_silent_default() -> None:
    told = mistakes(
        ("busy_hour_factor]", "busy_hour_factors]"),
        ("[requests_per_day.gas-network]", "[requests_per_day.gas-networks]"),
        ("everyone_else ", "everyone_els "),
    )
    assert told == [
        "p.toml:25:1: 'gas-networks' is not known here (did you mean 'gas-network'?)",
        "p.toml:32:1: 'busy_hour_factors' is not known here (did you mean 'busy_hour_factor'?)",
        "p.toml:37:1: minimum.everyone_else is missing, expected a number at least 0, at most 1,000,000,000",
        "p.toml:39:1: 'everyone_els' is not known here (did you mean 'everyone_else'?)",
        "p.toml: busy_hour_factor.default is missing, expected a number at least 1, at most 24",
    ]


def test_all_mistakes_of_a_file_come_at_once_in_the_order_of_the_file() -> None:
    told = mistakes(("= 25000", "= nan"), ("weight = 1.5", "weight = -1"), ("label ", "labels "))
    assert [line.split(": ")[1].split(" ")[0] for line in told] == [
        "'labels'",
        "system_capacity",
        "weight",
        "label",
    ]


#: The example without its comments, so that damage meets what means something.
BARE = "\n".join(
    line.split("#")[0].rstrip() for line in EXAMPLE.read_text("utf-8").splitlines() if line[:1] != "#"
)
NUMBERS = (
    "0",
    "1",
    "-1",
    "0.5",
    "2.25",
    "3e4",
    "nan",
    "inf",
    "1e999",
    "0.12345678901",
    "true",
    "'1'",
    "[1]",
    "1_0",
)


@st.composite
def varied(draw: st.DrawFn) -> bytes:
    """The example with a number or two replaced, and now and then a line too few or twice."""
    lines = BARE.splitlines()
    places = [place for place, line in enumerate(lines) if "=" in line and '"' not in line]
    for place in draw(st.lists(st.sampled_from(places), max_size=2)):
        lines[place] = f"{lines[place].split('=')[0]}= {draw(st.sampled_from(NUMBERS))}"
    place = draw(st.sampled_from(places))
    lines[place : place + 1] = draw(
        st.sampled_from([[lines[place]]] * 8 + [[], [lines[place]] * 2, [lines[place], "x = 1"]])
    )
    return "\n".join(lines).encode()


def assert_whole(parameters: Parameters, data: bytes) -> None:
    """Every number of the file is in force, as the standard library reads it, and nothing is made up."""
    told = tomllib.loads(data.decode("utf-8-sig"), parse_float=Decimal)
    assert (told.pop("label"), told.pop("version")) == (NOTICE, parameters.version)
    rates, factors = told.pop("requests_per_day"), told.pop("busy_hour_factor")
    for category in CATEGORIES:
        own = rates.pop(category, {})
        assert parameters.requests_per_day[category] == {
            kind: own.get(kind, rates[kind]) for kind in METER_KINDS
        }
        assert parameters.busy_hour_factor[category] == factors.get(category, factors["default"])
    assert set(rates) == set(METER_KINDS)
    assert set(factors) <= {"default", *CATEGORIES}
    assert told == {
        "capacity": {
            "system_capacity": parameters.system_capacity,
            "operating_threshold": parameters.operating_threshold,
        },
        "kept": {"priority_share": parameters.priority_share, "unknown_users": parameters.unknown_allocation},
        "prepayment": {"weight": parameters.prepayment_weight},
        "minimum": {"guaranteed_minimum": parameters.guaranteed_minimum, "everyone_else": parameters.minimum},
        "blend": dict(zip(("portfolio", "forecast", "actual"), parameters.blend, strict=True)),
    }


@given(st.one_of(varied(), varied(), damaged(BARE)))
@example(BARE.encode())
@example(EXAMPLE.read_bytes())
def test_any_file_is_read_whole_or_refused_whole(data: bytes) -> None:
    try:
        parameters = Parameters.read(data, file="p.toml")
    except ConfigError as error:
        found = error.mistakes
    else:
        found = ()
        assert_whole(parameters, data)
    assert all(each.file == "p.toml" for each in found)
    event("refused" if found else "read")
