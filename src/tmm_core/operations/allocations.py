"""New allocations: against those of the month before, and in the words and figures of `tmm allocate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmm_core.errors import ConfigError, Mistake
from tmm_core.operations.terminal import Paint, number, paragraph, percent, plain, table, table_of_names
from tmm_core.policy.allocation import NOTICE, Allocations, Terms, UserAllocation, requests_per_day
from tmm_core.policy.allocation_files import AllocationTable, dated_files, read_allocations
from tmm_core.policy.parameters import QUANTA_PER_UNIT, SECONDS_PER_DAY
from tmm_core.policy.tables import LARGEST_TABLE, read_file
from tmm_core.policy.validation import CATEGORIES

if TYPE_CHECKING:
    from tmm_core.operations.traffic.logged_traffic import Recorded


@dataclass(frozen=True)
class Change:
    """One User's allocation before and after, units per second; None where it has none."""

    user: str
    before: Fraction | None
    after: Fraction | None

    @cached_property
    def relative(self) -> Fraction | None:
        """Change over what was before; None for a User who is new, or had nothing."""
        parts = self._parts
        return None if parts is None else Fraction(*parts)

    @cached_property
    def _parts(self) -> tuple[int, int] | None:
        """Numerator and denominator of `relative`, not in lowest terms: to find them takes longer than all else."""
        if not self.before:
            return None
        before, after = self.before.numerator, (self.after or Fraction(0)).numerator
        scale, after_scale = self.before.denominator, self.after.denominator if self.after else 1
        return after * scale - before * after_scale, before * after_scale

    @property
    def share(self) -> float | None:
        """`relative` as a float, rounded once."""
        parts = self._parts
        return None if parts is None else parts[0] / parts[1]

    def is_above(self, limit: Fraction) -> bool:
        """Tell whether it changes by more than `limit`, up or down: gone is -100 %, from nothing is without end.

        A new User has nothing to change from.
        """
        if self.before is None:
            return False
        if self._parts is None:
            return bool(self.after)
        change, of = self._parts
        return abs(change) * limit.denominator > limit.numerator * of


def file_before(output: Path) -> Path | None:
    """Return the file that is in force on the day before `output`, by the names in its folder; None if none is."""
    try:
        first = date.fromisoformat(output.stem)
        files = dated_files(output.parent, [])
    except (ValueError, OSError):
        return None
    earlier = [path for day, path in files if day < first]
    return earlier[-1] if earlier else None


def read_before(path: Path) -> AllocationTable:
    """Read the allocations file of the month before.

    Raises
    ------
    ConfigError
        All mistakes of it.
    """
    found: list[Mistake] = []
    table = read_allocations(read_file(path, LARGEST_TABLE), str(path), found)
    if found:
        raise ConfigError(found)
    return table


def changes(allocations: Allocations, before: AllocationTable) -> dict[str, Change]:
    """Return the change of every User named in either, in the order of the names."""
    old = {user: Fraction(Decimal(repr(value))) for user, value in before.allocations.items()}
    new = {entry.user: entry.allocation for entry in allocations.users}
    return {user: Change(user, old.get(user), new.get(user)) for user in sorted({*old, *new})}


_LONGEST_NAME = 24
_EIGHTHS: tuple[str, ...] = ("", *"\u258f\u258e\u258d\u258c\u258b\u258a\u2589")
_OTHER_COLUMNS = 62  # characters of the table beside the name
_CATEGORY_NAMES = {
    "large-supplier": "Large Suppliers",
    "small-supplier": "Small Suppliers",
    "electricity-network": "Electricity Networks",
    "gas-network": "Gas Networks",
    "other": "Other SEC Parties",
}


def explanation(allocations: Allocations, user: str, change: Change | None) -> list[str]:
    """Tell how one User's allocation comes about, a sentence an entry; KeyError if there is no such User."""
    entry, terms = allocations.of(user), allocations.terms(user)
    row = entry.portfolio
    threshold = allocations.parameters.operating_threshold
    electricity = row.electricity_credit + row.electricity_prepayment
    gas = row.gas_credit + row.gas_prepayment
    prepayment = row.electricity_prepayment + row.gas_prepayment
    weight = number(float(allocations.parameters.prepayment_weight))
    share = percent(float(terms.allocation), float(threshold))
    given = f"{_exactly(terms.allocation)} units per second, {share} of the operating threshold"
    said = [f"{plain(user)} ({entry.category}) is sure of {given}."]
    said.append(
        f"Its portfolio is {electricity:,} electricity and {gas:,} gas meters, {prepayment:,} of them in prepayment "
        f"mode (weight {weight}), and {row.other_devices:,} other Devices: {_few(terms.portfolio_per_day)} expected "
        "Service Requests a day."
    )
    if row.forecast is not None:
        said.append(
            f"It forecasts {row.forecast:,} for the {allocations.portfolio.days} days of {allocations.month}: "
            f"{_few(terms.forecast_per_day or Fraction(0))} a day."
        )
    if row.actual is not None:
        said.append(
            f"It sent {row.actual:,} in the {allocations.portfolio.days_of_previous_month} days before: "
            f"{_few(terms.actual_per_day or Fraction(0))} a day."
        )
    blended = [
        f"{_percent(share)} {name}"
        for share, name in zip(terms.blend, ("portfolio", "forecast", "actual"), strict=True)
        if share
    ]
    said.append(
        f"Blended ({', '.join(blended)}), {_few(terms.expected_per_day)} a day are expected; in the busy hour, "
        f"{number(float(terms.busy_hour_factor))} times the mean, that is {_few(terms.busy_hour_demand)} Service "
        "Requests per second."
    )
    said.append(_shared(allocations, terms, "guaranteed minimum" if entry.category == "other" else "minimum"))
    if change is not None:
        said.append(_changed(change))
    return [*said, NOTICE]


def _shared(allocations: Allocations, terms: Terms, minimum: str) -> str:
    level = Fraction(allocations.shared_quanta, 1000)
    above = sum(not entry.at_minimum for entry in allocations.users)
    if terms.at_minimum and not allocations.shared_weight:
        return f"No User has more demand than its minimum pays for: each gets its minimum, {_exactly(terms.minimum)}."
    if terms.at_minimum:
        worth = level * terms.busy_hour_demand * allocations.demand_scale / allocations.shared_weight
        return (
            f"Its share by demand would be {_few(worth)} units per second, not above its {minimum} of "
            f"{_exactly(terms.minimum)}: the minimum decides."
        )
    return (
        f"That is {_percent(terms.share_of_demand)} of the demand of the {above:,} Users above their minimum, who "
        f"share {_exactly(level)} units per second: {float(terms.exact):,.6f}, rounded to "
        f"{_exactly(terms.allocation)}."
    )


def _changed(change: Change) -> str:
    if change.before is None:
        return "It had no allocation in the month before."
    relative = change.relative
    told = "" if relative is None else f", a change of {float(100 * relative):+.1f} %"
    return f"In the month before it was {_exactly(change.before)}{told}."


def table_lines(
    allocations: Allocations, changed: Mapping[str, Change], limit: Fraction, width: int, paint: Paint
) -> Iterator[str]:
    """Yield the terms, share, allocation and change of each User, by category and size."""
    threshold = float(allocations.parameters.operating_threshold)
    head = ("User", "a day", "busy/s", "minimum", "allocation", "share", "change")
    longest = min(max(width - _OTHER_COLUMNS, 12), 40)
    rows: list[Sequence[str]] = []
    flagged: set[int] = set()
    by_category: dict[str, list[UserAllocation]] = {category: [] for category in CATEGORIES}
    for entry in allocations.users:
        by_category[entry.portfolio.category].append(entry)
    for category, inside in by_category.items():
        times, over = _per_weight(allocations, category).as_integer_ratio()
        scale = allocations.demand_scale
        inside.sort(key=attrgetter("quanta"), reverse=True)  # stable: those of one size stay by name
        for entry in inside:
            units, user = entry.quanta / QUANTA_PER_UNIT, entry.portfolio.user
            told = change_text(changed.get(user), limit)
            rows.append(
                (
                    plain(user, longest),
                    f"{entry.demand_weight * times / over:,.0f}",
                    f"{entry.demand_weight / scale:,.1f}",
                    f"{entry.minimum_quanta / QUANTA_PER_UNIT:,.10g}" + ("*" if entry.at_minimum else " "),
                    f"{units:,.3f}",
                    percent(units, threshold),
                    told,
                )
            )
            if told.endswith("!"):
                flagged.add(len(rows))  # the head is line 0
    for place, line in enumerate(table(head, rows, paint)):
        yield paint.red(line) if place in flagged else line
    if any(entry.at_minimum for entry in allocations.users):
        yield paint.faint("  * the minimum decides, not the demand")
    for change in changed.values():
        if change.after is None:
            yield paint.red(
                f"  gone: {plain(change.user)}, with {_exactly(change.before or Fraction(0))} before"
            )


def _per_weight(allocations: Allocations, category: str) -> Fraction:
    """Return the expected Service Requests a day for each unit of a User's `demand_weight`.

    Not by `Allocations.terms`, which has ten times what a line needs: there may be 10,000 Users.
    """
    return SECONDS_PER_DAY / (allocations.parameters.busy_hour_factor[category] * allocations.demand_scale)


def change_text(change: Change | None, limit: Fraction) -> str:
    """Return a change for a table: ``+3.2 %``, with ``!`` where it is above the limit."""
    if change is None:
        return ""
    if change.before is None:
        return "new "
    share = change.share
    if share is None:
        told = "from 0" if change.after else "0 %"
    else:
        told = f"{100 * share:+.1f} %" if share else "0 %"
    return told + ("!" if change.is_above(limit) else " ")


def chart(allocations: Allocations, width: int, paint: Paint, *, blocks: bool = True) -> Iterator[str]:
    """Yield bars: what of the operating threshold goes where, and how far the system capacity lies above it.

    Parameters
    ----------
    width : int
        Columns of the terminal.
    blocks : bool
        Whether the stream can show block characters; else ``#``.
    """
    parts, totals = shares_of(allocations)
    threshold = allocations.parameters.operating_threshold
    names = max(len(name) for name, _ in [*parts, *totals])
    figures = max(len(_exactly(value)) for _, value in [*parts, *totals])
    room = max(width - names - figures - 15, 8)
    scale = max(value for _, value in totals)
    yield paint.bold("  Units per second")
    for place, (name, value) in enumerate([*parts, *totals]):
        if place == len(parts):
            yield "  " + "-" * (names + figures + 11)
        bar = _bar(value / scale, room, blocks)
        share = percent(float(value), float(threshold))
        line = f"  {name:{names}}  {_exactly(value):>{figures}}  {share:>7}  {bar}"
        yield line.rstrip()


_Shares = list[tuple[str, Fraction]]


def shares_of(allocations: Allocations) -> tuple[_Shares, _Shares]:
    """Return what of the operating threshold goes where, and the limits it is part of; units per second."""
    parameters = allocations.parameters
    quanta: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    numbers: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    for entry in allocations.users:
        category = entry.portfolio.category
        quanta[category] += entry.quanta
        numbers[category] += 1
    threshold = parameters.operating_threshold
    kept = threshold * parameters.priority_share
    parts = [
        (f"{_CATEGORY_NAMES[category]} ({numbers[category]})", Fraction(quanta[category], QUANTA_PER_UNIT))
        for category in CATEGORIES
        if numbers[category]
    ]
    given = len(parts)
    parts.append(("kept for priority", kept))
    parts.append(("kept for unknown Users", parameters.unknown_allocation))
    parts.append(("given to nobody", threshold - allocations.total - kept - parameters.unknown_allocation))
    parts = [(name, value) for place, (name, value) in enumerate(parts) if value or place < given]
    return parts, [("operating threshold", threshold), ("system capacity", parameters.system_capacity)]


def _bar(part: Fraction, room: int, blocks: bool) -> str:
    """Return a bar to the eighth of a character; of something, never nothing."""
    least = 1 if part else 0
    if not blocks:
        return "#" * max(int(room * part), least)
    eighths = max(int(8 * room * part), least)
    return "\u2588" * (eighths // 8) + _EIGHTHS[eighths % 8]


def over_lines(recorded: Recorded, allocations: Allocations, paint: Paint) -> Iterator[str]:
    """Yield how often each User would have been over its new allocation."""
    if not recorded.users:
        yield "  No Service Requests are recorded in these event logs."
        return
    users = sorted(recorded.users, key=lambda over: (-over.minutes_over, -over.seconds_over, over.user))
    figures = [
        (
            f"{over.allocation:,.3f}",
            f"{over.highest:,.1f}",
            f"{over.minutes:,}",
            f"{over.minutes_over:,}",
            f"{over.seconds_over:,}",
            percent(over.units_over, over.units),
        )
        for over in users
    ]
    head = ("User", "allocation", "highest/s", "minutes", "over", "sec. over", "units over")
    first, last = (
        f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" for at in (recorded.first_s, recorded.last_s)
    )
    yield paint.bold(f"  Recorded traffic, {first} to {last} UTC")
    yield from table_of_names(head, [over.user for over in users], figures, paint)
    for line in paragraph(
        "minutes: with requests; over: above the allocation on average; sec. over: seconds above it, of the "
        f"{recorded.active_seconds:,} s while the Mechanism was active; units over: those above it in the minutes "
        "over. Without priority traffic."
    ):
        yield paint.faint(line)
    if recorded.without_allocation:
        names = ", ".join(plain(user, _LONGEST_NAME) for user in recorded.without_allocation[:5])
        more = len(recorded.without_allocation) - 5
        yield from paragraph(
            f"Counted as unknown, as they have no new allocation: {names}"
            + (f" and {more} more" if more > 0 else "")
        )


def figures(
    allocations: Allocations, changed: Mapping[str, Change], limit: Fraction, recorded: Recorded | None
) -> dict[str, Any]:
    """Return all figures, ready for JSON; units per second."""
    parameters = allocations.parameters
    users = []
    scale = allocations.demand_scale
    per_weight = {category: _per_weight(allocations, category) for category in CATEGORIES}
    for entry in allocations.users:
        portfolio, forecast, actual = requests_per_day(entry.portfolio, allocations.portfolio, parameters)
        per_day = per_weight[entry.category]
        change = changed.get(entry.user)
        users.append(
            {
                "user": entry.user,
                "category": entry.category,
                "user_ids": list(entry.user_ids),
                "allocation": entry.quanta / QUANTA_PER_UNIT,
                "minimum": entry.minimum_quanta / QUANTA_PER_UNIT,
                "at_minimum": entry.at_minimum,
                "portfolio_per_day": float(portfolio),
                "forecast_per_day": _float(forecast),
                "actual_per_day": _float(actual),
                "expected_per_day": entry.demand_weight * per_day.numerator / per_day.denominator,
                "busy_hour_factor": float(parameters.busy_hour_factor[entry.category]),
                "busy_hour_demand": entry.demand_weight / scale,
                "share_of_demand": 0.0
                if entry.at_minimum
                else entry.demand_weight / allocations.shared_weight,
                "before": None if change is None else _float(change.before),
                "relative_change": None if change is None else _float(change.relative),
            }
        )
    result = {
        "notice": NOTICE,
        "month": allocations.month,
        "parameters": {"version": parameters.version, "digest": parameters.digest},
        "digest": allocations.digest,
        "system_capacity": float(parameters.system_capacity),
        "operating_threshold": float(parameters.operating_threshold),
        "priority_share": float(parameters.priority_share),
        "unknown_allocation": float(parameters.unknown_allocation),
        "distributable": float(allocations.distributable),
        "total": float(allocations.total),
        "busy_hour_demand": float(allocations.busy_hour_demand),
        "users": users,
        "gone": [change.user for change in changed.values() if change.after is None],
        "above_limit": [change.user for change in changed.values() if change.is_above(limit)],
    }
    if recorded is not None:
        result["recorded"] = {
            "first_s": recorded.first_s,
            "last_s": recorded.last_s,
            "active_seconds": recorded.active_seconds,
            "without_allocation": list(recorded.without_allocation),
            "users": [
                {name: getattr(over, name) for name in over.__dataclass_fields__} for over in recorded.users
            ],
        }
    return result


def _exactly(value: Fraction) -> str:
    """Write thousandths without losing any."""
    return f"{float(value):,.3f}"


def _few(value: Fraction) -> str:
    return number(float(value))


def _percent(value: Fraction) -> str:
    return f"{float(100 * value):.4g} %"


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def allocation_chart(allocations: Allocations) -> str:
    """Draw as SVG what each category of Users has, what is kept, and the limits; the figures are the terminal's."""
    from tmm_core.operations.figures import bar_chart  # only who writes a chart pays for it

    parts, totals = shares_of(allocations)
    threshold = float(allocations.parameters.operating_threshold)
    given = percent(float(allocations.total), threshold)
    title = f"{given} of the operating threshold is allocated to {len(allocations.users)} Users"
    rows = [
        (name, float(value), f"{float(value):,.10g} ({percent(float(value), threshold)})")
        for name, value in [*parts, *totals]
    ]
    return bar_chart(
        title,
        "; ".join(f"{name}: {text}" for name, _, text in rows) + " units per second. " + NOTICE,
        rows,
        limits=len(totals),
        subtitle=f"Allocations for {allocations.month}, digest {allocations.digest}. {NOTICE}",
        unit="Units per second, and share of the operating threshold",
    )
