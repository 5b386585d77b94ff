"""What was configured in a month, what changed (settings, allocations, the priority list), and what was only tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

from tmm_core.operations.report.record import (
    Applied,
    Month,
    Record,
    allocations_in,
    candidate_rates,
    priority_list,
    utc,
)

_RATES = ("system_capacity", "operating_threshold", "release_threshold", "unknown_allocation")


@dataclass(frozen=True, slots=True)
class Version:
    """A configuration that was in force on the System.

    Attributes
    ----------
    from_ms : int
        When the first host put it in force.
    spread_ms : int
        How much later the last one did.
    before_month : bool
        It was in force already when the month began.
    """

    version: str
    from_ms: int
    spread_ms: int
    hosts: tuple[str, ...]
    before_month: bool
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting before and after, as text."""

    at_ms: int
    setting: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class AllocationChange:
    """An allocation before and after, units per second; None: not a User."""

    at_ms: int
    user: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """As a fraction of what it was; None where that says nothing."""
        return self.after / self.before - 1 if self.before and self.after is not None else None


@dataclass(frozen=True, slots=True)
class ListChange:
    """A change of the Priority Service Request List."""

    at_ms: int
    version: str
    effective_from: str
    approved_by: str
    source: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


def versions_of(configurations: Sequence[Applied], month: Month) -> tuple[Version, ...]:
    """Return the versions in the order in which they came into force, the hosts' own steps joined."""
    steps: list[list[Applied]] = []
    for each in sorted(configurations, key=lambda each: (each.from_ms, each.host, each.version)):
        if steps and steps[-1][0].version == each.version:
            # Once more on one host: candidate allocations have changed, which decide nothing.
            if all(each.host != other.host for other in steps[-1]):
                steps[-1].append(each)
        else:
            steps.append([each])
    return tuple(
        Version(
            step[0].version,
            step[0].from_ms,
            step[-1].from_ms - step[0].from_ms,
            tuple(sorted({each.host for each in step})),
            step[0].from_ms <= month.start_ms,
            step[0].description,
        )
        for step in steps
    )


def setting_changes(versions: Sequence[Version]) -> tuple[SettingChange, ...]:
    """Return what changed but allocations and the priority list."""
    return tuple(
        SettingChange(after.from_ms, name, setting_text(olds.get(name)), setting_text(news.get(name)))
        for before, after in pairwise(versions)
        for olds, news in ((_settings(before.description), _settings(after.description)),)
        for name in sorted(olds.keys() | news.keys())
        if olds.get(name) != news.get(name)
    )


def allocation_changes(versions: Sequence[Version]) -> tuple[AllocationChange, ...]:
    """Return each change of a User's allocation; a User that came or went has None on one side."""
    return tuple(
        AllocationChange(after.from_ms, user, olds.get(user), news.get(user))
        for before, after in pairwise(versions)
        for olds, news in ((allocations_in(before.description), allocations_in(after.description)),)
        for user in sorted(olds.keys() | news.keys())
        if olds.get(user) != news.get(user)
    )


def list_changes(versions: Sequence[Version]) -> tuple[ListChange, ...]:
    """Return each change of the priority list."""
    found = []
    for before, after in pairwise(versions):
        old, new = priority_list(before.description), priority_list(after.description)
        if old == new:
            continue
        olds, news = set(old.get("expanded", ())), set(new.get("expanded", ()))
        found.append(
            ListChange(
                after.from_ms,
                str(new.get("version") or ""),
                str(new.get("effective_from") or ""),
                str(new.get("approved_by") or ""),
                str(new.get("source") or ""),
                tuple(sorted(news - olds, key=_srv_order)),
                tuple(sorted(olds - news, key=_srv_order)),
            )
        )
    return tuple(found)


def mean_allocations(versions: Sequence[Version], month: Month) -> dict[str, float]:
    """Return each User's allocation in the month, units per second; weighted by time where it changed."""
    total: dict[str, float] = {}
    for place, version in enumerate(versions):
        # Before the first version nothing is known: what came first stands for it.
        begin = month.start_ms if place == 0 else max(version.from_ms, month.start_ms)
        end = versions[place + 1].from_ms if place + 1 < len(versions) else month.end_ms
        share = max(0, end - begin) / (month.end_ms - month.start_ms)
        for user, allocation in allocations_in(version.description).items():
            total[user] = total.get(user, 0.0) + allocation * share
    return total


def _settings(description: Mapping[str, Any]) -> dict[str, Any]:
    costs = {f"cost of {srv}": units for srv, units in (description.get("costs") or {}).items()}
    rates = {name: description.get(name) for name in _RATES}
    return {**rates, **(description.get("rules") or {}), **costs}


def setting_text(value: Any) -> str:
    """Return the value of a setting as text."""
    if value is None:
        return "not set"
    return f"{value:,.15g}" if isinstance(value, int | float) else str(value)


def _srv_order(srv: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (0, part) for part in srv.split("."))


@dataclass(frozen=True, slots=True)
class CandidateUser:
    """One User, while one candidate was tried.

    Attributes
    ----------
    allocation, candidate : float
        Units per second in force when the candidate was last put beside it, and tried.
    offered_units, throttled_units : int
        Offered, and throttled by the allocation in force.
    candidate_throttled_units : int
        The most that the candidate would have throttled: spare capacity may have been left.
    difference_units : int
        That less what was throttled.
    over_units, within_units : int
        Over the candidate and not over the allocation in force, and the other way round; active or not.
    """

    user: str
    allocation: float
    candidate: float
    offered_units: int
    throttled_units: int
    candidate_throttled_units: int
    difference_units: int
    over_units: int
    within_units: int


@dataclass(frozen=True, slots=True)
class CandidateFigures:
    """One candidate: its version, the first and last day on which it met traffic, and the Users."""

    version: str
    first_day: date
    last_day: date
    users: tuple[CandidateUser, ...]


def candidates_of(record: Record) -> tuple[CandidateFigures, ...]:
    """Return the candidates that were tried in the month, in the order of their first days."""
    found = []
    for version in {tried.version for tried in record.tried}:
        described = [
            each.description
            for each in record.configurations
            if (each.description.get("candidate") or {}).get("version") == version
        ]
        last = described[-1] if described else {}
        in_force, rates = allocations_in(last), candidate_rates(last)
        rows = [tried for tried in record.tried if tried.version == version]
        users = []
        for each in rows:
            offered, throttled, over, over_active, within, admitted = each.units
            # One look may have counted what was throttled just before the candidate began: never less than none.
            would = max(0, throttled - admitted) + over_active
            users.append(
                CandidateUser(
                    each.user,
                    in_force.get(each.user, 0.0),
                    float(rates.get(each.user, 0.0)),
                    offered,
                    throttled,
                    would,
                    would - throttled,
                    over,
                    within,
                )
            )
        users.sort(
            key=lambda user: (-abs(user.difference_units), -(user.over_units + user.within_units), user.user)
        )
        first, until = min(each.first_day for each in rows), max(each.last_day for each in rows)
        found.append(
            CandidateFigures(version, utc(first * 1000).date(), utc(until * 1000).date(), tuple(users))
        )
    return tuple(sorted(found, key=lambda each: (each.first_day, each.last_day, each.version)))
