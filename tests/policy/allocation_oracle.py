"""The allocation formula once more, slow and obviously right: fractions all the way, straight from its definition.

expected_u = sum over portfolio, forecast, actual of share * Service Requests a day
demand_u   = busy-hour factor * expected_u / 86,400
exact_u    = max(minimum_u, L * demand_u), L such that they add up to what can be distributed
the thousandths that rounding down leaves go to the largest remainders, ties in the order of the names
"""

from __future__ import annotations

from calendar import monthrange
from fractions import Fraction
from math import floor

from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import Portfolio, UserPortfolio


def demand(row: UserPortfolio, portfolio: Portfolio, parameters: Parameters) -> Fraction:
    """Return Service Requests per second of a User in its busy hour."""
    year, month = (int(part) for part in portfolio.month.split("-"))
    days = monthrange(year, month)[1]
    days_before = monthrange(year - (month == 1), 12 if month == 1 else month - 1)[1]
    rates = parameters.requests_per_day[row.category]
    weight = parameters.prepayment_weight
    sources = [
        (
            parameters.blend[0],
            rates["electricity_credit"] * row.electricity_credit
            + rates["electricity_prepayment"] * weight * row.electricity_prepayment
            + rates["gas_credit"] * row.gas_credit
            + rates["gas_prepayment"] * weight * row.gas_prepayment
            + rates["other_devices"] * row.other_devices,
        )
    ]
    if row.forecast is not None:
        sources.append((parameters.blend[1], Fraction(row.forecast, days)))
    if row.actual is not None:
        sources.append((parameters.blend[2], Fraction(row.actual, days_before)))
    shares = sum(share for share, _ in sources)
    if shares:
        expected = sum(share * requests for share, requests in sources) / shares
    else:
        expected = sources[0][1]
    return parameters.busy_hour_factor[row.category] * expected / 86_400


def minimum(row: UserPortfolio, parameters: Parameters) -> Fraction:
    """Return the least a User gets, units per second."""
    return parameters.guaranteed_minimum if row.category == "other" else parameters.minimum


def exact_allocations(portfolio: Portfolio, parameters: Parameters) -> dict[str, Fraction] | None:
    """Return units per second by User before rounding; None if the minimums are too much together."""
    kept = parameters.operating_threshold * parameters.priority_share + parameters.unknown_allocation
    total = Fraction(floor((parameters.operating_threshold - kept) * 1000), 1000)
    least = {row.user: minimum(row, parameters) for row in portfolio.users}
    demands = {row.user: demand(row, portfolio, parameters) for row in portfolio.users}
    if sum(least.values()) > total:
        return None
    above = {user for user, each in demands.items() if each}
    while above:
        rest = total - sum(least[user] for user in least if user not in above)
        level = rest / sum(demands[user] for user in above)
        too_low = {user for user in above if level * demands[user] < least[user]}
        if not too_low:
            return {user: level * demands[user] if user in above else least[user] for user in least}
        above -= too_low
    return least


def oracle(portfolio: Portfolio, parameters: Parameters) -> dict[str, int] | None:
    """Return thousandths of a unit per second by User; None if the minimums are too much together."""
    exact = exact_allocations(portfolio, parameters)
    if exact is None:
        return None
    quanta = {user: floor(value * 1000) for user, value in exact.items()}
    left = round(sum(exact.values()) * 1000) - sum(quanta.values())
    by_remainder = sorted(exact, key=lambda user: (quanta[user] - exact[user] * 1000, user))
    for user in by_remainder[:left]:
        quanta[user] += 1
    return quanta
