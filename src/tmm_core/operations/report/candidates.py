"""Candidate allocations: what they would have throttled beside those in force, and the section that says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from tmm_core.operations.page import Block, Column, Section, Table, Text, shown
from tmm_core.operations.report.changes import allocations_in
from tmm_core.operations.report.record import Record, utc
from tmm_core.operations.report.words import many

__all__ = ["CandidateFigures", "CandidateUser", "candidates_of", "candidates_section"]


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
        in_force, rates = allocations_in(last), (last.get("candidate") or {}).get("allocations") or {}
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


def candidates_section(candidates: tuple[CandidateFigures, ...]) -> Section:
    """Return the section Candidate Allocations, of one candidate or more."""
    blocks: list[Block] = []
    for number, each in enumerate(candidates, 1):
        blocks += [Text(_finding(each), strong=True), _table(each, number)]
    blocks.append(
        Text(
            "A candidate is tried beside the allocations in force and decides nothing. What it would have throttled is "
            "the most: units over the candidate while the Mechanism was active count as throttled, though spare "
            "capacity may have been left for them. The pool of unknown Users is not tried."
        )
    )
    return Section("Candidate Allocations", blocks)


def _finding(candidate: CandidateFigures) -> str:
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


def _table(candidate: CandidateFigures, number: int) -> Table:
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
        f"csv/candidate-{number}.csv",
    )  # fmt: skip
