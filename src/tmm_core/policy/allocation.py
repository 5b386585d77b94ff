"""The allocation formula: what each User of a portfolio is sure of, in units per second.

This is the project's own illustrative formula. It takes the inputs and the guarantee the Modification
Report names (SECMP0067: Service Requests a User is expected to process, prepayment included, measured
against its portfolio of smart meters and Devices; Other SEC Parties are guaranteed some capacity), but the
report's Annex C, which holds the formula itself, is not public. ``docs/allocation.md`` derives it.

    demand_u      = busy-hour factor * expected Service Requests a day / 86,400 s
    distributable = operating threshold * (1 - priority share) - pool of the unknown Users
    allocation_u  = max(minimum_u, L * demand_u),   L such that the allocations add up to `distributable`

Everything is integers: demands over one common denominator, allocations in quanta of 0.001 units per second.
The same input therefore gives the same bytes on every machine.
"""

from __future__ import annotations

import csv
import hashlib
import io
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

from tmm_core.errors import ConfigError
from tmm_core.policy.allocation_files import COLUMNS
from tmm_core.policy.parameters import NOTICE, QUANTA_PER_UNIT, SECONDS_PER_DAY, Parameters
from tmm_core.policy.portfolio import CATEGORIES, METER_KINDS, Portfolio, UserPortfolio

__all__ = [
    "COLUMNS",
    "NOTICE",
    "Allocations",
    "Terms",
    "UserAllocation",
    "allocate",
    "decimal_text",
    "requests_per_day",
]


@dataclass(frozen=True, slots=True)
class UserAllocation:
    """What one User is sure of.

    Attributes
    ----------
    portfolio : UserPortfolio
        The row it was worked out for.
    quanta : int
        The allocation in thousandths of a unit per second.
    minimum_quanta : int
        The least this User gets, in the same unit.
    demand_weight : int
        Busy-hour demand over the common denominator ``Allocations.demand_scale``.
    at_minimum : bool
        Whether the minimum decided, and not the demand.
    """

    portfolio: UserPortfolio
    quanta: int
    minimum_quanta: int
    demand_weight: int
    at_minimum: bool

    @property
    def user(self) -> str:
        return self.portfolio.user

    @property
    def category(self) -> str:
        return self.portfolio.category

    @property
    def user_ids(self) -> tuple[str, ...]:
        return self.portfolio.user_ids

    @property
    def allocation(self) -> Fraction:
        """Units per second, exactly."""
        return Fraction(self.quanta, QUANTA_PER_UNIT)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one User's allocation, exactly; the figures behind ``tmm allocate --explain``.

    Attributes
    ----------
    portfolio_per_day, forecast_per_day, actual_per_day, expected_per_day : Fraction
        Service Requests a day; forecast and actual are None where the portfolio file has none.
    blend : tuple of Fraction
        Shares of portfolio, forecast and actual in force for this User; they add up to 1.
    busy_hour_factor : Fraction
        Rate of the busy hour over the rate of the mean hour.
    busy_hour_demand : Fraction
        Service Requests per second in the busy hour.
    minimum, exact, allocation : Fraction
        Units per second; `exact` is before rounding to the quantum.
    share_of_demand : Fraction
        Part of the demand of those Users who are above their minimum; 0 at the minimum.
    at_minimum : bool
        Whether the minimum decided.
    """

    portfolio_per_day: Fraction
    forecast_per_day: Fraction | None
    actual_per_day: Fraction | None
    blend: tuple[Fraction, Fraction, Fraction]
    expected_per_day: Fraction
    busy_hour_factor: Fraction
    busy_hour_demand: Fraction
    minimum: Fraction
    share_of_demand: Fraction
    exact: Fraction
    allocation: Fraction
    at_minimum: bool


@dataclass(frozen=True)
class Allocations:
    """The allocations of one month, sorted by User.

    Attributes
    ----------
    users : tuple of UserAllocation
        Sorted by name, in code point order.
    distributable_quanta : int
        What could be given away, in thousandths of a unit per second.
    demand_scale : int
        Denominator of every ``UserAllocation.demand_weight``, which then is Service Requests per second.
    shared_quanta, shared_weight : int
        What the Users above their minimum share, and their demand weights together.
    """

    portfolio: Portfolio
    parameters: Parameters
    users: tuple[UserAllocation, ...]
    distributable_quanta: int
    demand_scale: int
    shared_quanta: int
    shared_weight: int

    @property
    def month(self) -> str:
        """The month of the portfolio, as ``2026-12``."""
        return self.portfolio.month

    @property
    def total(self) -> Fraction:
        """Sum of the allocations in units per second."""
        return Fraction(sum(entry.quanta for entry in self.users), QUANTA_PER_UNIT)

    @property
    def distributable(self) -> Fraction:
        """What could be given away, in units per second; `total` never exceeds it."""
        return Fraction(self.distributable_quanta, QUANTA_PER_UNIT)

    @cached_property
    def digest(self) -> str:
        """First twelve hexadecimal digits of SHA-256 over the allocations file."""
        return hashlib.sha256(self._csv.encode("utf-8")).hexdigest()[:12]

    @property
    def busy_hour_demand(self) -> Fraction:
        """Expected Service Requests per second of all Users in the busy hour."""
        return Fraction(sum(entry.demand_weight for entry in self.users), self.demand_scale)

    @property
    def units_per_second(self) -> dict[str, float]:
        """Allocation by User, in the form ``Config(allocations=...)`` takes."""
        return {entry.portfolio.user: entry.quanta / QUANTA_PER_UNIT for entry in self.users}

    @property
    def user_ids(self) -> dict[str, str]:
        """User by EUI-64, in the form ``Config(user_ids=...)`` takes."""
        rows = (entry.portfolio for entry in self.users)
        return {user_id: row.user for row in rows for user_id in row.user_ids}

    def of(self, user: str) -> UserAllocation:
        """Return one User's allocation; KeyError if the portfolio does not name it."""
        index = bisect_left(self.users, user, key=lambda entry: entry.user)
        if index == len(self.users) or self.users[index].user != user:
            raise KeyError(user)
        return self.users[index]

    def terms(self, user: str) -> Terms:
        """Return the exact terms of one User's allocation; KeyError if the portfolio does not name it."""
        entry = self.of(user)
        row = entry.portfolio
        blend = self.parameters.blend_for(row.forecast is not None, row.actual is not None)
        portfolio, forecast, actual = requests_per_day(row, self.portfolio, self.parameters)
        expected = blend[0] * portfolio + blend[1] * (forecast or 0) + blend[2] * (actual or 0)
        minimum = Fraction(entry.minimum_quanta, QUANTA_PER_UNIT)
        part = Fraction(0) if entry.at_minimum else Fraction(entry.demand_weight, self.shared_weight)
        return Terms(
            portfolio_per_day=portfolio,
            forecast_per_day=forecast,
            actual_per_day=actual,
            blend=blend,
            expected_per_day=expected,
            busy_hour_factor=self.parameters.busy_hour_factor[row.category],
            busy_hour_demand=Fraction(entry.demand_weight, self.demand_scale),
            minimum=minimum,
            share_of_demand=part,
            exact=minimum if entry.at_minimum else part * self.shared_quanta / QUANTA_PER_UNIT,
            allocation=entry.allocation,
            at_minimum=entry.at_minimum,
        )

    def to_csv(self) -> str:
        """Return the allocations file: ``user,category,user_ids,allocation``, LF, three decimals."""
        return self._csv

    @cached_property
    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        rows = ((entry.portfolio, entry.quanta) for entry in self.users)
        writer.writerows(
            (row.user, row.category, " ".join(row.user_ids), decimal_text(quanta)) for row, quanta in rows
        )
        return text.getvalue()


def decimal_text(quanta: int) -> str:
    """Write thousandths as a decimal, exactly.

    >>> decimal_text(12_050)
    '12.050'
    """
    return f"{quanta // QUANTA_PER_UNIT}.{quanta % QUANTA_PER_UNIT:03d}"


def requests_per_day(
    row: UserPortfolio, portfolio: Portfolio, parameters: Parameters
) -> tuple[Fraction, Fraction | None, Fraction | None]:
    """Return Service Requests a day as the portfolio, the forecast and last month's actual tell them."""
    rates = parameters.meter_rates(row.category)
    # In integers over one denominator: a sum of fractions would be brought to lowest terms at each step.
    scale = lcm(*(rate.denominator for rate in rates.values()))
    by_portfolio = Fraction(
        sum(
            rates[kind].numerator * (scale // rates[kind].denominator) * getattr(row, kind)
            for kind in METER_KINDS
        ),
        scale,
    )
    forecast = None if row.forecast is None else Fraction(row.forecast, portfolio.days)
    actual = None if row.actual is None else Fraction(row.actual, portfolio.days_of_previous_month)
    return by_portfolio, forecast, actual


def allocate(portfolio: Portfolio, parameters: Parameters) -> Allocations:
    """Share the distributable part of the operating threshold among the Users of a portfolio.

    Every User gets at least its minimum. If anybody has demand, the allocations add up to exactly the
    distributable units; without any demand everybody stays at its minimum. The result does not depend on the
    order of the rows, nor on a common factor in all counts; more meters never give a User less.

    Raises
    ------
    ConfigError
        If the minimums alone are more than can be distributed.
    """
    rows = sorted(portfolio.users, key=lambda row: row.user)
    minimum_of = {category: parameters.minimum_quanta(category) for category in CATEGORIES}
    minimums = [minimum_of[row.category] for row in rows]
    distributable = parameters.distributable_quanta
    if sum(minimums) > distributable:
        raise ConfigError(
            f"the minimums of {len(rows):,} Users add up to {decimal_text(sum(minimums))} units per second, "
            f"expected at most the distributable {decimal_text(distributable)}"
        )
    weigh, scale = _demand_weights(portfolio, parameters)
    weights = [weigh(row) for row in rows]

    pinned, shared, weight = _fill(minimums, weights, distributable)
    quanta = list(minimums)
    # Largest remainder (Hamilton) over the exact quotas shared * w / weight: one denominator, so remainders
    # compare as integers. A User whose weight alone grows never loses by it: its own remainder grows,
    # the others' shrink, and each that wraps below an integer frees the unit it then competes for.
    remainders: list[tuple[int, str, int]] = []
    left = shared
    for index, row in enumerate(rows):
        if not pinned[index]:
            quanta[index], remainder = divmod(shared * weights[index], weight)
            left -= quanta[index]
            remainders.append((-remainder, row.user, index))
    for _, _, index in sorted(remainders)[: left if remainders else 0]:
        quanta[index] += 1

    entries = tuple(
        UserAllocation(
            portfolio=row,
            quanta=quanta[index],
            minimum_quanta=minimums[index],
            demand_weight=weights[index],
            at_minimum=pinned[index],
        )
        for index, row in enumerate(rows)
    )
    return Allocations(portfolio, parameters, entries, distributable, scale, shared, weight)


def _demand_weights(
    portfolio: Portfolio, parameters: Parameters
) -> tuple[Callable[[UserPortfolio], int], int]:
    """Return the busy-hour demand of a row as an integer, and the denominator of all of them.

    The demand is linear in the counts, with one set of coefficients per category and per presence of a
    forecast and an actual. Bringing the coefficients to one denominator once keeps fractions out of the rows.
    """
    exact: dict[tuple[str, bool, bool], list[Fraction]] = {}
    for row in portfolio.users:
        key = (row.category, row.forecast is not None, row.actual is not None)
        if key not in exact:
            by_portfolio, by_forecast, by_actual = parameters.blend_for(key[1], key[2])
            per_second = parameters.busy_hour_factor[row.category] / SECONDS_PER_DAY
            rates = parameters.meter_rates(row.category)
            exact[key] = [per_second * by_portfolio * rates[kind] for kind in METER_KINDS] + [
                per_second * by_forecast / portfolio.days,
                per_second * by_actual / portfolio.days_of_previous_month,
            ]
    scale = lcm(*(value.denominator for values in exact.values() for value in values))
    whole = {key: [int(value * scale) for value in values] for key, values in exact.items()}

    def weigh(row: UserPortfolio) -> int:
        of_kind = whole[(row.category, row.forecast is not None, row.actual is not None)]
        return (
            of_kind[0] * row.electricity_credit
            + of_kind[1] * row.electricity_prepayment
            + of_kind[2] * row.gas_credit
            + of_kind[3] * row.gas_prepayment
            + of_kind[4] * row.other_devices
            + of_kind[5] * (row.forecast or 0)
            + of_kind[6] * (row.actual or 0)
        )

    return weigh, scale


def _fill(minimums: list[int], weights: list[int], total: int) -> tuple[list[bool], int, int]:
    """Find who stays at the minimum: solve ``sum(max(minimum, L * weight)) == total`` for the level L.

    Returns for each User whether it is pinned to its minimum, and what the others share by what weight.
    Users are taken in the order in which a falling level would pin them; once one is above its minimum
    at the level of those left, all after it are.
    """
    pinned = [weight == 0 for weight in weights]
    shared = total - sum(minimum for minimum, at in zip(minimums, pinned, strict=True) if at)
    weight = sum(weights)
    # By weight over minimum, least first. Brought to one denominator that is an integer; without a minimum
    # nobody is below it.
    scale = lcm(*(minimum for minimum in set(minimums) if minimum))
    order = sorted(
        (index for index, at in enumerate(pinned) if not at and minimums[index]),
        key=lambda index: weights[index] * (scale // minimums[index]),
    )
    for index in order:
        if shared * weights[index] >= minimums[index] * weight:
            break
        pinned[index] = True
        shared -= minimums[index]
        weight -= weights[index]
    return pinned, shared, weight
