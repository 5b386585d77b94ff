"""The figures of one monthly report, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from typing import Any

from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations.report.changes import (
    AllocationChange,
    CandidateFigures,
    ListChange,
    SettingChange,
    Version,
)
from tmm_core.operations.report.record import Month, utc


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
class UserEvent:
    """One User in one event, all hosts together.

    Attributes
    ----------
    counts : tuple of int
        Service Requests by `Decision` during the event.
    first_ms, last_ms : int or None
        First and last throttled request.
    over : bool
        Above its allocation when the event began.
    seconds : int
        Most seconds with a throttled request that one host saw.
    """

    user: str
    allocation: float
    counts: tuple[int, int, int, int]
    first_ms: int | None
    last_ms: int | None
    over: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class Event:
    """One traffic management event of the System.

    Attributes
    ----------
    began_ms, until_ms : int
        Until the last host's activation ended; of an open event, until when it was last heard of.
    open : bool
        At least one host's log has no end of it.
    observed : bool
        The Mechanism only observed: nothing was refused.
    offered_max : float
        Highest load offered on one host, units per second.
    """

    number: int
    began_ms: int
    until_ms: int
    open: bool
    exact: bool
    observed: bool
    hosts: tuple[str, ...]
    activations: int
    operating_threshold: float
    offered_max: float
    backlog_max_s: float
    users: tuple[UserEvent, ...]

    @property
    def duration_s(self) -> float:
        return (self.until_ms - self.began_ms) / 1000

    @property
    def throttled(self) -> int:
        return sum(user.counts[0] for user in self.users)

    @property
    def users_throttled(self) -> int:
        return sum(1 for user in self.users if user.counts[0])

    @property
    def users_over(self) -> tuple[str, ...]:
        return tuple(user.user for user in self.users if user.over)

    def seconds_in(self, month: Month) -> float:
        """Return how long it lasted inside a month."""
        return max(0, min(self.until_ms, month.end_ms) - max(self.began_ms, month.start_ms)) / 1000

    def began_in(self, month: Month) -> bool:
        return month.start_ms <= self.began_ms < month.end_ms


@dataclass(frozen=True, slots=True)
class Gap:
    """A time that nobody logged on a host."""

    host: str
    from_ms: int
    to_ms: int

    @property
    def seconds(self) -> float:
        return (self.to_ms - self.from_ms) / 1000


@dataclass(frozen=True, slots=True)
class HostCoverage:
    """How much of the month a host's log covers; `expected` and without a file: it is missing."""

    host: str
    files: int
    seconds: float
    share: float
    gaps: int
    missing_commits: int


@dataclass(frozen=True, slots=True)
class LossSum:
    """Records of one kind that a host could not write."""

    host: str
    what: str
    records: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class FaultSum:
    """Faults of one kind on a host."""

    host: str
    kind: str
    times: int
    count: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known about the data.

    Attributes
    ----------
    coverage : float
        Share of the month that was logged, all hosts together.
    open_events : tuple of int
        Numbers of the events whose end is not logged.
    late_hosts : tuple of (str, float)
        Versions that the hosts put in force more than a minute apart, and seconds between first and last.
    disagreements : tuple of str
        Figures that are logged twice and differ.
    """

    coverage: float
    hosts: tuple[HostCoverage, ...]
    gaps: tuple[Gap, ...]
    missing_hosts: tuple[str, ...]
    losses: tuple[LossSum, ...]
    faults: tuple[FaultSum, ...]
    open_events: tuple[int, ...]
    late_hosts: tuple[tuple[str, float], ...]
    disagreements: tuple[str, ...]

    @property
    def lost_records(self) -> int:
        return sum(loss.records for loss in self.losses)

    @property
    def is_complete(self) -> bool:
        """Nothing is missing that would change a figure."""
        return not (
            self.gaps
            or self.missing_hosts
            or self.losses
            or self.open_events
            or self.disagreements
            or any(host.missing_commits for host in self.hosts)
        )


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
