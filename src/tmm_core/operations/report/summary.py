"""The first section of the report: the answer, the few figures to see first, and what deserves attention."""

from __future__ import annotations

from collections.abc import Iterator

from tmm_core.operations.page import Block, Bullets, Section, Text, Tile, Tiles, shown
from tmm_core.operations.report.figures import Figures
from tmm_core.operations.report.record import utc
from tmm_core.operations.report.words import FAULT, SETTING, joined, many, moment, pace, part, times
from tmm_core.operations.terminal import duration

__all__ = ["answer", "summary_section"]

#: An event this long is worth a look.
_LONG_S = 3600


def summary_section(figures: Figures) -> Section:
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
    yield Tile(part(figures.quality.coverage, 1), "of the month logged", _hosts(figures))


def _hosts(figures: Figures) -> str:
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
        yield f"The data has gaps: {data_gaps(figures)}. The figures here are a lower bound."
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


def data_gaps(figures: Figures) -> str:
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
