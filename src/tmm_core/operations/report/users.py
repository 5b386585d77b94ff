"""Users, Candidate Allocations and Trends: whose Service Requests were admitted and throttled, or would have been."""

from __future__ import annotations

from collections.abc import Sequence

from tmm_core.operations.charts import BLUE, VERMILION, Bars, bar_chart, row_chart
from tmm_core.operations.page import Block, Cell, Column, Figure, Section, Table, Text, shown
from tmm_core.operations.report.changes import CandidateFigures
from tmm_core.operations.report.figures import Counts, Figures, Trend, User
from tmm_core.operations.report.record import Month
from tmm_core.operations.report.words import CATEGORY, PARTY, many, part, srv_name
from tmm_core.operations.terminal import duration, number

_MOST_ROWS = 15
_MOST_SRVS = 15


def users_section(figures: Figures) -> Section:
    """Return the section Users."""
    named = [user for user in figures.users if not user.is_unknown]
    throttled = [user for user in named if user.counts.throttled]
    if throttled:
        head = f"{len(throttled):,} of {many(len(named), 'User')} had Service Requests throttled"
        head += (
            f": {throttled[0].user}."
            if len(throttled) == 1
            else f"; {throttled[0].user} had {part(throttled[0].counts.throttled, figures.counts.throttled)} of all "
            "that were."
        )
    else:
        head = f"None of {many(len(named), 'User')} had a Service Request throttled."
    blocks: list[Block] = [Text(head, strong=True)]
    above = [user for user in figures.users if user.counts.above_allocation]
    if above:
        blocks.append(_above_figure(figures, above))
    else:
        blocks.append(Text("No User sent more than its allocation at any time."))
    blocks += [_outcomes(figures), _allocations(figures)]
    return Section("Users", blocks, (_categories(figures), _srvs(figures)))


def _name(user: User) -> str:
    return "Unknown Users (all together)" if user.is_unknown else user.user


def _above_figure(figures: Figures, above: list[User]) -> Figure:
    above = sorted(above, key=lambda user: (-user.counts.above_allocation, user.user))
    total = sum(user.counts.above_allocation for user in above)
    spare = sum(user.counts.spare_capacity for user in above)
    finding = (
        f"Of {total:,} Service Requests above the allocations, "
        f"{part(spare, total)} were admitted from spare capacity"
    )
    shown_users = above[:_MOST_ROWS]
    table = Table(
        "Service Requests above the allocations",
        (
            Column("User", "text", "user"),
            Column("Above the allocation", "count", "above_allocation"),
            Column("Admitted from spare capacity", "count", "spare_capacity"),
            Column("Throttled", "count", "throttled"),
        ),
        [
            (_name(user), user.counts.above_allocation, user.counts.spare_capacity, user.counts.throttled)
            for user in above
        ],
        "csv/above-allocation.csv",
    )
    rest = len(above) - len(shown_users)
    note = f"The {_MOST_ROWS} Users with most; {rest:,} more are in the table." if rest else ""
    return Figure(
        finding,
        lambda width: row_chart(
            finding + ".",
            f"Lying bars for {many(len(shown_users), 'User')}: admitted from spare capacity, and throttled.",
            [
                (
                    _name(user),
                    (user.counts.spare_capacity, user.counts.throttled),
                    f"{user.counts.throttled:,} throttled" if user.counts.throttled else "none throttled",
                )
                for user in shown_users
            ],
            (("admitted from spare capacity", BLUE), ("throttled", VERMILION)),
            width=width,
        ),
        table,
        note,
    )


def _outcomes(figures: Figures) -> Table:
    counts = figures.counts
    return Table(
        "What became of each User's Service Requests",
        (
            Column("User", "text", "user"),
            Column("Offered", "count", "offered"),
            Column("Priority", "count", "priority"),
            Column("Within allocation", "count", "within_allocation"),
            Column("Spare capacity", "count", "spare_capacity"),
            Column("Throttled", "count", "throttled"),
            Column("Throttled share", "share", "throttled_share"),
            Column("Time with throttling", "duration", "throttled_s"),
            Column("Events", "count", "events"),
        ),
        [
            (
                _name(user),
                *_outcome_cells(user.counts),
                user.throttled_s,
                user.events,
            )
            for user in figures.users
        ],
        "csv/users.csv",
        total=("All", *_outcome_cells(counts), None, len(figures.events)),
    )


def _outcome_cells(counts: Counts) -> tuple[Cell, ...]:
    return (
        counts.offered,
        counts.priority,
        counts.within_allocation,
        counts.spare_capacity,
        counts.throttled,
        counts.throttled / counts.offered if counts.offered else None,
    )


def _allocations(figures: Figures) -> Table:
    columns = [
        Column("User", "text", "user"),
        Column("Category", "text", "category"),
        Column("Allocation, mean", "rate", "allocation_per_s"),
        Column("At the month's end", "rate", "allocation_at_end_per_s"),
        Column("Of it used", "share", "allocation_used"),
        Column("Busiest minute", "rate", "busiest_minute_per_s"),
        Column("Which was (UTC)", "moment", "busiest_minute"),
    ]
    if figures.has_forecast:
        columns += [
            Column("Forecast", "count", "forecast"),
            Column("Offered", "count", "offered"),
            Column("Against forecast", "change", "against_forecast"),
        ]
    rows: list[Sequence[Cell]] = []
    for user in sorted(figures.users, key=lambda user: (-user.allocation, user.user)):
        row: list[Cell] = [
            _name(user),
            "–" if user.is_unknown else PARTY.get(user.category, user.category),
            user.allocation,
            user.allocation_at_end,
            user.allocation_used,
            user.busiest_minute,
            user.busiest_at,
        ]
        if figures.has_forecast:
            row += [user.forecast, user.counts.offered, user.against_forecast]
        rows.append(row)
    forecast = " and forecast (Service Requests)" if figures.has_forecast else ""
    return Table(
        f"Each User's load against its allocation (units per second){forecast}",
        columns,
        rows,
        "csv/allocations.csv",
    )


def _categories(figures: Figures) -> Section:
    sums: dict[str, list[User]] = {name: [] for name in CATEGORY}
    for user in figures.users:
        if not user.is_unknown:
            sums.setdefault(user.category, []).append(user)
    rows = []
    for category, users in sums.items():
        if users:
            offered = sum(user.counts.offered for user in users)
            throttled = sum(user.counts.throttled for user in users)
            rows.append(
                (
                    CATEGORY.get(category, category),
                    len(users),
                    sum(user.allocation for user in users),
                    offered,
                    throttled,
                    throttled / offered if offered else None,
                )
            )
    table = Table(
        "Users by party category",
        (
            Column("Category", "text", "category"),
            Column("Users", "count", "users"),
            Column("Allocations", "rate", "allocation_per_s"),
            Column("Offered", "count", "offered"),
            Column("Throttled", "count", "throttled"),
            Column("Throttled share", "share", "throttled_share"),
        ),
        rows,
        "csv/categories.csv",
    )
    return Section("By party category", (table,))


def _srvs(figures: Figures) -> Section:
    table = srv_table(figures, most=_MOST_SRVS)
    rest = len(figures.srvs) - _MOST_SRVS
    blocks: list[Block] = [table]
    if rest > 0:
        blocks.append(Text(f"{rest:,} more SRVs are in the CSV file."))
    return Section("By SRV", blocks)


def srv_table(figures: Figures, most: int | None = None) -> Table:
    """Return Service Requests by SRV, those with most first."""
    return Table(
        "Service Requests by SRV" + (f", the {most} with most" if most and len(figures.srvs) > most else ""),
        (
            Column("SRV", "text", "srv"),
            Column("Name", "text", "name"),
            Column("Offered", "count", "offered"),
            Column("Priority", "count", "priority"),
            Column("Throttled", "count", "throttled"),
            Column("Throttled share", "share", "throttled_share"),
        ),
        [
            (
                srv.srv,
                srv_name(srv.srv),
                srv.counts.offered,
                srv.counts.priority,
                srv.counts.throttled,
                srv.counts.throttled / srv.counts.offered,
            )
            for srv in figures.srvs[:most]
        ],
        "csv/srvs.csv",
    )


def candidates_section(candidates: tuple[CandidateFigures, ...]) -> Section:
    """Return the section Candidate Allocations, of one candidate or more."""
    blocks: list[Block] = []
    for place, each in enumerate(candidates, 1):
        blocks += [Text(_candidate_finding(each), strong=True), _candidate_table(each, place)]
    blocks.append(
        Text(
            "A candidate is tried beside the allocations in force and decides nothing. What it would have throttled is "
            "the most: units over the candidate while the Mechanism was active count as throttled, though spare "
            "capacity may have been left for them. The pool of unknown Users is not tried."
        )
    )
    return Section("Candidate Allocations", blocks)


def _candidate_finding(candidate: CandidateFigures) -> str:
    begun, ended = shown(candidate.first_day), shown(candidate.last_day)
    when = f"on {begun}" if begun == ended else f"from {begun} to {ended}"
    tried = f"Candidate {candidate.version} was tried without effect {when}"
    more = sum(user.difference_units > 0 for user in candidate.users)
    fewer = sum(user.difference_units < 0 for user in candidate.users)
    if not more and not fewer:
        return f"{tried}; it would have throttled what the allocations in force did, of every User."
    return (
        f"{tried}; it could have throttled more of {many(more, 'User')}, and less of {many(fewer, 'User')}."
    )


def _candidate_table(candidate: CandidateFigures, place: int) -> Table:
    return Table(
        f"Units throttled by the allocations in force, and at most by candidate {candidate.version}",
        (
            Column("User", "text", "user"),
            Column("In force", "rate", "allocation_per_s"),
            Column("Candidate", "rate", "candidate_per_s"),
            Column("Offered", "count", "offered_units"),
            Column("Throttled", "count", "throttled_units"),
            Column("By the candidate, at most", "count", "candidate_throttled_units"),
            Column("Difference", "count", "difference_units"),
            Column("Over it only", "count", "over_units"),
            Column("Inside it only", "count", "within_units"),
        ),
        [
            (
                user.user, user.allocation, user.candidate, user.offered_units, user.throttled_units,
                user.candidate_throttled_units, user.difference_units, user.over_units, user.within_units,
            )
            for user in candidate.users
        ],
        f"csv/candidate-{place}.csv",
    )  # fmt: skip


def trends_section(figures: Figures) -> Section:
    """Return the section Trends."""
    trends = figures.trends
    blocks: list[Block] = []
    if len(trends) == 1:
        blocks.append(
            Text(
                f"{figures.month.name} is the only month in the logs given: months are compared as soon as there are "
                "earlier ones.",
                strong=True,
            )
        )
    else:
        blocks.append(Text(_comparison(figures), strong=True))
        blocks += _month_figures(figures)
    blocks.append(_day_figure(figures))
    return Section("Trends", blocks)


def _comparison(figures: Figures) -> str:
    before, now = figures.trends[-2], figures.trends[-1]
    change = _change(now.mean_offered, before.mean_offered)
    return (
        f"Against {Month.parse(before.month).name}, the load offered changed by {change}; the Mechanism was active "
        f"{duration(now.active_s)} instead of {duration(before.active_s)}, and throttled {now.counts.throttled:,} "
        f"Service Requests instead of {before.counts.throttled:,}."
    )


def _against(now: float, mean: float) -> str:
    ratio = now / mean
    return f"{ratio:.1f} times" if ratio >= 2 else f"{100 * (ratio - 1):.1f} % above"


def _change(now: float, before: float) -> str:
    return shown(now / before - 1, "change") if before else "all of it"


def _month_figures(figures: Figures) -> list[Block]:
    trends = figures.trends
    labels = [trend.month for trend in trends]
    table = Table(
        "Month by month",
        (
            Column("Month", "text", "month"),
            Column("Service Requests offered", "count", "offered"),
            Column("Mean per second", "rate", "mean_offered_per_s"),
            Column("Busiest day", "count", "busiest_day"),
            Column("Throttled", "count", "throttled"),
            Column("Users throttled", "count", "users_throttled"),
            Column("Activations", "count", "activations"),
            Column("Active", "duration", "active_s"),
        ),
        [
            (
                trend.month,
                trend.counts.offered,
                trend.mean_offered,
                trend.busiest_day,
                trend.counts.throttled,
                trend.users_throttled,
                trend.activations,
                trend.active_s,
            )
            for trend in trends
        ],
        "csv/trends.csv",
    )

    def chart(name: str, finding: str, unit: str, values: list[float], colour: str, column: int) -> Figure:
        return Figure(
            finding,
            lambda width: bar_chart(
                finding + ".",
                f"{name} in each of {len(trends)} months; {labels[-1]}: {number(round(values[-1], 1))}.",
                (Bars(name, values, colour),),
                labels,
                unit=unit,
                width=width,
            ),
            Table(
                f"{name} by month",
                (table.columns[0], table.columns[column]),
                [(row[0], row[column]) for row in table.rows],
            ),
        )

    return [
        chart(
            "Mean load offered",
            _rank("The load offered", trends, [trend.mean_offered for trend in trends]),
            "Service Requests per second, mean of the month",
            [trend.mean_offered for trend in trends],
            BLUE,
            2,
        ),
        chart(
            "Time active",
            _rank("The time active", trends, [trend.active_s for trend in trends]),
            "minutes active in the month",
            [trend.active_s / 60 for trend in trends],
            VERMILION,
            7,
        ),
        table,
    ]


def _rank(what: str, trends: Sequence[Trend], values: Sequence[float]) -> str:
    months = len(trends)
    if not any(values):
        return f"{what} was nil in all {months} months"
    if values[-1] == max(values) and list(values).count(values[-1]) == 1:
        return f"{what} was the highest of {months} months"
    if values[-1] == min(values) and list(values).count(values[-1]) == 1:
        return f"{what} was the lowest of {months} months"
    top = trends[max(range(months), key=lambda place: values[place])].month
    return f"{what} was highest in {top}, of {months} months"


def _day_figure(figures: Figures) -> Figure:
    days = figures.days
    busiest = max(days, key=lambda day: (day.counts.offered, -day.day.toordinal()))
    mean = figures.counts.offered / len(days)
    finding = (
        f"The busiest day was {shown(busiest.day)}, {_against(busiest.counts.offered, mean)} the mean day"
        if mean
        else "Nothing was offered on any day"
    )
    table = Table(
        "Service Requests by day",
        (
            Column("Day (UTC)", "day", "day"),
            Column("Admitted", "count", "admitted"),
            Column("Throttled", "count", "throttled"),
            Column("Priority", "count", "priority"),
        ),
        [(day.day, day.counts.admitted, day.counts.throttled, day.counts.priority) for day in days],
        "csv/requests-by-day.csv",
    )
    return Figure(
        finding,
        lambda width: bar_chart(
            finding + ".",
            f"Service Requests of each day, admitted and throttled; busiest day {busiest.counts.offered:,}.",
            (
                Bars("admitted", [day.counts.admitted for day in days], BLUE),
                Bars("throttled", [day.counts.throttled for day in days], VERMILION),
            ),
            [str(day.day.day) for day in days],
            unit="Service Requests per day",
            width=width,
            label_every=2,
        ),
        table,
    )
