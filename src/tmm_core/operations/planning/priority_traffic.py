"""How much of the recorded traffic was priority, and what a change of the priority list would do to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from tmm_core.errors import TMMError
from tmm_core.operations.event_log.files import LogSet

__all__ = ["Traffic", "days_of", "traffic_of"]


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
