"""Compute the figures of a monthly report from the record and nothing else."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from typing import Any

import numpy as np

from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations.report.candidates import candidates_of
from tmm_core.operations.report.changes import (
    Version,
    allocation_changes,
    allocations_in,
    categories_in,
    list_changes,
    mean_allocations,
    setting_changes,
    versions_of,
)
from tmm_core.operations.report.events import Event, active_spans, events_of, seconds_between
from tmm_core.operations.report.figures import (
    Counts,
    Day,
    Figures,
    Hour,
    Load,
    PrioritySum,
    Srv,
    Trend,
    User,
)
from tmm_core.operations.report.quality import quality_of
from tmm_core.operations.report.record import Ints, Month, Record, utc
from tmm_core.operations.report.working_days import due_date
from tmm_core.policy.portfolio import Portfolio

__all__ = ["figures_of"]


def figures_of(
    record: Record,
    portfolio: Portfolio | None = None,
    *,
    holidays: tuple[date, ...] = (),
    anonymised: bool = False,
) -> Figures:
    """Compute the figures of a month.

    Parameters
    ----------
    record : Record
    portfolio : Portfolio, optional
        With the forecasts of the Users for the month.
    holidays : tuple of date
        Bank holidays that no rule gives.
    anonymised : bool
        The record has pseudonyms for its Users.
    """
    month = record.month
    versions = versions_of(record.configurations, month)
    all_events = events_of(record.activations)
    events = tuple(event for event in all_events if event.until_ms > month.start_ms or event.began_in(month))
    # Numbers are those of this report.
    events = tuple(_numbered(event, number) for number, event in enumerate(events, 1))
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


def _numbered(event: Event, number: int) -> Event:
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    return Event(**{**values, "number": number})


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
    found = []
    for place in range(record.month.days):
        begin = record.month.start_ms + place * 86_400_000
        found.append(
            Day(
                utc(begin).date(),
                Counts.of(record.user_days[:, place].sum(axis=0)),
                _rate(offered[place].sum(), 86_400),
                _rate(offered[place].max()),
                _rate(admitted[place].max()),
                seconds_between(spans, begin, begin + 86_400_000),
            )
        )
    return tuple(found)


def _hours(record: Record, spans: list[tuple[int, int]]) -> tuple[Hour, ...]:
    offered = record.minute_units[:, 0].reshape(record.month.days, 24, 60)
    found = []
    for hour in range(24):
        begins = [record.month.start_ms + (day * 24 + hour) * 3_600_000 for day in range(record.month.days)]
        found.append(
            Hour(
                hour,
                _rate(offered[:, hour].sum(), 3600 * record.month.days),
                _rate(offered[:, hour].max()),
                sum(seconds_between(spans, begin, begin + 3_600_000) for begin in begins),
            )
        )
    return tuple(found)


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
    throttled_in: dict[str, int] = {}
    for event in events:
        for each in event.users:
            throttled_in[each.user] = throttled_in.get(each.user, 0) + bool(each.counts[0])
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
                events=throttled_in.get(name, 0),
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
    found: dict[str, int] = {}
    for each in record.notices:
        found[each.state] = found.get(each.state, 0) + 1
    return dict(sorted(found.items()))
