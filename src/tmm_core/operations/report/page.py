"""The monthly report as a page: its sections, in order, and the tables that go beside it as CSV."""

from __future__ import annotations

from tmm_core.operations.page import Block, Bullets, Column, Figure, Page, Section, Table, Terms, Text
from tmm_core.operations.report.candidates import candidates_section
from tmm_core.operations.report.figures import Figures
from tmm_core.operations.report.record import utc
from tmm_core.operations.report.summary import data_gaps, summary_section
from tmm_core.operations.report.system import capacity_section, configuration_section, hourly_table
from tmm_core.operations.report.users import srv_table, trends_section, users_section
from tmm_core.operations.report.words import FAULT, GLOSSARY, LOSS, joined, many
from tmm_core.operations.terminal import duration

__all__ = ["report_page", "tables_of"]


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
            summary_section(figures),
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


def _quality_section(figures: Figures) -> Section:
    quality = figures.quality
    if quality.is_complete:
        head = (
            f"The data is complete: the logs of {many(len(quality.hosts), 'host')} cover the whole month, nothing is "
            "known to be lost, and every event has an end."
        )
    else:
        head = f"The data is not complete: {data_gaps(figures)}."
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
