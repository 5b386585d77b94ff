"""Compute the figures of a monthly report from the record and nothing else.

An overload that several hosts saw is one event: activations that overlap, or follow within a second, are
joined. An event belongs to the month it began in; one that lasts into another month is listed in both and
counted in the first, and each month has its own share of the time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations.report.changes import (
    Version,
    allocation_changes,
    candidates_of,
    list_changes,
    mean_allocations,
    setting_changes,
    versions_of,
)
from tmm_core.operations.report.figures import (
    Counts,
    Day,
    Event,
    FaultSum,
    Figures,
    Gap,
    HostCoverage,
    Hour,
    Load,
    LossSum,
    PrioritySum,
    Quality,
    Srv,
    Trend,
    User,
    UserEvent,
)
from tmm_core.operations.report.record import (
    Activation,
    ActivationUser,
    Ints,
    Month,
    Record,
    allocations_in,
    categories_in,
    four,
    utc,
)
from tmm_core.operations.report.working_days import due_date
from tmm_core.policy.portfolio import Portfolio

#: Ends of activations are known to about a second where the log had to be told by a poll.
_JOIN_MS = 1_000
#: Shorter interruptions of the log are counted in the coverage and not listed.
_LEAST_GAP_MS = 1_000
#: Hosts may put a new configuration in force this much apart.
_LONGEST_SPREAD_MS = 60_000

_Row = TypeVar("_Row")


def figures_of(
    record: Record,
    portfolio: Portfolio | None = None,
    *,
    holidays: tuple[date, ...] = (),
    anonymised: bool = False,
) -> Figures:
    """Compute the figures of a month.

    `portfolio` has the forecasts of the Users, `holidays` the bank holidays that no rule gives; `anonymised` says that
    the record has pseudonyms for its Users.
    """
    month = record.month
    versions = versions_of(record.configurations, month)
    all_events = events_of(record.activations)
    events = tuple(event for event in all_events if event.until_ms > month.start_ms or event.began_in(month))
    # Numbers are those of this report.
    events = tuple(replace(event, number=number) for number, event in enumerate(events, 1))
    spans = active_spans(events, month)
    counts = record.user_days.sum(axis=(0, 1))
    units = record.user_day_units.sum(axis=(0, 1))
    active_s = seconds_between(spans, month.start_ms, month.end_ms)
    users = _users(record, versions, events, portfolio)
    threshold = versions[-1].description.get("operating_threshold") if versions else None
    return Figures(
        month=month,
        due=due_date(month.year, month.month, holidays),
        hosts=tuple(host.host for host in record.hosts if host.files),
        counts=Counts.of(counts),
        units_offered=int(units.sum()),
        units_admitted=int(units.sum() - units[Decision.THROTTLED]),
        versions=versions,
        setting_changes=setting_changes(versions),
        allocation_changes=allocation_changes(versions),
        list_changes=list_changes(versions),
        load=_load(record, threshold),
        days=_days(record, spans),
        hours=_hours(record, spans),
        events=events,
        began=sum(event.began_in(month) for event in events),
        active_s=active_s,
        users=users,
        srvs=_srvs(record.srvs, record.user_srvs.sum(axis=0)),
        trends=_trends(record, all_events, Counts.of(counts), active_s),
        priority_above_plan=_priority(record),
        notices=_notices(record),
        quality=quality_of(record, events, versions),
        has_forecast=any(user.forecast is not None for user in users),
        anonymised=anonymised,
        candidates=candidates_of(record),
    )


def _rate(units: Any, seconds: float = 60) -> float:
    return round(float(units) / seconds, 6)


def _load(record: Record, threshold: float | None) -> Load:
    offered, admitted = record.minute_units[:, 0], record.minute_units[:, 0] - record.minute_units[:, 1]
    priority = record.user_day_units[:, :, Decision.PRIORITY].sum()
    top, top_admitted = int(offered.argmax()), int(admitted.argmax())
    per_hour_offered = offered.reshape(-1, 60).max(axis=1)
    per_hour_admitted = admitted.reshape(-1, 60).max(axis=1)
    seconds = record.month.seconds
    limit = None if threshold is None else threshold * 60
    second = record.highest_second
    return Load(
        mean_offered=_rate(offered.sum(), seconds),
        mean_admitted=_rate(admitted.sum(), seconds),
        highest_offered=_rate(offered[top]),
        highest_offered_at=utc(record.month.start_ms + top * 60_000),
        highest_admitted=_rate(admitted[top_admitted]),
        highest_admitted_at=utc(record.month.start_ms + top_admitted * 60_000),
        minutes_at_threshold=0 if limit is None else int((admitted >= limit).sum()),
        minutes_offered_above=0 if limit is None else int((offered > limit).sum()),
        highest_second_offered=second[0] if second else None,
        highest_second_admitted=second[1] if second else None,
        hourly=tuple((_rate(a), _rate(b)) for a, b in zip(per_hour_offered, per_hour_admitted, strict=True)),
        priority_share=float(priority / max(1, admitted.sum())),
        units_equal_requests=bool((record.user_day_units == record.user_days).all()),
    )


def _days(record: Record, spans: list[tuple[int, int]]) -> tuple[Day, ...]:
    by_day = record.minute_units.reshape(record.month.days, -1, 2)
    offered, admitted = by_day[:, :, 0], by_day[:, :, 0] - by_day[:, :, 1]
    begins = range(record.month.start_ms, record.month.end_ms, 86_400_000)
    return tuple(
        Day(
            utc(begin).date(),
            Counts.of(record.user_days[:, place].sum(axis=0)),
            _rate(offered[place].sum(), 86_400),
            _rate(offered[place].max()),
            _rate(admitted[place].max()),
            seconds_between(spans, begin, begin + 86_400_000),
        )
        for place, begin in enumerate(begins)
    )


def _hours(record: Record, spans: list[tuple[int, int]]) -> tuple[Hour, ...]:
    offered = record.minute_units[:, 0].reshape(record.month.days, 24, 60)
    begins = range(record.month.start_ms, record.month.end_ms, 3_600_000)
    return tuple(
        Hour(
            hour,
            _rate(offered[:, hour].sum(), 3600 * record.month.days),
            _rate(offered[:, hour].max()),
            sum(seconds_between(spans, begin, begin + 3_600_000) for begin in begins[hour::24]),
        )
        for hour in range(24)
    )


def _users(
    record: Record, versions: tuple[Version, ...], events: tuple[Event, ...], portfolio: Portfolio | None
) -> tuple[User, ...]:
    month = record.month
    allocations = mean_allocations(versions, month)
    at_end = allocations_in(versions[-1].description) if versions else {}
    unknown_allocation = versions[-1].description.get("unknown_allocation") if versions else None
    categories: dict[str, str] = {}
    for version in versions:
        categories |= categories_in(version.description)
    forecasts = {each.user: each.forecast for each in portfolio.users} if portfolio else {}
    throttled_in = Counter(each.user for event in events for each in event.users if each.counts[0])
    place = {name: number for number, name in enumerate(record.users)}
    # A User that sent nothing has its line too; the unknown ones only if there were any.
    names = sorted((set(allocations) | set(place)) - {UNKNOWN})
    if UNKNOWN in place and record.user_days[place[UNKNOWN]].any():
        names.append(UNKNOWN)
    found = []
    for name in names:
        at = place.get(name)
        days = np.zeros((month.days, 4), np.int64) if at is None else record.user_days[at]
        units = np.zeros(4, np.int64) if at is None else record.user_day_units[at].sum(axis=0)
        allocation = float(unknown_allocation or 0) if name == UNKNOWN else allocations.get(name, 0.0)
        within = float(units[Decision.WITHIN_ALLOCATION])
        busiest, minute = (0, 0) if at is None else record.user_busiest[at].tolist()
        found.append(
            User(
                user=name,
                category=categories.get(name, ""),
                allocation=round(allocation, 6),
                allocation_at_end=float(unknown_allocation or 0) if name == UNKNOWN else at_end.get(name),
                counts=Counts.of(days.sum(axis=0)),
                units_offered=int(units.sum()),
                allocation_used=within / (allocation * month.seconds) if allocation else None,
                busiest_minute=_rate(busiest),
                busiest_at=utc(month.start_ms + minute * 60_000) if busiest else None,
                throttled_s=0 if at is None else int(record.user_seconds[at]),
                events=throttled_in[name],
                forecast=forecasts.get(name),
                days=tuple(Counts.of(day) for day in days),
                srvs=() if at is None else _srvs(record.srvs, record.user_srvs[at]),
            )
        )
    return tuple(sorted(found, key=lambda user: (-user.counts.throttled, -user.counts.offered, user.user)))


def _srvs(names: tuple[str, ...], counts: Ints) -> tuple[Srv, ...]:
    found = [Srv(name, Counts.of(row)) for name, row in zip(names, counts, strict=True) if row.any()]
    return tuple(sorted(found, key=lambda srv: (-srv.counts.offered, srv.srv)))


def _trends(record: Record, events: tuple[Event, ...], counts: Counts, active_s: float) -> tuple[Trend, ...]:
    def trend(month: Month, counts: Counts, busiest: int, users: int) -> Trend:
        return Trend(
            str(month),
            counts,
            _rate(counts.offered, month.seconds),
            busiest,
            users,
            sum(event.began_in(month) for event in events),
            seconds_between(active_spans(events, month), month.start_ms, month.end_ms),
        )

    throttled = record.user_days[:, :, Decision.THROTTLED].sum(axis=1)
    this = trend(
        record.month,
        counts,
        int(record.user_days.sum(axis=(0, 2)).max(initial=0)),
        int((throttled > 0).sum()),
    )
    earlier = [trend(p.month, Counts.of(p.counts), p.busiest_day, p.users_throttled) for p in record.past]
    return (*earlier, this)


def _priority(record: Record) -> tuple[PrioritySum, ...]:
    found: dict[str | None, PrioritySum] = {}
    for each in record.excesses:
        before = found.get(each.user, PrioritySum(each.user, 0, 0, 0.0, 0.0))
        highest = max((before.highest, before.plan), (each.rate, each.plan))
        found[each.user] = PrioritySum(each.user, before.seconds + each.seconds, before.minutes + 1, *highest)
    return tuple(
        sorted(found.values(), key=lambda each: (each.user is not None, -each.seconds, each.user or ""))
    )


def _notices(record: Record) -> dict[str, int]:
    return dict(sorted(Counter(each.state for each in record.notices).items()))


# --- traffic management events


def events_of(activations: Iterable[Activation]) -> tuple[Event, ...]:
    """Return the events, numbered from 1 in the order in which they began."""
    groups: list[list[Activation]] = []
    end = 0
    for each in sorted(activations, key=lambda each: (each.began_ms, each.host, each.event)):
        if groups and each.began_ms <= end + _JOIN_MS:
            groups[-1].append(each)
            end = max(end, each.until_ms)
        else:
            groups.append([each])
            end = each.until_ms
    return tuple(_joined(number, group) for number, group in enumerate(groups, 1))


def _joined(number: int, group: Sequence[Activation]) -> Event:
    return Event(
        number=number,
        began_ms=group[0].began_ms,
        until_ms=max(each.until_ms for each in group),
        open=any(each.open for each in group),
        exact=all(each.exact for each in group),
        observed=all(each.mode == "observe" for each in group),
        hosts=tuple(sorted({each.host for each in group})),
        activations=len(group),
        operating_threshold=group[0].operating_threshold,
        offered_max=max(each.offered_max for each in group),
        backlog_max_s=max(each.backlog_max_s for each in group),
        users=_event_users(group),
    )


def _event_users(group: Sequence[Activation]) -> tuple[UserEvent, ...]:
    """Return what became of each User, all activations of a group together."""
    found: dict[str, list[ActivationUser]] = defaultdict(list)
    for activation in group:
        for user in activation.users:
            found[user.user].append(user)
    return tuple(
        UserEvent(
            name,
            max(user.allocation for user in users),
            four(sum(column) for column in zip(*(user.counts for user in users), strict=True)),
            min((at for user in users if (at := user.first_throttled_ms) is not None), default=None),
            max((at for user in users if (at := user.last_throttled_ms) is not None), default=None),
            any(user.over_at_beginning for user in users),
            max(user.throttled_seconds for user in users),
        )
        for name, users in sorted(found.items())
    )


def active_spans(events: Iterable[Event], month: Month) -> list[tuple[int, int]]:
    """Return when the Mechanism was active in a month, in milliseconds since 1970."""
    return [
        (max(event.began_ms, month.start_ms), min(event.until_ms, month.end_ms))
        for event in events
        if event.began_ms < month.end_ms and event.until_ms > month.start_ms
    ]


def seconds_between(spans: Iterable[tuple[int, int]], start_ms: int, end_ms: int) -> float:
    """Return how many seconds of spans lie between two times."""
    return sum(max(0, min(end, end_ms) - max(begin, start_ms)) for begin, end in spans) / 1000


# --- how far it can be trusted


def quality_of(record: Record, events: Sequence[Event], versions: Sequence[Version]) -> Quality:
    """Return what is known about the data of a month."""
    month = record.month
    gaps = tuple(gap for host in record.hosts for gap in _gaps(host.host, host.spans, month))
    hosts = tuple(
        HostCoverage(
            host.host,
            host.files,
            seconds := sum(end - begin for begin, end in host.spans) / 1000,
            seconds / month.seconds,
            sum(1 for gap in gaps if gap.host == host.host),
            host.missing,
        )
        for host in record.hosts
    )
    known = {host.host for host in hosts if host.files}
    missing = tuple(sorted((set(record.hosts_expected) | {host.host for host in hosts}) - known))
    named = len(set(record.hosts_expected) | {host.host for host in hosts})
    return Quality(
        coverage=sum(host.seconds for host in hosts) / (named * month.seconds),
        hosts=hosts,
        gaps=tuple(gap for gap in gaps if gap.host in known),
        missing_hosts=missing,
        losses=_losses(record),
        faults=_faults(record),
        open_events=tuple(event.number for event in events if event.open),
        late_hosts=tuple(
            (version.version, version.spread_ms / 1000)
            for version in versions
            if version.spread_ms > _LONGEST_SPREAD_MS and not version.before_month
        ),
        disagreements=_disagreements(record),
    )


def _gaps(host: str, spans: Sequence[tuple[int, int]], month: Month) -> list[Gap]:
    ends = [month.start_ms, *[end for _, end in spans]]
    begins = [*[begin for begin, _ in spans], month.end_ms]
    return [
        Gap(host, end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end >= _LEAST_GAP_MS
    ]


def _grouped(
    rows: Iterable[_Row], key: Callable[[_Row], tuple[str, str]]
) -> Iterator[tuple[str, str, list[_Row]]]:
    """Yield the rows of each key together, in the order of the keys."""
    for (one, other), group in groupby(sorted(rows, key=key), key):
        yield one, other, list(group)


def _losses(record: Record) -> tuple[LossSum, ...]:
    return tuple(
        LossSum(
            host,
            what,
            sum(loss.records for loss in losses),
            min(loss.first_ms for loss in losses),
            max(loss.last_ms for loss in losses),
        )
        for host, what, losses in _grouped(record.losses, lambda loss: (loss.host, loss.what))
    )


def _faults(record: Record) -> tuple[FaultSum, ...]:
    return tuple(
        FaultSum(
            host,
            kind,
            len(faults),
            sum(fault.count for fault in faults),
            min(fault.at_ms for fault in faults),
            max(fault.at_ms for fault in faults),
        )
        for kind, host, faults in _grouped(record.faults, lambda fault: (fault.kind, fault.host))
    )


def _disagreements(record: Record) -> tuple[str, ...]:
    """Compare what is logged twice: by day, by minute, and by SRV."""
    found = []
    by_day, by_srv = record.user_days.sum(axis=(0, 1)), record.user_srvs.sum(axis=(0, 1))
    if by_day.tolist() != by_srv.tolist():
        found.append(f"Service Requests by SRV add up to {by_srv.sum():,}, by day to {by_day.sum():,}")
    units, minutes = record.user_day_units.sum(axis=(0, 1)), record.minute_units.sum(axis=0)
    if minutes.tolist() != [units.sum(), units[0]]:
        found.append(f"units by minute add up to {minutes[0]:,}, by day to {units.sum():,}")
    return tuple(found)
