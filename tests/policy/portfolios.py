"""Random portfolios and parameters, also nasty ones: no demand, equal Users, minimums that decide for many."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import METER_KINDS, Portfolio, UserPortfolio
from tmm_core.policy.validation import CATEGORIES


def some_parameters(chance: random.Random) -> Parameters:
    """Return parameters of which every number is random."""

    def decimal(low: int, high: int, places: int) -> Fraction:
        return Fraction(Decimal(chance.randint(low * 10**places, high * 10**places)).scaleb(-places))

    threshold = decimal(1, chance.choice((5, 100, 20_000)), 3)
    first, second = sorted(chance.choice((0, 1, 2, 3, 5, 7, 10)) for _ in range(2))
    least = float(threshold) / chance.choice((3, 10, 1000))
    return Parameters(
        version="random",
        system_capacity=threshold * 2,
        operating_threshold=threshold,
        priority_share=decimal(0, 1, 2) / 2,
        unknown_allocation=Fraction(int(threshold * chance.choice((0, 10, 400))), 1000),
        requests_per_day=MappingProxyType(
            {
                each: {kind: decimal(0, 3, chance.choice((0, 1, 5))) for kind in METER_KINDS}
                for each in CATEGORIES
            }
        ),
        prepayment_weight=decimal(0, 3, 1),
        busy_hour_factor=MappingProxyType({each: decimal(1, 24, 1) for each in CATEGORIES}),
        guaranteed_minimum=Fraction(int(least * chance.choice((0, 1, 300, 1000))), 1000),
        minimum=Fraction(int(least * chance.choice((0, 1, 300))), 1000),
        blend=(Fraction(first, 10), Fraction(second - first, 10), Fraction(10 - second, 10)),
    )


def some_portfolio(chance: random.Random, most_users: int = 8) -> Portfolio:
    """Return a portfolio of a few Users."""
    most = chance.choice((1, 10, 1000, 30_000_000))

    def count() -> int:
        return chance.choice((0, chance.randint(0, most)))

    def requests() -> int | None:
        return chance.choice((None, 0, chance.randint(0, most * 60)))

    rows = []
    for number in range(chance.randint(1, most_users)):
        counts = {kind: count() for kind in METER_KINDS}
        row = UserPortfolio(
            f"User {number}", chance.choice(CATEGORIES), (), **counts, forecast=requests(), actual=requests()
        )
        if rows and not chance.randint(0, 5):  # the same once more, under another name
            row = UserPortfolio(
                f"User {number}",
                rows[0].category,
                (),
                **{kind: getattr(rows[0], kind) for kind in METER_KINDS},
                forecast=rows[0].forecast,
                actual=rows[0].actual,
            )
        rows.append(row)
    chance.shuffle(rows)
    return Portfolio(f"{chance.choice((2024, 2026))}-{chance.randint(1, 12):02d}", tuple(rows))
