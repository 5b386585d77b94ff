"""The statement of one User (SEC H3.24; SECMP0067): its own month, and nothing of any other User."""

from __future__ import annotations

from collections.abc import Iterator

from tmm_core.operations.charts import BLUE, VERMILION, Bars, bar_chart
from tmm_core.operations.page import (
    Block,
    Bullets,
    Cell,
    Column,
    Figure,
    Page,
    Section,
    Table,
    Terms,
    Text,
    Tile,
    Tiles,
    shown,
)
from tmm_core.operations.report.figures import Counts, Figures, User
from tmm_core.operations.report.record import utc
from tmm_core.operations.report.words import GLOSSARY, PARTY, many, pace, part, srv_name, times
from tmm_core.operations.terminal import duration

_WORDS = {
    "Admitted", "Allocation", "Offered", "Priority list", "Service Request", "Spare capacity", "SRV", "Throttled",
    "Traffic management event", "Unit", "Within allocation",
}  # fmt: skip


def statement_page(figures: Figures, user: User) -> Page:
    """Return the statement of a User as a page."""
    month = figures.month
    return Page(
        title=f"Traffic Management Statement, {month.name}",
        lead=f"For {user.user}: its Service Requests to the DCC System, and what became of them.",
        facts=(
            ("User", user.user),
            ("Category", PARTY.get(user.category, user.category)),
            ("Month", f"{month.name}, {month.days} days, all times UTC"),
            (
                "Due",
                f"{figures.due:%A} {figures.due.day} {figures.due:%B %Y}, the 10th Working Day after the month's end",
            ),
        ),
        sections=(
            _summary(figures, user),
            _volumes(figures, user),
            _throttling(figures, user),
            Section("Service Requests by SRV", (_srvs(user),)),
            _quality(figures),
            Section("Glossary", (Terms([term for term in GLOSSARY if term[0] in _WORDS]),)),
        ),
        foot="Made by tmm-core from the event logs of the Traffic Management Mechanism (SECMP0067).",
    )


def _summary(figures: Figures, user: User) -> Section:
    counts, events = user.counts, figures.events_with(user.user)
    if not counts.offered:
        answer = f"{user.user} sent no Service Request in {figures.month.name}."
    elif counts.throttled:
        answer = (
            f"{counts.throttled:,} of {counts.offered:,} Service Requests ({part(counts.throttled, counts.offered)}) "
            f"were throttled, in {many(user.throttled_s, 'second')}"
            + (f" of {many(len(events), 'traffic management event')}." if events else ".")
        )
    else:
        answer = f"None of {counts.offered:,} Service Requests was throttled."
    tiles = [
        Tile(f"{counts.offered:,}", "Service Requests sent", "attempts to send again included"),
        Tile(f"{counts.throttled:,}", "throttled", f"{part(counts.throttled, counts.offered)} of those sent"),
        Tile(f"{len(events):,}", "events in which", "Service Requests were throttled"),
        Tile(f"{shown(user.allocation, 'rate')}/s", "allocation", "units per second, mean of the month"),
        Tile(f"{shown(user.busiest_minute, 'rate')}/s", "busiest minute sent", "units per second"),
    ]
    if user.forecast is not None:
        tiles.append(
            Tile(f"{user.forecast:,}", "forecast", f"sent: {shown(user.against_forecast, 'change')}")
        )
    blocks: list[Block] = [Text(answer, strong=True), Tiles(tiles)]
    if counts.throttled:
        blocks.append(
            Text(
                "A throttled Service Request was not processed and may be sent again after the time in Retry-After. "
                "It was above the allocation while the DCC System was at its operating threshold: spreading what is "
                "not urgent over the day avoids it."
            )
        )
    return Section("Summary", blocks)


def _volumes(figures: Figures, user: User) -> Section:
    rows: list[tuple[Cell, ...]] = [
        ("Sent in the month", user.counts.offered),
        ("Forecast for the month", user.forecast),
        ("Admitted", user.counts.admitted),
        ("of them on the priority list", user.counts.priority),
        ("of them within the allocation", user.counts.within_allocation),
        ("of them from spare capacity, above the allocation", user.counts.spare_capacity),
        ("Throttled", user.counts.throttled),
    ]
    points = [
        f"Allocation: {pace(user.allocation)}"
        + (
            f", {pace(user.allocation_at_end)} at the month's end."
            if user.allocation_at_end is not None and user.allocation_at_end != user.allocation
            else "."
        ),
        f"Busiest minute: {pace(user.busiest_minute)}"
        + (f", {_of(user.busiest_minute, user.allocation)}" if user.allocation else "")
        + (f", on {shown(user.busiest_at)[:-3]} UTC." if user.busiest_at else "."),
    ]
    if user.allocation_used is not None:
        points.append(f"{part(user.allocation_used, 1)} of the allocation was used.")
    points += [
        f"The allocation changed from {shown(change.before, 'rate')} to {shown(change.after, 'rate')} units per second "
        f"on {shown(utc(change.at_ms))} UTC."
        for change in figures.allocation_changes
        if change.user == user.user
    ]
    if user.forecast is None:
        points.append("No forecast was given for the month.")
    else:
        points.append(f"Sent against the forecast: {shown(user.against_forecast, 'change')}.")
    table = Table(
        "Service Requests of the month",
        (Column("What", "text", "what"), Column("Service Requests", "count", "service_requests")),
        rows,
    )
    return Section("Volumes against forecast and allocation", (Bullets(points), table, _days(figures, user)))


def _of(rate: float, allocation: float) -> str:
    return f"{part(rate, allocation)} of the allocation"


def _days(figures: Figures, user: User) -> Figure:
    throttled_days = sum(1 for day in user.days if day.throttled)
    finding = (
        f"Service Requests were throttled on {many(throttled_days, 'day')}"
        if throttled_days
        else "Nothing was throttled on any day"
    )
    table = Table(
        "Service Requests by day",
        (
            Column("Day (UTC)", "day", "day"),
            Column("Sent", "count", "offered"),
            Column("Admitted", "count", "admitted"),
            Column("Throttled", "count", "throttled"),
        ),
        [
            (day.day, own.offered, own.admitted, own.throttled)
            for day, own in zip(figures.days, user.days, strict=True)
        ],
    )
    return Figure(
        finding,
        lambda width: bar_chart(
            finding + ".",
            f"Service Requests of {user.user} on each day, admitted and throttled.",
            (
                Bars("admitted", [own.admitted for own in user.days], BLUE),
                Bars("throttled", [own.throttled for own in user.days], VERMILION),
            ),
            [str(day.day.day) for day in figures.days],
            unit="Service Requests per day",
            width=width,
            label_every=2,
        ),
        table,
    )


def _throttling(figures: Figures, user: User) -> Section:
    events = figures.events_with(user.user)
    if not events:
        said = "Nothing was throttled." if not user.counts.throttled else (
            "Service Requests were throttled, and no traffic management event is logged for them: see the data quality."
        )  # fmt: skip
        return Section("Frequency and duration of throttling", (Text(said),))
    table = Table(
        "Events in which Service Requests were throttled",
        (
            Column("Event began (UTC)", "moment", "event_began"),
            Column("Event lasted", "duration", "event_duration_s"),
            Column("First throttled (UTC)", "moment", "first_throttled"),
            Column("Last throttled (UTC)", "moment", "last_throttled"),
            Column("Throttled", "count", "throttled"),
            Column("Admitted", "count", "admitted"),
            Column("Time with throttling", "duration", "throttled_s"),
        ),
        [
            (
                utc(event.began_ms),
                event.duration_s,
                None if own.first_ms is None else utc(own.first_ms),
                None if own.last_ms is None else utc(own.last_ms),
                own.counts[0],
                sum(own.counts[1:]),
                own.seconds,
            )
            for event, own in events
        ],
    )
    said = (
        f"Throttled {times(len(events))}: once in {duration(figures.month.seconds / len(events))} on average. "
        f"In {many(user.throttled_s, 'second')} of the month at least one Service Request was throttled."
    )
    return Section("Frequency and duration of throttling", (Text(said), table))


def _srvs(user: User) -> Table:
    return Table(
        "Service Requests sent, by SRV",
        (
            Column("SRV", "text", "srv"),
            Column("Name", "text", "name"),
            Column("Sent", "count", "offered"),
            Column("Admitted", "count", "admitted"),
            Column("of them priority", "count", "priority"),
            Column("Throttled", "count", "throttled"),
        ),
        [
            (srv.srv, srv_name(srv.srv), srv.counts.offered, srv.counts.admitted, srv.counts.priority,
             srv.counts.throttled)
            for srv in user.srvs
        ],
    )  # fmt: skip


def _quality(figures: Figures) -> Section:
    quality = figures.quality
    said = (
        "The logs cover the whole month."
        if quality.is_complete
        else f"The logs cover {part(quality.coverage, 1)} of the month or have other gaps: counts are a lower bound."
    )
    return Section("Data quality", (Text(said),))


def statement_table(figures: Figures, user: User) -> Table:
    """Return the statement as one table for programs: what, which, measure, value."""
    return Table(
        "Statement",
        (
            Column("Part", "text", "part"),
            Column("Item", "text", "item"),
            Column("Measure", "text", "measure"),
            Column("Value", "text", "value"),
        ),
        list(_values(figures, user)),
    )


def _values(figures: Figures, user: User) -> Iterator[tuple[str, str, str, str]]:
    yield "statement", "", "user", user.user
    yield "statement", "", "category", user.category
    yield "statement", "", "month", str(figures.month)
    yield "statement", "", "due", figures.due.isoformat()
    yield "statement", "", "month_logged_share", f"{figures.quality.coverage:.6f}"
    for measure, count in _measures(user.counts):
        yield "total", "", measure, str(count)
    yield "total", "", "forecast", "" if user.forecast is None else str(user.forecast)
    against = user.against_forecast
    yield "total", "", "against_forecast", "" if against is None else f"{against:.6f}"
    yield "total", "", "allocation_per_s", f"{user.allocation:.6g}"
    at_end = user.allocation_at_end
    yield "total", "", "allocation_at_end_per_s", "" if at_end is None else f"{at_end:.6g}"
    yield "total", "", "busiest_minute_per_s", f"{user.busiest_minute:.6g}"
    yield "total", "", "throttled_s", str(user.throttled_s)
    for srv in user.srvs:
        for measure, count in _measures(srv.counts):
            yield "srv", srv.srv, measure, str(count)
    for day, own in zip(figures.days, user.days, strict=True):
        for measure, count in _measures(own):
            yield "day", day.day.isoformat(), measure, str(count)
    for number, (event, in_event) in enumerate(figures.events_with(user.user), 1):
        item = str(number)
        yield "event", item, "began", f"{utc(event.began_ms):%Y-%m-%dT%H:%M:%SZ}"
        yield "event", item, "duration_s", f"{event.duration_s:.3f}"
        for name, at_ms in (("first_throttled", in_event.first_ms), ("last_throttled", in_event.last_ms)):
            yield "event", item, name, "" if at_ms is None else f"{utc(at_ms):%Y-%m-%dT%H:%M:%SZ}"
        yield "event", item, "throttled", str(in_event.counts[0])
        yield "event", item, "throttled_s", str(in_event.seconds)


def _measures(counts: Counts) -> tuple[tuple[str, int], ...]:
    return (
        ("offered", counts.offered),
        ("admitted", counts.admitted),
        ("priority", counts.priority),
        ("within_allocation", counts.within_allocation),
        ("spare_capacity", counts.spare_capacity),
        ("throttled", counts.throttled),
    )
