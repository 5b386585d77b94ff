"""The monthly report as a page: its sections, in order, and the tables that go beside it as CSV.

The first section is here (the answer, the few figures to see first, what deserves attention), and the last (how far
the data can be trusted).
"""

from __future__ import annotations

from collections.abc import Iterator

from tmm_core.operations.page import (
    Block,
    Bullets,
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
from tmm_core.operations.report.figures import Figures
from tmm_core.operations.report.record import utc
from tmm_core.operations.report.system import capacity_section, configuration_section, hourly_table
from tmm_core.operations.report.users import candidates_section, srv_table, trends_section, users_section
from tmm_core.operations.report.words import (
    FAULT,
    GLOSSARY,
    LOSS,
    SETTING,
    joined,
    many,
    moment,
    pace,
    part,
    times,
)
from tmm_core.operations.terminal import duration

#: An event this long is worth a look.
_LONG_S = 3600


def report_page(figures: Figures) -> Page:
    """Return the report: Summary, System Configuration, System Capacity, Users, Trends, and how to read it."""
    month = figures.month
    return Page(
        title=f"Traffic Management Report, {month.name}",
        lead="How the Traffic Management Mechanism (SECMP0067) treated Service Requests to the DCC System.",
        facts=(
            ("Month", f"{month.name}, {month.days} days, all times UTC"),
            (
                "Due",
                f"{figures.due:%A} {figures.due.day} {figures.due:%B %Y}, the 10th Working Day after the month's end",
            ),
            ("For", "the SEC Panel or its Sub-Committee (Operations Group)"),
            ("Logs of", joined(figures.hosts, 6) or "no host"),
            (
                "Users",
                "under pseudonyms; size and timing may still tell who is who"
                if figures.anonymised
                else "by name",
            ),
        ),
        sections=(
            _summary_section(figures),
            configuration_section(figures),
            capacity_section(figures),
            users_section(figures),
            *([candidates_section(figures.candidates)] if figures.candidates else []),
            trends_section(figures),
            _quality_section(figures),
            Section("Glossary", (Terms(GLOSSARY),)),
        ),
        foot="Made by tmm-core from the event logs of the hosts named above. The same logs give the same report.",
    )


def tables_of(page: Page, figures: Figures) -> dict[str, Table]:
    """Return every table that is written as CSV, by its path: those of the page, and finer ones."""
    found: dict[str, Table] = {}
    sections = [*page.sections, *[part for section in page.sections for part in section.parts]]
    for block in (block for section in sections for block in section.blocks):
        table = block.table if isinstance(block, Figure) else block
        if isinstance(table, Table) and table.csv:
            found[table.csv] = table
    for table in (hourly_table(figures), srv_table(figures)):
        found[table.csv] = table
    return dict(sorted(found.items()))


def _summary_section(figures: Figures) -> Section:
    """Return the section Summary."""
    points = list(attention(figures))
    blocks: list[Block] = [Text(answer(figures), strong=True), Tiles(tuple(_tiles(figures)))]
    if points:
        return Section("Summary", blocks, (Section("What deserves attention", (Bullets(points),)),))
    return Section("Summary", [*blocks, Text("Nothing in the month's figures calls for attention.")])


def answer(figures: Figures) -> str:
    """Return the month in two sentences."""
    counts, name = figures.counts, figures.month.name
    if not figures.active_s and not figures.began:
        return (
            f"The Mechanism was never active in {name}: all {counts.offered:,} Service Requests were admitted."
            if not counts.throttled
            else f"No activation is logged in {name}, but {counts.throttled:,} throttled Service Requests are: see "
            "the data quality."
        )
    carried = sum(not event.began_in(figures.month) for event in figures.events)
    often = f"active {times(figures.began)}" if figures.began else "active from the month before"
    also = " (and from the month before)" if carried and figures.began else ""
    observed = all(event.observed for event in figures.events)
    verb = "would have throttled" if observed else "throttled"
    throttled = len([user for user in figures.users_throttled if not user.is_unknown])
    first = f"The Mechanism was {often}{also} in {name}, for {duration(figures.active_s)} in all."
    if not counts.throttled:
        return f"{first} It {verb} nothing: spare capacity was enough for every User."
    if throttled:
        whom = f"from {throttled:,} of {many(_named(figures), 'User')}"
    else:
        whom = "from unknown Users only"
    return (
        f"{first} It {verb} {counts.throttled:,} of {counts.offered:,} Service Requests "
        f"({part(counts.throttled, counts.offered)}), {whom}."
    )


def _named(figures: Figures) -> int:
    return sum(not user.is_unknown for user in figures.users)


def _tiles(figures: Figures) -> Iterator[Tile]:
    counts, load, threshold = figures.counts, figures.load, figures.operating_threshold
    yield Tile(f"{counts.offered:,}", "Service Requests offered", f"{pace(load.mean_offered)} on average")
    yield Tile(
        f"{counts.admitted:,}", "admitted", f"{part(counts.admitted, counts.offered)} of those offered"
    )
    yield Tile(
        f"{counts.throttled:,}", "throttled", f"{part(counts.throttled, counts.offered)} of those offered"
    )
    yield Tile(f"{figures.began:,}", "activations", "traffic management events begun")
    yield Tile(
        duration(figures.active_s),
        "active in all",
        f"{part(figures.active_s, figures.month.seconds)} of the month",
    )
    throttled = sum(not user.is_unknown for user in figures.users_throttled)
    yield Tile(f"{throttled:,}", "Users throttled", f"of {_named(figures):,}")
    of_threshold = (
        f"{part(load.highest_admitted, threshold)} of the operating threshold"
        if threshold
        else "units per second"
    )
    yield Tile(f"{shown(load.highest_admitted, 'rate')}/s", "busiest minute admitted", of_threshold)
    yield Tile(part(figures.quality.coverage, 1), "of the month logged", _hosts_logged(figures))


def _hosts_logged(figures: Figures) -> str:
    expected = len(figures.hosts) + len(figures.quality.missing_hosts)
    given = f"{len(figures.hosts):,} of " if figures.quality.missing_hosts else ""
    return f"on {given}{many(expected, 'host')}"


def attention(figures: Figures) -> Iterator[str]:
    """Yield what a reader should look at, the most important first."""
    quality, month = figures.quality, figures.month
    if any(event.observed for event in figures.events):
        yield (
            "The Mechanism only observed (mode observe) in some events: what is called throttled there was admitted."
        )
    if not quality.is_complete:
        yield f"The data has gaps: {_data_gaps(figures)}. The figures here are a lower bound."
    fail_open = sum(fault.count for fault in quality.faults if fault.kind == "fail-open")
    if fail_open:
        yield f"The Mechanism was bypassed {times(fail_open)}: {FAULT['fail-open']} (faults)."
    for event in figures.events:
        if event.duration_s >= _LONG_S:
            yield (
                f"Event {event.number} lasted {duration(event.duration_s)}, from {moment(utc(event.began_ms))} UTC."
            )
    top = [user for user in figures.users_throttled if not user.is_unknown][:1]
    for user in top:
        share = user.counts.throttled / figures.counts.throttled
        if share >= 0.5:
            yield (
                f"{user.user} had {part(share, 1)} of all throttled Service Requests; "
                f"{part(user.counts.throttled, user.counts.offered)} of its own were throttled."
            )
    load, threshold = figures.load, figures.operating_threshold
    if load.minutes_offered_above:
        yield (
            f"The offered load was above the operating threshold in {many(load.minutes_offered_above, 'minute')}."
        )
    if threshold and load.highest_admitted > threshold:
        yield (
            f"The load admitted in the busiest minute, {pace(load.highest_admitted)}, was above the operating "
            f"threshold of {pace(threshold)}."
        )
    for excess in figures.priority_above_plan[:3]:
        who = excess.user or "All Users together"
        yield (
            f"{who} sent more priority traffic than planned for {duration(excess.seconds)}: up to "
            f"{pace(excess.highest)} against {pace(excess.plan)}. Priority traffic is never throttled."
        )
    if figures.list_changes:
        yield f"The priority list changed {times(len(figures.list_changes))}."
    if figures.setting_changes:
        names = [
            SETTING.get(name, (name, ""))[0] for name in sorted({c.setting for c in figures.setting_changes})
        ]
        yield f"Settings changed: {joined([name.lower() for name in names])}."
    large = [c for c in figures.allocation_changes if c.change is not None and abs(c.change) >= 0.5]
    if large:
        users = list(dict.fromkeys(change.user for change in large))
        yield f"The allocation of {joined(users)} changed by half or more."
    over = [user for user in figures.users if (user.against_forecast or 0) > 0.1]
    if over:
        yield (
            f"{many(len(over), 'User')} sent over 10 % more Service Requests than forecast: "
            f"{joined([user.user for user in over])}."
        )
    if len(figures.trends) > 1 and figures.trends[-2].month == str(month.before(1)):
        before = figures.trends[-2].counts.offered
        if before and abs(figures.counts.offered / before - 1) >= 0.1:
            change = shown(figures.counts.offered / before - 1, "change")
            yield f"Service Requests offered changed by {change} against the month before."
    if figures.notices.get("given-up"):
        yield f"{many(figures.notices['given-up'], 'message')} to Users could not be delivered."


def _data_gaps(figures: Figures) -> str:
    """Return what is missing of the data, in a clause."""
    quality = figures.quality
    found = []
    if quality.missing_hosts:
        found.append(f"no log of {joined(quality.missing_hosts)}")
    if quality.gaps:
        found.append(f"{duration(sum(gap.seconds for gap in quality.gaps))} not logged")
    if quality.losses:
        found.append(f"{many(quality.lost_records, 'record')} lost")
    commits = sum(host.missing_commits for host in quality.hosts)
    if commits:
        found.append(f"{many(commits, 'numbered entry', 'numbered entries')} of the log missing")
    if quality.open_events:
        found.append(f"{many(len(quality.open_events), 'event')} without an end")
    if quality.disagreements:
        found.append("figures that do not agree")
    return joined(found, len(found))


def _quality_section(figures: Figures) -> Section:
    quality = figures.quality
    if quality.is_complete:
        head = (
            f"The data is complete: the logs of {many(len(quality.hosts), 'host')} cover the whole month, nothing is "
            "known to be lost, and every event has an end."
        )
    else:
        head = f"The data is not complete: {_data_gaps(figures)}."
    blocks: list[Block] = [Text(head, strong=True)]
    points = [f"{each}." for each in quality.disagreements]
    points += [
        f"{host}: a log was expected, and none of the month was given." for host in quality.missing_hosts
    ]
    points += [
        f"Version {version} came into force on the last host {duration(seconds)} after the first."
        for version, seconds in quality.late_hosts
    ]
    inexact = [str(event.number) for event in figures.events if not event.exact and not event.open]
    if inexact:
        points.append(f"Begin or end of event {joined(inexact)} is known to about a second only.")
    open_events = [str(number) for number in quality.open_events]
    if open_events:
        points.append(
            f"Event {joined(open_events)} has no end in the logs: it was still going on when its host was last heard "
            "of, or its end was lost."
        )
    if sent := sum(figures.notices.values()):
        points.append(
            f"{many(sent, 'message')} told Users of throttling and of its end; "
            f"{figures.notices.get('given-up', 0):,} could not be delivered."
        )
    if points:
        blocks.append(Bullets(points))
    blocks.append(_hosts(figures))
    if quality.gaps:
        blocks.append(_gaps(figures))
    if quality.losses:
        blocks.append(_losses(figures))
    blocks.append(_faults(figures))
    return Section("Data quality", blocks, (Section("How the figures were made", (Bullets(_METHOD),)),))


_METHOD = (
    (
        "Days and months are those of UTC, so that no hour is missing or doubled when UK clocks change. In summer UK "
        "clocks are one hour ahead of the times here."
    ),
    (
        "Each Service Request is counted once, in the minute in which it was decided; attempts to send it again count "
        "as Service Requests."
    ),
    (
        "Activations of several hosts that overlap are one event. An event is counted in the month it began in; the "
        "time active is that inside the month. Durations are by clocks that cannot be set."
    ),
    (
        "Load is in units per second. The busiest minute is the mean over one clock minute of all hosts together; "
        "shorter peaks were higher."
    ),
    (
        "A User's mean allocation is weighted by the time each allocation was in force. The share of it used is what "
        "was admitted within it; priority traffic charges no allocation."
    ),
    "Counts are those of the engine: offered is the sum of priority, within allocation, spare capacity and throttled.",
)


def _hosts(figures: Figures) -> Table:
    return Table(
        "What the logs cover",
        (
            Column("Host", "text", "host"),
            Column("Files", "count", "files"),
            Column("Logged", "duration", "logged_s"),
            Column("Of the month", "share", "share"),
            Column("Gaps", "count", "gaps"),
            Column("Entries missing", "count", "missing_entries"),
        ),
        [
            *[
                (host.host, host.files, host.seconds, host.share, host.gaps, host.missing_commits)
                for host in figures.quality.hosts
            ],
            *[
                (host, 0, 0.0, 0.0, None, None)
                for host in figures.quality.missing_hosts
                if host not in {each.host for each in figures.quality.hosts}
            ],
        ],
        "csv/hosts.csv",
    )


def _gaps(figures: Figures) -> Table:
    return Table(
        "Times that were not logged",
        (
            Column("Host", "text", "host"),
            Column("From (UTC)", "moment", "from"),
            Column("To (UTC)", "moment", "to"),
            Column("Lasted", "duration", "duration_s"),
        ),
        [(gap.host, utc(gap.from_ms), utc(gap.to_ms), gap.seconds) for gap in figures.quality.gaps],
        "csv/gaps.csv",
    )


def _losses(figures: Figures) -> Table:
    return Table(
        "Records that could not be written",
        (
            Column("Host", "text", "host"),
            Column("What", "text", "what"),
            Column("Records", "count", "records"),
            Column("First (UTC)", "moment", "first"),
            Column("Last (UTC)", "moment", "last"),
        ),
        [
            (loss.host, LOSS.get(loss.what, loss.what), loss.records, utc(loss.first_ms), utc(loss.last_ms))
            for loss in figures.quality.losses
        ],
        "csv/losses.csv",
    )


def _faults(figures: Figures) -> Table:
    return Table(
        "Faults",
        (
            Column("Fault", "text", "fault"),
            Column("Host", "text", "host"),
            Column("Times", "count", "times"),
            Column("Count", "count", "count"),
            Column("First (UTC)", "moment", "first"),
            Column("Last (UTC)", "moment", "last"),
        ),
        [
            (
                f"{fault.kind}: {FAULT.get(fault.kind, 'not described')}",
                fault.host,
                fault.times,
                fault.count,
                utc(fault.first_ms),
                utc(fault.last_ms),
            )
            for fault in figures.quality.faults
        ],
        "csv/faults.csv",
        "none was logged.",
    )
