"""Recorded traffic of the event log, to plan by: against new allocations, and against a priority list.

A dry run of new allocations says how often each User would have been over its own. The log holds minutes always and
seconds while the Mechanism was active. Being over the allocation throttles nobody by itself: that takes an active
Mechanism and no spare capacity. For a priority list, Service Requests are added up by SRV.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from tmm_core.errors import TMMError
from tmm_core.mechanism import UNKNOWN
from tmm_core.operations.event_log.files import LogSet

__all__ = ["Over", "Recorded", "Traffic", "days_of", "over_allocation", "traffic_of"]

_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Over:
    """One User's recorded traffic against an allocation; priority traffic is not part of it.

    Attributes
    ----------
    allocation : float
        Units per second.
    minutes : int
        Minutes with requests of the User.
    minutes_over : int
        Those with more units than a minute of the allocation.
    seconds_over : int
        Seconds with more requests than a second of the allocation, of those in which the Mechanism was active.
    units, units_over : int
        Units offered; those above the allocation in the minutes over it.
    highest : float
        Units per second in the User's busiest minute.
    """

    user: str
    allocation: float
    minutes: int
    minutes_over: int
    seconds_over: int
    units: int
    units_over: float
    highest: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """The Users of a log, in the order of their names, and what it covers.

    Attributes
    ----------
    first_s, last_s : int
        Seconds since 1970 of the first and the last minute with requests.
    active_seconds : int
        Seconds with requests while the Mechanism was active.
    without_allocation : tuple of str
        Users with traffic that the new allocations do not name: unknown to them.
    """

    users: tuple[Over, ...]
    first_s: int
    last_s: int
    active_seconds: int
    without_allocation: tuple[str, ...]


def over_allocation(logs: LogSet, allocations: Mapping[str, float], unknown: float) -> Recorded:
    """Compare recorded traffic with allocations.

    Parameters
    ----------
    logs : LogSet
        Of one or many hosts; their traffic is added up.
    allocations : mapping of str to float
        Units per second by User.
    unknown : float
        Units per second of all unknown Users together; Users without an allocation count among them.
    """
    minutes: dict[tuple[str, int], int] = {}
    seconds: dict[tuple[str, int], int] = {}
    without: set[str] = set()

    def user_of(name: str) -> str:
        if name in allocations:
            return name
        if name != UNKNOWN:
            without.add(name)
        return UNKNOWN

    for _, row in logs.rows(
        "SELECT name, minute, throttled_units + spare_units + within_units AS units"
        " FROM user_minutes JOIN users USING (user)"
    ):
        key = user_of(row["name"]), row["minute"]
        minutes[key] = minutes.get(key, 0) + row["units"]
    for _, row in logs.rows(
        "SELECT name, second, sum(throttled + spare + within) AS requests"
        " FROM second_counts JOIN users USING (user) GROUP BY user, second"
    ):
        key = user_of(row["name"]), row["second"]
        seconds[key] = seconds.get(key, 0) + row["requests"]

    by_user: dict[str, list[int]] = {}
    for (user, _), units in minutes.items():
        by_user.setdefault(user, []).append(units)
    seconds_over: dict[str, int] = {}
    for (user, _), requests in seconds.items():
        seconds_over[user] = seconds_over.get(user, 0) + (requests > allocations.get(user, unknown))
    covered = [minute for _, minute in minutes]
    return Recorded(
        users=tuple(
            _over(user, allocations.get(user, unknown), by_user[user], seconds_over.get(user, 0))
            for user in sorted(by_user)
        ),
        first_s=min(covered, default=0),
        last_s=max(covered, default=0),
        active_seconds=len({second for _, second in seconds}),
        without_allocation=tuple(sorted(without)),
    )


def _over(user: str, allocation: float, units: list[int], seconds_over: int) -> Over:
    most = allocation * _MINUTE_S
    above = [each - most for each in units if each > most]
    return Over(
        user=user,
        allocation=allocation,
        minutes=sum(each > 0 for each in units),
        minutes_over=len(above),
        seconds_over=seconds_over,
        units=sum(units),
        units_over=sum(above),
        highest=max(units) / _MINUTE_S,
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Service Requests offered in some days.

    Attributes
    ----------
    by_srv : dict of str to int
        Offered, by SRV; ``"(unknown)"`` among them.
    priority : int
        Those that were admitted as priority, by the list that was in force.
    first, last : date or None
        First and last day (UTC) with requests.
    """

    by_srv: dict[str, int]
    priority: int
    first: date | None
    last: date | None

    @property
    def total(self) -> int:
        return sum(self.by_srv.values())

    def on(self, srvs: Iterable[str]) -> int:
        """Return how many of them are of these SRVs."""
        return sum(self.by_srv.get(code, 0) for code in srvs)


def days_of(month: str) -> tuple[date, date]:
    """Return the first day of a month and of the next.

    Raises
    ------
    TMMError
        It is not written as 2026-11.
    """
    try:
        if len(month) != 7:
            raise ValueError
        first = date.fromisoformat(f"{month}-01")
    except ValueError:
        raise TMMError(f"month {month!r}, expected a form like 2026-11") from None
    return first, (first + timedelta(days=31)).replace(day=1)


def traffic_of(logs: LogSet, month: str | None = None) -> Traffic:
    """Add up a month of the event log, or all there is; of one or many hosts."""
    low, high = 0, 1 << 62
    if month is not None:
        low, high = (int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) for day in days_of(month))
    by_srv: dict[str, int] = {}
    priority, days = 0, set()
    for _, row in logs.rows(
        "SELECT day, code, sum(throttled + spare + within + priority) AS offered, sum(priority) AS priority"
        " FROM day_counts JOIN srvs USING (srv) WHERE day >= ? AND day < ? GROUP BY day, srv",
        (low, high),
    ):
        by_srv[row["code"]] = by_srv.get(row["code"], 0) + row["offered"]
        priority += row["priority"]
        days.add(row["day"])
    dates = (
        [datetime.fromtimestamp(day, UTC).date() for day in (min(days), max(days))] if days else [None, None]
    )
    return Traffic(by_srv, priority, dates[0], dates[1])
