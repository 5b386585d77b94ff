"""Frequency and duration of activations: how often the Mechanism was active, for how long, when and why."""

from __future__ import annotations

from tmm_core.operations.charts import Span, day_chart
from tmm_core.operations.page import Block, Column, Figure, Section, Table, Text
from tmm_core.operations.report.events import Event
from tmm_core.operations.report.figures import Figures
from tmm_core.operations.report.record import utc
from tmm_core.operations.report.words import joined, many, part, times
from tmm_core.operations.terminal import duration

__all__ = ["activations_section"]


def activations_section(figures: Figures) -> Section:
    """Return the part Frequency and duration of activations."""
    events, month = figures.events, figures.month
    heading = "Frequency and duration of activations"
    if not events:
        return Section(
            heading, (Text("There were no traffic management events: the Mechanism was never active."),)
        )
    lengths = sorted(event.duration_s for event in events if event.began_in(month))
    said = []
    if lengths:
        middle = (lengths[(len(lengths) - 1) // 2] + lengths[len(lengths) // 2]) / 2
        said.append(
            f"The Mechanism became active {times(len(lengths))}, for {duration(lengths[0])}"
            if len(lengths) == 1
            else f"The Mechanism became active {times(len(lengths))}: between {duration(lengths[0])} and "
            f"{duration(lengths[-1])}, half of them no longer than {duration(middle)}"
        )
        if len(lengths) > 1:
            said[-1] += f"; once in {duration(month.seconds / len(lengths))} on average"
        said[-1] += "."
    said.append(
        f"It was active for {duration(figures.active_s)} of the month, {part(figures.active_s, month.seconds)}."
    )
    shared = [event for event in events if not _inside(event, figures)]
    for event in shared:
        where = "the month before" if event.began_ms < month.start_ms else "the month after"
        counted = "It is counted there." if event.began_ms < month.start_ms else "It is counted here only."
        said.append(
            f"Event {event.number} reaches into {where}: {duration(event.seconds_in(month))} of its "
            f"{duration(event.duration_s)} are in {month.name}. {counted}"
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


def _inside(event: Event, figures: Figures) -> bool:
    return event.began_ms >= figures.month.start_ms and event.until_ms <= figures.month.end_ms


def _when(figures: Figures) -> str:
    days = sorted({utc(event.began_ms).date() for event in figures.events})
    hours = [0] * 24
    for event in figures.events:
        hours[utc(event.began_ms).hour] += 1
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
                event.number,
                utc(event.began_ms),
                None if event.open else utc(event.until_ms),
                event.duration_s,
                event.seconds_in(figures.month),
                event.throttled,
                event.users_throttled,
                event.offered_max,
                len(event.hosts),
            )
            for event in figures.events
        ],
        "csv/events.csv",
    )


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
