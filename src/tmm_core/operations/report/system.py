"""System Configuration and System Capacity: what was in force, and what load it met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from tmm_core.operations.charts import (
    BLUE,
    VERMILION,
    Bars,
    Level,
    Line,
    Span,
    bar_chart,
    day_chart,
    line_chart,
)
from tmm_core.operations.page import Block, Cell, Column, Figure, Section, Table, Text
from tmm_core.operations.report.changes import setting_text
from tmm_core.operations.report.figures import Figures
from tmm_core.operations.report.record import allocations_in, priority_list, utc
from tmm_core.operations.report.words import SETTING, joined, many, moment, pace, part, srv_name, times
from tmm_core.operations.terminal import duration


def configuration_section(figures: Figures) -> Section:
    """Return the section System Configuration."""
    if not figures.versions:
        return Section("System Configuration", (Text("The logs hold no configuration.", strong=True),))
    described = figures.in_force
    changed = sum(not version.before_month for version in figures.versions[1:])
    last = figures.versions[-1]
    head = (
        f"One configuration, version {last.version}, was in force all month."
        if not changed
        else f"The configuration changed {times(changed)}; version {last.version} was in force at the month's end."
    )
    values = {**described, **(described.get("rules") or {})}
    rows: list[Sequence[Cell]] = [
        (name, setting_text(values[key]), meaning)
        for key, (name, meaning) in SETTING.items()
        if values.get(key) is not None
    ]
    rows += [
        (f"Cost of SRV {srv}", setting_text(units), "units for each Service Request")
        for srv, units in sorted((described.get("costs") or {}).items())
    ]
    if described.get("allocations_digest"):
        meaning = "names the allocations file, as tmm allocate and tmm status do"
        rows.append(("Digest of the allocations", str(described["allocations_digest"]), meaning))
    settings = Table(
        "In force at the month's end",
        (
            Column("Setting", "text", "setting"),
            Column("Value", "text", "value"),
            Column("Meaning", "text", "meaning"),
        ),
        rows,
        "csv/settings.csv",
    )
    blocks: list[Block] = [Text(head, strong=True), settings]
    if len(figures.versions) > 1:
        blocks.append(_versions(figures))
    if figures.setting_changes:
        blocks.append(_setting_changes(figures))
    return Section("System Configuration", blocks, (_priority_list(figures), _allocations(figures)))


def _versions(figures: Figures) -> Table:
    return Table(
        "Versions in force in the month",
        (
            Column("Version", "text", "version"),
            Column("In force from (UTC)", "moment", "from"),
            Column("Hosts", "count", "hosts"),
            Column("Last host after", "duration", "last_host_after_s"),
            Column("Digest of the allocations", "text", "allocations_digest"),
        ),
        [
            (
                version.version,
                utc(version.from_ms),
                len(version.hosts),
                version.spread_ms / 1000,
                str(version.description.get("allocations_digest") or "–"),
            )
            for version in figures.versions
        ],
        "csv/versions.csv",
    )


def _setting_changes(figures: Figures) -> Table:
    return Table(
        "Settings that changed",
        (
            Column("In force from (UTC)", "moment", "from"),
            Column("Setting", "text", "setting"),
            Column("Before", "text", "before"),
            Column("After", "text", "after"),
        ),
        [
            (
                utc(change.at_ms),
                SETTING.get(change.setting, (change.setting, ""))[0],
                change.before,
                change.after,
            )
            for change in figures.setting_changes
        ],
        "csv/setting-changes.csv",
    )


def _priority_list(figures: Figures) -> Section:
    listed = priority_list(figures.in_force)
    srvs = [str(srv) for srv in listed.get("expanded") or ()]
    counts = {srv.srv: srv.counts for srv in figures.srvs}
    version = str(listed.get("version") or "") or "without a version"
    known = [
        f"approved by {listed['approved_by']}" if listed.get("approved_by") else "no approval recorded",
        f"effective from {listed['effective_from']}" if listed.get("effective_from") else "",
        f"source: {listed['source']}" if listed.get("source") else "",
    ]
    changes = figures.list_changes
    said = f"changed {times(len(changes))} in the month" if changes else "did not change in the month"
    blocks: list[Block] = [
        Text(
            f"The priority list {said}. In force at its end: version {version}, "
            f"{many(len(srvs), 'SRV')}, {'; '.join(each for each in known if each)}."
        ),
        Text(
            f"Priority traffic made up {part(figures.load.priority_share, 1)} of the load admitted. It is never "
            "throttled."
        ),
    ]
    if changes:
        blocks.append(
            Table(
                "Changes of the priority list",
                (
                    Column("In force from (UTC)", "moment", "from"),
                    Column("Version", "text", "version"),
                    Column("Approved by", "text", "approved_by"),
                    Column("Added", "text", "added"),
                    Column("Removed", "text", "removed"),
                ),
                [
                    (
                        utc(change.at_ms),
                        change.version or "–",
                        change.approved_by or "–",
                        ", ".join(change.added) or "–",
                        ", ".join(change.removed) or "–",
                    )
                    for change in changes
                ],
                "csv/priority-list-changes.csv",
            )
        )
    blocks.append(
        Table(
            "SRVs on the priority list at the month's end",
            (
                Column("SRV", "text", "srv"),
                Column("Name", "text", "name"),
                Column("Service Requests", "count", "offered"),
            ),
            [(srv, srv_name(srv), counts[srv].offered if srv in counts else 0) for srv in srvs],
            "csv/priority-list.csv",
            "the list is empty.",
        )
    )
    return Section("Priority list", blocks)


def _allocations(figures: Figures) -> Section:
    allocations = allocations_in(figures.in_force)
    total = sum(allocations.values()) + float(figures.in_force.get("unknown_allocation") or 0)
    threshold = figures.operating_threshold or 0
    changes = figures.allocation_changes
    users = len({change.user for change in changes})
    said = f"Allocations of {many(users, 'User')} changed." if changes else "No allocation changed."
    blocks: list[Block] = [
        Text(
            f"{said} At the month's end {many(len(allocations), 'User')} had an allocation; all allocations add up "
            f"to {pace(total)}, {part(total, threshold)} of the operating threshold."
        )
    ]
    if changes:
        blocks.append(
            Table(
                "Changes of allocations (units per second; – : no User then)",
                (
                    Column("User", "text", "user"),
                    Column("In force from (UTC)", "moment", "from"),
                    Column("Before", "rate", "before"),
                    Column("After", "rate", "after"),
                    Column("Change", "change", "change"),
                ),
                [(c.user, utc(c.at_ms), c.before, c.after, c.change) for c in changes],
                "csv/allocation-changes.csv",
            )
        )
    return Section("Allocations", blocks)


def capacity_section(figures: Figures) -> Section:
    """Return the section System Capacity."""
    load, threshold = figures.load, figures.operating_threshold
    capacity = figures.in_force.get("system_capacity")
    if threshold:
        head = (
            f"The System used {part(load.mean_admitted, threshold)} of the operating threshold on average; "
            f"its busiest minute reached {part(load.highest_admitted, threshold)}, on "
            f"{moment(load.highest_admitted_at)} UTC."
        )
        if load.highest_offered > load.highest_admitted:
            head += (
                f" The highest load offered, {pace(load.highest_offered)}, was "
                f"{part(load.highest_offered, threshold)} of it."
            )
    else:
        head = f"The busiest minute had {pace(load.highest_admitted)} admitted."
    blocks: list[Block] = [Text(head, strong=True)]
    if capacity:
        blocks.append(
            Text(
                f"Operating threshold {pace(threshold or 0)}, system capacity {pace(float(capacity))}. One unit is "
                + (
                    "one Service Request."
                    if load.units_equal_requests
                    else "the cost of one Service Request of cost 1."
                )
                + (
                    f" While the Mechanism was active, the busiest second had {load.highest_second_offered:,} Service "
                    f"Requests offered; the most admitted in one second was {load.highest_second_admitted:,}."
                    if load.highest_second_offered is not None
                    else ""
                )
            )
        )
    blocks += [_load_figure(figures), _hour_figure(figures)]
    return Section("System Capacity", blocks, (_activations_section(figures),))


def _load_figure(figures: Figures) -> Figure:
    load, month = figures.load, figures.month
    threshold, capacity = figures.operating_threshold, figures.in_force.get("system_capacity")
    above = load.minutes_offered_above
    finding = (
        f"The offered load was above the operating threshold in {many(above, 'minute')} of the month"
        if above
        else "The offered load stayed below the operating threshold in every minute of the month"
        if threshold
        else f"The load was highest on {moment(load.highest_offered_at)} UTC"
    )
    levels = [Level("operating threshold", threshold)] if threshold else []
    if capacity:
        levels.append(Level("system capacity", float(capacity), "2 3"))
    start = month.start_ms
    bands = [
        ((max(e.began_ms, start) - start) / 3.6e6, (min(e.until_ms, month.end_ms) - start) / 3.6e6)
        for e in figures.events
    ]
    lines = (
        Line(
            "offered", [(hour + 0.5, pair[0]) for hour, pair in enumerate(load.hourly)], VERMILION, "5 2", 1.6
        ),
        Line("admitted", [(hour + 0.5, pair[1]) for hour, pair in enumerate(load.hourly)], BLUE, "", 2.2),
    )
    ticks = [(day * 24.0, f"{day + 1} {month.first:%b}") for day in range(0, month.days, 7)]
    description = (
        f"Load in the busiest minute of each hour, offered and admitted. Highest offered "
        f"{pace(load.highest_offered)}, highest admitted {pace(load.highest_admitted)}."
    )
    days = Table(
        "Load by day (units per second; the busiest minute of the day)",
        (
            Column("Day (UTC)", "day", "day"),
            Column("Service Requests offered", "count", "offered"),
            Column("Throttled", "count", "throttled"),
            Column("Mean offered", "rate", "mean_offered_per_s"),
            Column("Busiest minute offered", "rate", "busiest_minute_offered_per_s"),
            Column("Busiest minute admitted", "rate", "busiest_minute_admitted_per_s"),
            Column("Active", "duration", "active_s"),
        ),
        [
            (
                day.day,
                day.counts.offered,
                day.counts.throttled,
                day.mean_offered,
                day.highest_offered,
                day.highest_admitted,
                day.active_s,
            )
            for day in figures.days
        ],
        "csv/load-by-day.csv",
    )
    return Figure(
        finding,
        lambda width: line_chart(
            finding + ".",
            description,
            lines,
            ticks,
            until=month.days * 24.0,
            unit="units per second",
            levels=levels,
            bands=bands,
            band_name="Mechanism active",
            width=width,
        ),
        days,
        "Each point is the busiest minute of an hour. Times are UTC.",
        "csv/load-by-hour.csv",
    )


def hourly_table(figures: Figures) -> Table:
    """Return the finest figures of the load chart: every hour of the month."""
    start = figures.month.start_ms
    return Table(
        "Load by hour",
        (
            Column("Hour (UTC)", "moment", "hour"),
            Column("Busiest minute offered", "rate", "busiest_minute_offered_per_s"),
            Column("Busiest minute admitted", "rate", "busiest_minute_admitted_per_s"),
        ),
        [(utc(start + hour * 3_600_000), *pair) for hour, pair in enumerate(figures.load.hourly)],
        "csv/load-by-hour.csv",
    )


def _hour_figure(figures: Figures) -> Figure:
    hours = figures.hours
    busiest = max(hours, key=lambda hour: (hour.mean_offered, -hour.hour))
    quietest = min(hours, key=lambda hour: (hour.mean_offered, hour.hour))
    finding = f"The busiest hour of the day was {busiest.hour:02d}:00 to {busiest.hour + 1:02d}:00 UTC"
    if quietest.mean_offered:
        finding += f", {busiest.mean_offered / quietest.mean_offered:.1f} times the quietest"
    table = Table(
        "Load by hour of the day, all days together (units per second)",
        (
            Column("Hour (UTC)", "text", "hour"),
            Column("Mean offered", "rate", "mean_offered_per_s"),
            Column("Busiest minute offered", "rate", "busiest_minute_offered_per_s"),
            Column("Active", "duration", "active_s"),
        ),
        [(f"{each.hour:02d}:00", each.mean_offered, each.highest_offered, each.active_s) for each in hours],
        "csv/load-by-hour-of-day.csv",
    )
    return Figure(
        finding,
        lambda width: bar_chart(
            finding + ".",
            f"Mean offered load by hour of the day; highest {pace(busiest.mean_offered)}, lowest "
            f"{pace(quietest.mean_offered)}.",
            (Bars("mean offered load", [each.mean_offered for each in hours]),),
            [f"{each.hour:02d}" for each in hours],
            unit="units per second offered, mean",
            width=width,
            label_every=2,
        ),
        table,
    )


def _activations_section(figures: Figures) -> Section:
    """Return how often the Mechanism was active, for how long, when and why."""
    events, month = figures.events, figures.month
    heading = "Frequency and duration of activations"
    if not events:
        none = "There were no traffic management events: the Mechanism was never active."
        return Section(heading, (Text(none),))
    lengths = sorted(event.duration_s for event in events if event.began_in(month))
    said = []
    if lengths:
        said.append(
            f"The Mechanism became active {times(len(lengths))}, for {duration(lengths[0])}"
            if len(lengths) == 1
            else f"The Mechanism became active {times(len(lengths))}: between {duration(lengths[0])} and "
            f"{duration(lengths[-1])}, half of them no longer than {duration(median(lengths))}"
        )
        if len(lengths) > 1:
            said[-1] += f"; once in {duration(month.seconds / len(lengths))} on average"
        said[-1] += "."
    said.append(
        f"It was active for {duration(figures.active_s)} of the month, {part(figures.active_s, month.seconds)}."
    )
    for event in events:
        before, after = event.began_ms < month.start_ms, event.until_ms > month.end_ms
        if before or after:
            said.append(
                f"Event {event.number} reaches into the month {'before' if before else 'after'}: "
                f"{duration(event.seconds_in(month))} of its {duration(event.duration_s)} are in {month.name}. "
                f"It is counted {'there' if before else 'here only'}."
            )
    if figures.quality.open_events:
        numbers = joined([str(number) for number in figures.quality.open_events])
        said.append(f"The logs hold no end of event {numbers}: it is shown until its host was last heard of.")
    labels = [str(day + 1) for day in range(month.days)]
    finding = _when(figures)
    blocks: list[Block] = [Text(" ".join(said), strong=False)]
    blocks.append(
        Figure(
            finding,
            lambda width: day_chart(
                finding + ".",
                f"Days of {month.name} from left to right, hours of the day (UTC) downwards; "
                f"{many(len(events), 'event')}.",
                _spans(figures),
                labels,
                width=width,
            ),
            _event_table(figures),
            "Each bar is a time in which the Mechanism was active; the shortest are drawn longer than they were.",
            opened=True,
        )
    )
    if any(event.users_over for event in events):
        blocks.append(_why_table(figures))
    return Section(heading, blocks)


def _when(figures: Figures) -> str:
    days = {utc(event.began_ms).date() for event in figures.events}
    hours = Counter(utc(event.began_ms).hour for event in figures.events)
    top = max(range(24), key=lambda hour: (hours[hour], -hour))
    if len(figures.events) > 1 and hours[top] > len(figures.events) / 2:
        return f"{hours[top]} of {len(figures.events)} events began between {top:02d}:00 and {top + 1:02d}:00 UTC"
    return f"{many(len(figures.events), 'event')} began on {many(len(days), 'day')}"


def _spans(figures: Figures) -> list[Span]:
    month, spans = figures.month, []
    for event in figures.events:
        begin = max(event.began_ms, month.start_ms) - month.start_ms
        end = min(event.until_ms, month.end_ms) - month.start_ms
        # One bar for each day it touches.
        while begin < end:
            day = begin // 86_400_000
            stop = min(end, (day + 1) * 86_400_000)
            spans.append(Span(day, (begin % 86_400_000) / 3.6e6, (stop - day * 86_400_000) / 3.6e6))
            begin = stop
    return spans


def _event_table(figures: Figures) -> Table:
    return Table(
        "Traffic management events",
        (
            Column("Event", "count", "event"),
            Column("Began (UTC)", "moment", "began"),
            Column("Ended (UTC)", "moment", "ended"),
            Column("Lasted", "duration", "duration_s"),
            Column("Of it in this month", "duration", "in_month_s"),
            Column("Throttled", "count", "throttled"),
            Column("Users throttled", "count", "users_throttled"),
            Column("Highest load offered on a host", "rate", "offered_max_per_s"),
            Column("Hosts", "count", "hosts"),
        ),
        [
            (
                event.number, utc(event.began_ms), None if event.open else utc(event.until_ms), event.duration_s,
                event.seconds_in(figures.month), event.throttled, event.users_throttled, event.offered_max,
                len(event.hosts),
            )
            for event in figures.events
        ],
        "csv/events.csv",
    )  # fmt: skip


def _why_table(figures: Figures) -> Table:
    return Table(
        "Users above their allocation when an event began",
        (
            Column("Event", "count", "event"),
            Column("User", "text", "user"),
            Column("Allocation", "rate", "allocation_per_s"),
            Column("Throttled in the event", "count", "throttled"),
            Column("Time with throttling", "duration", "throttled_s"),
        ),
        [
            (event.number, user.user, user.allocation, user.counts[0], user.seconds)
            for event in figures.events
            for user in sorted(event.users, key=lambda user: (-user.counts[0], user.user))
            if user.over
        ],
        "csv/event-users.csv",
    )
