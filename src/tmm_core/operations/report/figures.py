"""The figures of one monthly report, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from typing import Any

from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations.report.candidates import CandidateFigures
from tmm_core.operations.report.changes import AllocationChange, ListChange, SettingChange, Version
from tmm_core.operations.report.events import Event, UserEvent
from tmm_core.operations.report.quality import Quality
from tmm_core.operations.report.record import Month, utc

__all__ = ["Counts", "Day", "Figures", "Hour", "Load", "PrioritySum", "Srv", "Trend", "User", "plain_values"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Service Requests by what became of them."""

    throttled: int = 0
    spare_capacity: int = 0
    within_allocation: int = 0
    priority: int = 0

    @property
    def offered(self) -> int:
        return self.throttled + self.admitted

    @property
    def admitted(self) -> int:
        return self.spare_capacity + self.within_allocation + self.priority

    @property
    def above_allocation(self) -> int:
        """Offered above the allocation: admitted from spare capacity, or throttled."""
        return self.throttled + self.spare_capacity

    @classmethod
    def of(cls, amounts: Any) -> Counts:
        """Take amounts indexed by `Decision`."""
        return cls(*[int(amounts[decision]) for decision in Decision])


@dataclass(frozen=True, slots=True)
class Day:
    """One day: requests, highest minute (units per second), and seconds active."""

    day: date
    counts: Counts
    mean_offered: float
    highest_offered: float
    highest_admitted: float
    active_s: float


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the day, all days of the month together: mean and highest minute, units per second."""

    hour: int
    mean_offered: float
    highest_offered: float
    active_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the month against the operating threshold; units per second.

    Attributes
    ----------
    highest_offered, highest_admitted : float
        In the busiest minute, as a mean over it.
    highest_offered_at, highest_admitted_at : datetime
        Beginning of that minute.
    minutes_at_threshold : int
        Minutes whose mean admitted load was at the operating threshold or above.
    minutes_offered_above : int
        Minutes whose mean offered load was above it.
    highest_second_offered, highest_second_admitted : int or None
        Service Requests in the busiest second while active; None if never active.
    hourly : tuple of (float, float)
        Offered and admitted load in the busiest minute of each hour of the month.
    priority_share : float
        Of the units admitted.
    """

    mean_offered: float
    mean_admitted: float
    highest_offered: float
    highest_offered_at: datetime
    highest_admitted: float
    highest_admitted_at: datetime
    minutes_at_threshold: int
    minutes_offered_above: int
    highest_second_offered: int | None
    highest_second_admitted: int | None
    hourly: tuple[tuple[float, float], ...]
    priority_share: float
    units_equal_requests: bool


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV of a User, or of all."""

    srv: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class User:
    """One User's month; rates in units per second.

    Attributes
    ----------
    allocation : float
        Mean over the month where it changed.
    allocation_at_end : float or None
        None: no User any more at the month's end.
    allocation_used : float or None
        Units admitted within the allocation as a share of what the allocation would have admitted.
    busiest_minute : float
        Highest offered load, as a mean over a minute.
    throttled_s : int
        Seconds in which a request of it was throttled.
    forecast : int or None
        Service Requests it forecast for the month.
    """

    user: str
    category: str
    allocation: float
    allocation_at_end: float | None
    counts: Counts
    units_offered: int
    allocation_used: float | None
    busiest_minute: float
    busiest_at: datetime | None
    throttled_s: int
    events: int
    forecast: int | None
    days: tuple[Counts, ...]
    srvs: tuple[Srv, ...]

    @property
    def is_unknown(self) -> bool:
        """The pool of unknown Users: no User, and no statement."""
        return self.user == UNKNOWN

    @property
    def against_forecast(self) -> float | None:
        """Offered against forecast, as a fraction above (or below) it."""
        return self.counts.offered / self.forecast - 1 if self.forecast else None


@dataclass(frozen=True, slots=True)
class Trend:
    """One month of the trends."""

    month: str
    counts: Counts
    mean_offered: float
    busiest_day: int
    users_throttled: int
    activations: int
    active_s: float


@dataclass(frozen=True, slots=True)
class PrioritySum:
    """Priority traffic above its plan: of one User, or of all together where `user` is None."""

    user: str | None
    seconds: int
    minutes: int
    highest: float
    plan: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole report in figures.

    Attributes
    ----------
    events : tuple of Event
        Those that lasted into the month; numbered from 1.
    began : int
        Events that began in the month: the number of activations.
    active_s : float
        Seconds of the month in which the Mechanism was active on any host.
    notices : mapping of str to int
        Messages to Users by state.
    """

    month: Month
    due: date
    hosts: tuple[str, ...]
    counts: Counts
    units_offered: int
    units_admitted: int
    versions: tuple[Version, ...]
    setting_changes: tuple[SettingChange, ...]
    allocation_changes: tuple[AllocationChange, ...]
    list_changes: tuple[ListChange, ...]
    load: Load
    days: tuple[Day, ...]
    hours: tuple[Hour, ...]
    events: tuple[Event, ...]
    began: int
    active_s: float
    users: tuple[User, ...]
    srvs: tuple[Srv, ...]
    trends: tuple[Trend, ...]
    priority_above_plan: tuple[PrioritySum, ...]
    notices: Mapping[str, int]
    quality: Quality
    has_forecast: bool
    anonymised: bool = False
    candidates: tuple[CandidateFigures, ...] = ()

    @property
    def in_force(self) -> Mapping[str, Any]:
        """What was in force at the month's end; empty if no configuration is logged."""
        return self.versions[-1].description if self.versions else {}

    @property
    def operating_threshold(self) -> float | None:
        found = self.in_force.get("operating_threshold")
        return None if found is None else float(found)

    @property
    def users_throttled(self) -> tuple[User, ...]:
        """Users with a throttled request, the most throttled first."""
        return tuple(user for user in self.users if user.counts.throttled)

    def events_with(self, user: str) -> list[tuple[Event, UserEvent]]:
        """Return the events in which a User was throttled."""
        return [
            (event, each)
            for event in self.events
            for each in event.users
            if each.user == user and each.counts[Decision.THROTTLED]
        ]


def plain_values(value: Any) -> Any:
    """Return figures as values of JSON: dataclasses as objects, times as ISO 8601 text."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}Z"
    if isinstance(value, date | Month):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        found: dict[str, Any] = {}
        for each in fields(value):
            inner = getattr(value, each.name)
            if each.name.endswith("_ms") and isinstance(inner, int) and each.name != "spread_ms":
                found[each.name.removesuffix("_ms") + "_at"] = plain_values(utc(inner))
            else:
                found[each.name] = plain_values(inner)
        for name in ("offered", "admitted", "duration_s", "throttled", "against_forecast"):
            if isinstance(getattr(type(value), name, None), property):
                found[name] = plain_values(getattr(value, name))
        return found
    if isinstance(value, Mapping):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value
