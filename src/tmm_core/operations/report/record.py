"""What all hosts logged about one month, as plain numbers: the input of the report, before any judgement.

With pseudonyms for its Users it has them before any figure is computed: no name is left to leak.

Times are UTC, milliseconds since 1970 where the name ends in ``_ms``; days and months are those of UTC, so
that no hour is missing or doubled when the clocks change. Outcomes are indexed by `Decision`.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.mechanism import UNKNOWN
from tmm_core.policy.portfolio import Portfolio

Ints = np.ndarray[Any, np.dtype[np.int64]]

_MONTH = re.compile(r"(2[0-9]{3})-(0[1-9]|1[0-2])")


def utc(at_ms: float) -> datetime:
    """Return a time in milliseconds since 1970 as an aware datetime, whole seconds."""
    return datetime.fromtimestamp(at_ms // 1000, UTC)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month, UTC.

    Examples
    --------
    >>> str(Month.parse("2026-11")), Month(2026, 11).name, Month(2026, 1).before(2)
    ('2026-11', 'November 2026', Month(year=2025, month=11))
    """

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read a month like ``2026-11``; TMMError if it is none."""
        if not (found := _MONTH.fullmatch(text)):
            raise TMMError(f"month {text!r}, expected a form like 2026-11")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.year}-{self.month:02d}"

    @property
    def name(self) -> str:
        return f"{calendar.month_name[self.month]} {self.year}"

    @property
    def days(self) -> int:
        return calendar.monthrange(self.year, self.month)[1]

    @property
    def first(self) -> date:
        return date(self.year, self.month, 1)

    @property
    def start_ms(self) -> int:
        return int(datetime(self.year, self.month, 1, tzinfo=UTC).timestamp()) * 1000

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.days * 86_400_000

    @property
    def seconds(self) -> int:
        return self.days * 86_400

    def before(self, months: int) -> Month:
        """Return an earlier month."""
        count = self.year * 12 + self.month - 1 - months
        return Month(count // 12, count % 12 + 1)


@dataclass(frozen=True, slots=True)
class ActivationUser:
    """A User in one activation: rates in units per second, counts by `Decision`."""

    user: str
    allocation: float
    began_offered: float
    over_at_beginning: bool
    counts: tuple[int, int, int, int]
    throttled_seconds: int
    first_throttled_ms: int | None
    last_throttled_ms: int | None


@dataclass(frozen=True, slots=True)
class Activation:
    """One activation as one source (a block of counters on a host) logged it.

    Attributes
    ----------
    event : str
        Unique in the world, also when the activation is in the files of two months.
    until_ms : int
        Beginning and the duration by the monotonic clock; of an open one, when its source was last heard of.
    open : bool
        No end is logged.
    """

    event: str
    host: str
    began_ms: int
    until_ms: int
    open: bool
    exact: bool
    mode: str
    operating_threshold: float
    offered_max: float
    backlog_max_s: float
    users: tuple[ActivationUser, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """A configuration put in force on a host; `description` as the log keeps it."""

    host: str
    from_ms: int
    version: str
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was logged."""

    host: str
    at_ms: int
    kind: str
    user: str | None
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that could not be written."""

    host: str
    what: str
    records: int
    first_ms: int
    last_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Excess:
    """Priority traffic above its plan in one minute; of all Users together where `user` is None."""

    minute: int
    user: str | None
    rate: float
    plan: float
    seconds: int


@dataclass(frozen=True, slots=True)
class Notice:
    """What became of telling one User about one activation."""

    event: str
    user: str
    notice: str
    state: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One User on one host while candidate allocations were tried.

    Attributes
    ----------
    units : tuple of int
        Offered, throttled, then by `Difference`.
    first_day, last_day : int
        Seconds since 1970 at which they begin.
    """

    version: str
    user: str
    units: tuple[int, ...]
    first_day: int
    last_day: int


@dataclass(frozen=True, slots=True)
class Commits:
    """What of the month a host's log covers.

    Attributes
    ----------
    files : int
    spans : tuple of (int, int)
        Times that somebody watched, in milliseconds, in order and without overlap.
    missing : int
        Numbered commits that are in no file.
    """

    host: str
    files: int
    spans: tuple[tuple[int, int], ...]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class PastMonth:
    """Totals of one month for the trends; `counts` by `Decision`."""

    month: Month
    counts: tuple[int, int, int, int]
    users_throttled: int
    busiest_day: int


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """All that the logs hold about a month, of all hosts together.

    Attributes
    ----------
    users, srvs : tuple of str
        Names, sorted; the pool of unknown ones is among them.
    user_days : ndarray, shape (users, days, 4)
        Service Requests by `Decision`.
    user_day_units : ndarray, shape (users, days, 4)
        The same in units.
    user_srvs : ndarray, shape (users, srvs, 4)
        Service Requests by `Decision`.
    minute_units : ndarray, shape (minutes, 2)
        Units of all Users by minute: offered, and of them throttled.
    user_busiest : ndarray, shape (users, 2)
        Units offered in each User's busiest minute, and which minute of the month it was.
    user_seconds : ndarray, shape (users,)
        Seconds in which the User had a request throttled.
    highest_second : (int, int) or None
        Most Service Requests offered, and admitted, in one second while active, all hosts together.
    """

    month: Month
    hosts: tuple[Commits, ...]
    users: tuple[str, ...]
    srvs: tuple[str, ...]
    user_days: Ints
    user_day_units: Ints
    user_srvs: Ints
    minute_units: Ints
    user_busiest: Ints
    user_seconds: Ints
    highest_second: tuple[int, int] | None = None
    activations: tuple[Activation, ...] = ()
    configurations: tuple[Applied, ...] = ()
    faults: tuple[Fault, ...] = ()
    losses: tuple[Loss, ...] = ()
    excesses: tuple[Excess, ...] = ()
    notices: tuple[Notice, ...] = ()
    tried: tuple[Tried, ...] = ()
    past: tuple[PastMonth, ...] = ()
    hosts_expected: tuple[str, ...] = ()


def four(amounts: Iterable[int]) -> tuple[int, int, int, int]:
    """Return four amounts, by `Decision`, as a tuple of four."""
    throttled, spare, within, priority = amounts
    return throttled, spare, within, priority


def allocations_in(description: Mapping[str, Any]) -> dict[str, float]:
    """Return the allocations by User, units per second."""
    return {str(row["user"]): float(row["allocation"]) for row in description.get("allocations", ())}


def categories_in(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the party categories by User."""
    return {str(row["user"]): str(row.get("category") or "") for row in description.get("allocations", ())}


def priority_list(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the priority list with its version, approval and SRVs."""
    found: Mapping[str, Any] = description.get("priority_list") or {}
    return found


def candidate_rates(description: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the allocations of the candidate by User, units per second; none where none was tried."""
    rates: Mapping[str, float] = (description.get("candidate") or {}).get("allocations") or {}
    return rates


# --- the Users under pseudonyms
#
# The order of the pseudonyms comes from a digest over the counts themselves, which only who has the logs can
# compute, and who has the logs has the names. It is the same whenever the report is made from the same logs, and
# no key is written anywhere.


def anonymised(record: Record, portfolio: Portfolio | None = None) -> tuple[Record, Portfolio | None]:
    """Return the record, and the portfolio, with pseudonyms such as ``User 07`` for the names of Users.

    Identifiers of Users, files they were configured in and free text of faults and losses are left out.
    """
    names = set(record.users) - {UNKNOWN}
    for each in record.configurations:
        names |= set(allocations_in(each.description))
        names |= set(candidate_rates(each.description))
    names |= {user.user for activation in record.activations for user in activation.users}
    pseudonym = _pseudonyms(record, names)
    renamed = [pseudonym.get(name, name) for name in record.users]
    order = np.array(sorted(range(len(renamed)), key=renamed.__getitem__), dtype=np.intp)

    def of(name: str | None) -> str | None:
        return None if name is None else pseudonym.get(name, name)

    hidden = replace(
        record,
        users=tuple(renamed[place] for place in order),
        user_days=record.user_days[order],
        user_day_units=record.user_day_units[order],
        user_srvs=record.user_srvs[order],
        user_busiest=record.user_busiest[order],
        user_seconds=record.user_seconds[order],
        activations=tuple(
            replace(
                each,
                users=tuple(
                    sorted(
                        (replace(user, user=pseudonym.get(user.user, user.user)) for user in each.users),
                        key=lambda user: user.user,
                    )
                ),
            )
            for each in record.activations
        ),
        configurations=tuple(_hidden(each, pseudonym) for each in record.configurations),
        faults=tuple(replace(each, user=of(each.user), detail="") for each in record.faults),
        losses=tuple(replace(each, reason="") for each in record.losses),
        excesses=tuple(replace(each, user=of(each.user)) for each in record.excesses),
        notices=tuple(replace(each, user=pseudonym.get(each.user, each.user)) for each in record.notices),
        tried=tuple(replace(each, user=pseudonym.get(each.user, each.user)) for each in record.tried),
    )
    if portfolio is None:
        return hidden, None
    users = tuple(
        replace(each, user=pseudonym[each.user], user_ids=())
        for each in portfolio.users
        if each.user in pseudonym
    )
    return hidden, Portfolio(portfolio.month, users) if users else None


def _pseudonyms(record: Record, names: set[str]) -> dict[str, str]:
    key = hashlib.sha256()
    for array in (record.user_days, record.user_srvs, record.minute_units, record.user_busiest):
        key.update(np.ascontiguousarray(array, "<i8").tobytes())
    order = sorted(
        names, key=lambda name: hashlib.blake2b(name.encode("utf-8", "replace"), key=key.digest()).digest()
    )
    width = len(str(len(order)))
    return {name: f"User {number:0{width}d}" for number, name in enumerate(order, 1)}


def _hidden(each: Applied, pseudonym: Mapping[str, str]) -> Applied:
    description: dict[str, Any] = {
        name: value for name, value in each.description.items() if name not in ("allocations_file", "source")
    }
    # In the order of the pseudonyms: the file's own order could be known.
    description["allocations"] = sorted(
        (
            {"user": pseudonym[row["user"]], "category": row.get("category"), "allocation": row["allocation"]}
            for row in each.description.get("allocations", ())
        ),
        key=lambda row: row["user"],
    )
    if description.get("candidate"):
        rates = {pseudonym[name]: rate for name, rate in candidate_rates(description).items()}
        description["candidate"] = {**description["candidate"], "allocations": dict(sorted(rates.items()))}
    return replace(each, description=description)
