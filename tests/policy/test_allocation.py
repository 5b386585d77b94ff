"""The allocation formula: exact, never more than there is, never less than the minimum, and nobody gains by chance."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import pytest

from policy.allocation_oracle import exact_allocations, oracle
from policy.portfolios import some_parameters, some_portfolio
from tmm_core import Config, allocate
from tmm_core.errors import ConfigError
from tmm_core.policy.allocation import Allocations
from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import METER_KINDS, Portfolio, UserPortfolio

QUICK, THOROUGH = 2_000, 100_000


def quanta_of(allocations: Allocations) -> dict[str, int]:
    return {entry.user: entry.quanta for entry in allocations.users}


def cases(seed: int, number: int) -> list[tuple[Portfolio, Parameters, Allocations]]:
    """Return random portfolios whose minimums fit, with their parameters and allocations."""
    chance = random.Random(seed)
    found = []
    while len(found) < number:
        portfolio, parameters = some_portfolio(chance), some_parameters(chance)
        try:
            found.append((portfolio, parameters, allocate(portfolio, parameters)))
        except ConfigError:
            assert oracle(portfolio, parameters) is None
    return found


def compare_with_oracle(seed: int, number: int) -> None:
    chance = random.Random(seed)
    refused = at_minimum = rounded = 0
    for case in range(number):
        portfolio, parameters = some_portfolio(chance), some_parameters(chance)
        expected = oracle(portfolio, parameters)
        if expected is None:
            refused += 1
            with pytest.raises(ConfigError, match="the minimums of"):
                allocate(portfolio, parameters)
            continue
        allocations = allocate(portfolio, parameters)
        assert quanta_of(allocations) == expected, f"case {case} of seed {seed}: {portfolio} {parameters}"
        at_minimum += any(entry.at_minimum and entry.demand_weight for entry in allocations.users)
        rounded += any(
            allocations.shared_quanta * entry.demand_weight % (allocations.shared_weight or 1)
            for entry in allocations.users
        )
    # A comparison of empty cases would prove nothing.
    assert refused > number / 1000
    assert at_minimum > number / 20
    assert rounded > number / 4
    print(
        f"{number} portfolios, {refused} refused, {at_minimum} with a minimum that decides, {rounded} rounded"
    )


def test_it_equals_a_slow_oracle_in_fractions(seed: int) -> None:
    compare_with_oracle(seed, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_equals_a_slow_oracle_in_fractions_for_100_000_portfolios(seed: int) -> None:
    compare_with_oracle(seed, THOROUGH)


def test_the_sum_is_all_that_can_be_distributed_and_never_more(seed: int) -> None:
    without_demand = 0
    found = cases(seed, 200)
    # Few random portfolios have no demand at all: one that had some, without it.
    some, terms, _ = found[0]
    rows = tuple(UserPortfolio(row.user, row.category, row.user_ids) for row in some.users)
    idle = replace(some, users=rows)
    for portfolio, parameters, allocations in [*found, (idle, terms, allocate(idle, terms))]:
        kept = parameters.operating_threshold * parameters.priority_share + parameters.unknown_allocation
        assert allocations.total + kept <= parameters.operating_threshold
        if any(entry.demand_weight for entry in allocations.users):
            assert allocations.total == allocations.distributable
        else:
            without_demand += 1
            assert allocations.total == sum(parameters.minimum_of(row.category) for row in portfolio.users)
    assert without_demand


def test_nobody_gets_less_than_its_minimum(seed: int) -> None:
    for portfolio, parameters, allocations in cases(seed, 200):
        for row in portfolio.users:
            assert allocations.of(row.user).allocation >= parameters.minimum_of(row.category)


def test_an_allocation_differs_from_its_exact_value_by_less_than_a_thousandth(seed: int) -> None:
    for portfolio, parameters, allocations in cases(seed, 200):
        exact = exact_allocations(portfolio, parameters)
        assert exact is not None
        for user, value in exact.items():
            terms = allocations.terms(user)
            assert terms.exact == value
            assert abs(terms.allocation - value) < Fraction(1, 1000)


def test_more_meters_never_give_less_nor_the_others_more(seed: int) -> None:
    chance = random.Random(seed)
    for portfolio, parameters, before in cases(seed, 500):
        place = chance.randrange(len(portfolio.users))
        row = portfolio.users[place]
        kind = chance.choice((*METER_KINDS, "forecast", "actual"))
        more = (getattr(row, kind) or 0) + chance.choice((1, 2, 10, 1_000_000))
        if kind in ("forecast", "actual") and getattr(row, kind) is None:
            continue  # a forecast where there was none changes the blend, not only the size
        users = list(portfolio.users)
        users[place] = replace(row, **{kind: more})
        after = allocate(Portfolio(portfolio.month, tuple(users)), parameters)
        assert after.of(row.user).quanta >= before.of(row.user).quanta, (portfolio, parameters, kind, more)
        for other in portfolio.users:
            if other is not row:
                # Exactly the others lose; the rounding may give one a thousandth more.
                assert after.terms(other.user).exact <= before.terms(other.user).exact or not any(
                    entry.demand_weight for entry in before.users
                )


def test_a_common_factor_in_all_counts_changes_nothing(seed: int) -> None:
    for portfolio, parameters, allocations in cases(seed, 200):
        users = tuple(
            replace(
                row,
                **{kind: getattr(row, kind) * 7 for kind in METER_KINDS},
                forecast=None if row.forecast is None else row.forecast * 7,
                actual=None if row.actual is None else row.actual * 7,
            )
            for row in portfolio.users
        )
        assert quanta_of(allocate(Portfolio(portfolio.month, users), parameters)) == quanta_of(allocations)


def test_the_order_of_the_rows_changes_not_a_byte(seed: int) -> None:
    chance = random.Random(seed)
    for portfolio, parameters, allocations in cases(seed, 200):
        users = list(portfolio.users)
        chance.shuffle(users)
        again = allocate(Portfolio(portfolio.month, tuple(users)), parameters)
        assert again.to_csv() == allocations.to_csv()


def test_the_parts_of_those_above_the_minimum_add_up_to_one(seed: int) -> None:
    for portfolio, _, allocations in cases(seed, 300):
        parts = [allocations.terms(row.user).share_of_demand for row in portfolio.users]
        assert sum(parts) == (1 if any(parts) else 0)


def plain(threshold: int, minimum: int = 0, guaranteed: int = 0) -> Parameters:
    """Return parameters under which one credit electricity meter sends one Service Request a second."""
    categories = ("large-supplier", "other")
    return Parameters(
        version="plain",
        system_capacity=Fraction(threshold),
        operating_threshold=Fraction(threshold),
        priority_share=Fraction(0),
        unknown_allocation=Fraction(0),
        requests_per_day={
            each: {
                kind: Fraction(86_400) if kind == "electricity_credit" else Fraction(0)
                for kind in METER_KINDS
            }
            for each in categories
        },
        prepayment_weight=Fraction(1),
        busy_hour_factor=dict.fromkeys(categories, Fraction(1)),
        guaranteed_minimum=Fraction(guaranteed),
        minimum=Fraction(minimum),
        blend=(Fraction(1), Fraction(0), Fraction(0)),
    )


def of_meters(**meters: int) -> Portfolio:
    """Return a portfolio of suppliers; a name that begins with ``other`` is an Other SEC Party."""
    return Portfolio(
        "2026-12",
        tuple(
            UserPortfolio(user, "other" if user.startswith("other") else "large-supplier", (), count)
            for user, count in meters.items()
        ),
    )


@pytest.mark.parametrize(
    ("portfolio", "parameters", "expected"),
    [
        # 100 units by 3 : 1
        (of_meters(a=300, b=100), plain(100), {"a": 75_000, "b": 25_000}),
        # b has its minimum of 30, a what is left
        (of_meters(a=300, b=100), plain(100, minimum=30), {"a": 70_000, "b": 30_000}),
        # The Other SEC Party's guaranteed minimum comes first: 80 are left for 3 : 1
        (
            of_meters(a=300, b=100, other=0),
            plain(100, guaranteed=20),
            {"a": 60_000, "b": 20_000, "other": 20_000},
        ),
        # c at its minimum of 40 lowers the level: 60 for 3 : 1 would put b at 15, so b too; a has 20
        (of_meters(a=300, b=100, c=99), plain(120, minimum=40), {"a": 40_000, "b": 40_000, "c": 40_000}),
        # Thirds: the one thousandth left goes to the first name, as all remainders are equal
        (of_meters(b=1, a=1, c=1), plain(1), {"a": 334, "b": 333, "c": 333}),
        # 1000 thousandths by 1 : 2 : 4 are 142.857, 285.714, 571.429: one each to 0.857 and 0.714
        (of_meters(a=1, b=2, c=4), plain(1), {"a": 143, "b": 286, "c": 571}),
        # Nobody has meters: the minimums, and the rest is spare capacity
        (of_meters(a=0, b=0), plain(100, minimum=5), {"a": 5_000, "b": 5_000}),
    ],
)
def test_examples_worked_by_hand(
    portfolio: Portfolio, parameters: Parameters, expected: dict[str, int]
) -> None:
    assert quanta_of(allocate(portfolio, parameters)) == expected


def test_minimums_that_do_not_fit_are_refused_with_both_figures() -> None:
    with pytest.raises(ConfigError) as caught:
        allocate(of_meters(a=1, b=1, other=1), plain(10, minimum=4, guaranteed=3))
    assert str(caught.value) == (
        "the minimums of 3 Users add up to 11.000 units per second, expected at most the distributable 10.000"
    )


def test_the_allocations_are_a_configuration_the_mechanism_takes(seed: int) -> None:
    for _, parameters, allocations in cases(seed, 200):
        config = Config(
            float(parameters.system_capacity),
            float(parameters.operating_threshold),
            allocations=allocations.units_per_second,
            user_ids=allocations.user_ids,
            unknown_allocation=float(parameters.unknown_allocation),
        )
        assert list(config.users) == [entry.user for entry in allocations.users]


class Counted(tuple[UserPortfolio, ...]):
    """Rows that count how often all of them are gone through."""

    __slots__ = ()
    walks: ClassVar[int] = 0

    def __iter__(self) -> Iterator[UserPortfolio]:
        Counted.walks += 1
        return super().__iter__()


def test_the_terms_of_one_user_do_not_go_through_all_others() -> None:
    """For 10,000 Users that would be 50 million rows, and five seconds."""
    rows = Counted(of_meters(a=1, b=2, c=3).users)
    allocations = allocate(Portfolio("2026-12", rows), plain(10))
    before = Counted.walks
    assert before > 0
    assert [allocations.terms(user).portfolio_per_day / 86_400 for user in "abc"] == [1, 2, 3]
    assert Counted.walks == before


def test_a_user_the_portfolio_does_not_name_has_no_allocation() -> None:
    allocations = allocate(of_meters(a=1, b=1), plain(10))
    with pytest.raises(KeyError, match="nobody"):
        allocations.of("nobody")
    assert allocations.of("b").quanta == 5_000
