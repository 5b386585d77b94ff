"""The traffic of an event log: second by second to replay it, and added up to plan by.

The log has counts, not requests: by the second while the Mechanism was active, by the minute otherwise. For a replay,
what is only known by the minute is spread evenly over the seconds of that minute that have no counts of their own,
and the requests of a second evenly over the second. So no burst shorter than a minute shows, but where the
Mechanism was active: what a replay throttles elsewhere is the least that would have been.

A dry run of new allocations says how often each User would have been over its own. Being over it throttles nobody
by itself: that takes an active Mechanism and no spare capacity. For a priority list SRVs are added up.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from os import PathLike
from pathlib import Path

import numpy as np

from tmm_core.errors import EventLogError, TMMError
from tmm_core.mechanism import UNKNOWN
from tmm_core.operations.event_log.files import LogFile, LogSet, files_of
from tmm_core.operations.traffic import Floats, Ints
from tmm_core.operations.traffic.drive import NS, STEP_NS, TrafficSecond

_SQLITE = b"SQLite format 3\0"
_MINUTE = 60
_STEPS = NS // STEP_NS
_MOST_EXAMPLES = 10
_GOLDEN = 0.6180339887498949  # multiples of it fall evenly between 0 and 1: no two cells keep step
_OFFERED = "throttled + spare + within + priority"


@dataclass(slots=True)
class LoggedNotes:
    """What was noticed on the way.

    Attributes
    ----------
    start : int or None
        The first second with a Service Request, seconds since 1970; None before there is one.
    rows, bad : int
        Rows of counts; those that cannot be used, left out.
    by_second, by_minute : int
        Service Requests of which the log knows the second, and only the minute.
    lost : int
        Records of counts that could not be written, as the log itself says.
    unknown_users, unknown_srvs : list of str
        The first few names that no User has, and that are not in the catalogue.
    """

    start: int | None = None
    hosts: int = 0
    rows: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)
    by_second: int = 0
    by_minute: int = 0
    lost: int = 0
    unknown_users: list[str] = field(default_factory=list)
    unknown_srvs: list[str] = field(default_factory=list)

    def refuse(self, fault: str) -> None:
        """Count a row that cannot be used."""
        self.bad += 1
        if len(self.first_bad) < _MOST_EXAMPLES:
            self.first_bad.append(fault)


def names_event_log(path: Path) -> bool:
    """Tell whether a path is that of event logs: a file of one, ``events.db`` for its months, or a folder.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    if not path.is_file():
        return path.is_dir() or bool(files_of(path))
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


class LoggedTraffic:
    """Makes Service Requests of the counts of event logs; a context manager. *Not thread-safe.*

    Memory is that of the counts of one minute, and of the Service Requests of one second.

    Parameters
    ----------
    paths : iterable of path
        As for `LogSet`: files, ``events.db`` for all its months, folders; of one host or many.
    since_s, until_s : int
        Seconds since 1970, cut to whole minutes; the end is not included.

    Raises
    ------
    EventLogError
        There is no such log, or it cannot be read.
    """

    def __init__(
        self, paths: Iterable[PathLike[str] | str], *, since_s: int = 0, until_s: int = 1 << 50
    ) -> None:
        given = [str(path) for path in paths]
        self.name = ", ".join(given)
        self.notes = LoggedNotes()
        self._logs = LogSet(given)
        try:
            self._begin(since_s // _MINUTE * _MINUTE, until_s // _MINUTE * _MINUTE)
        except (sqlite3.Error, EventLogError) as error:
            self.close()
            raise self._unreadable(error) from error

    def _begin(self, since: int, until: int) -> None:
        self.notes.hosts = len({file.host for file in self._logs.files})
        lost = self._logs.rows("SELECT ifnull(sum(records), 0) FROM losses WHERE what = 'counts'")
        self.notes.lost = sum(row[0] for _, row in lost)
        self._files = [_File(file, self.notes) for file in self._logs.files]
        found = [span for file in self._files if (span := file.span(since, until)) is not None]
        self._first = min((first for first, _ in found), default=0)
        self._end = max((last for _, last in found), default=-_MINUTE) + _MINUTE
        self._at = self._first

    @property
    def size(self) -> float | None:
        """Minutes of the log; None where there are none."""
        return (self._end - self._first) / _MINUTE or None

    def done(self) -> float:
        """Return how many minutes have been read."""
        return (self._at - self._first) / _MINUTE

    def seconds(
        self, slot_of: Callable[[str], int], number_of: Callable[[str], int]
    ) -> Iterator[TrafficSecond]:
        """Yield the Service Requests of each second that has any; once.

        Parameters
        ----------
        slot_of, number_of : callable
            `Mechanism.user` and `Mechanism.srv`.

        Raises
        ------
        EventLogError
            A log is damaged.
        """
        try:
            for file in self._files:
                file.resolve(slot_of, number_of)
            minute = self._first
            while minute < self._end:
                self._at = minute
                yield from self._minute(minute)
                minute = min((file.next_minute(minute) for file in self._files), default=self._end)
            self._at = self._end
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _minute(self, minute: int) -> Iterator[TrafficSecond]:
        cells = [file.minute(minute) for file in self._files]
        keys = np.concatenate([each.keys for each in cells])
        table = np.concatenate([each.table for each in cells])
        # The same User and SRV on several hosts are cells of their own, and so are their phases.
        phases = _phases(keys.size)
        for second in range(_MINUTE):
            counts = table[:, second]
            if not counts.any():
                continue
            at = minute + second
            if self.notes.start is None:
                self.notes.start = at
            yield _spread(at - self.notes.start, keys, counts, phases)

    def close(self) -> None:
        """Close the files. Harmless when repeated."""
        self._logs.close()

    def _unreadable(self, error: Exception) -> EventLogError:
        return error if isinstance(error, EventLogError) else EventLogError(
            f"{self.name}: cannot be read as an event log: {error}"
        )  # fmt: skip

    def __enter__(self) -> LoggedTraffic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Counts of one minute: a row for each User and SRV (``slot << 16 | number``), a column for each second."""

    keys: Ints
    table: Ints


_NO_CELLS = _Cells(np.empty(0, dtype=np.int64), np.empty((0, _MINUTE), dtype=np.int64))


class _File:
    """One file of a log."""

    def __init__(self, file: LogFile, notes: LoggedNotes) -> None:
        self._file, self._notes = file, notes
        self._users: dict[int, int] = {}
        self._srvs: dict[int, int] = {}
        self._until = 0
        low, high = file.connection.execute("SELECT min(from_ms), max(to_ms) FROM commits").fetchone()
        # What is logged of the first and the last minute was in the part of them that was watched.
        self._watched = (low / 1000, high / 1000) if low is not None else (0.0, float(1 << 50))

    def span(self, since: int, until: int) -> tuple[int, int] | None:
        """Return the first and the last minute with counts; None without any."""
        self._until = until
        first, last = self._file.connection.execute(
            "SELECT min(minute), max(minute) FROM minute_counts WHERE minute >= ? AND minute < ?",
            (since, until),
        ).fetchone()
        return None if first is None else (first, last)

    def resolve(self, slot_of: Callable[[str], int], number_of: Callable[[str], int]) -> None:
        """Find the slots and numbers of the log's names."""
        notes = self._notes
        for query, found, number_for, unknown in (
            ("SELECT user, name FROM users", self._users, slot_of, notes.unknown_users),
            ("SELECT srv, code FROM srvs", self._srvs, number_of, notes.unknown_srvs),
        ):
            for place, name in map(tuple, self._file.rows(query)):
                found[place] = slot = number_for(name)
                named = not name.startswith("(")  # "(unknown)" is the log's own word
                if slot == 0 and named and name not in unknown and len(unknown) < _MOST_EXAMPLES:
                    unknown.append(name)

    def next_minute(self, minute: int) -> int:
        """Return the next minute that has counts."""
        found: int | None = self._file.connection.execute(
            "SELECT min(minute) FROM minute_counts WHERE minute > ?", (minute,)
        ).fetchone()[0]
        return self._until if found is None else found

    def minute(self, minute: int) -> _Cells:
        """Return the counts of a minute."""
        totals = self._rows(
            f"SELECT minute, user, srv, {_OFFERED} FROM minute_counts WHERE minute = ?", (minute,)
        )
        if not totals:
            return _NO_CELLS
        place = {(user, srv): number for number, (_, user, srv, _) in enumerate(totals)}
        table = np.zeros((len(totals), _MINUTE), dtype=np.int64)
        for second, user, srv, count in self._rows(
            f"SELECT second, user, srv, {_OFFERED} FROM second_counts WHERE second >= ? AND second < ?",
            (minute, minute + _MINUTE),
        ):
            if (user, srv) in place:
                table[place[user, srv], second - minute] += count
        rest = np.array([total for *_, total in totals], dtype=np.int64) - table.sum(axis=1)
        self._notes.by_second += int(table.sum())
        self._notes.by_minute += int(rest.clip(0).sum())
        self._fill(table, rest.clip(0), minute)
        keys = [self._users[user] << 16 | self._srvs[srv] for _, user, srv, _ in totals]
        return _Cells(np.array(keys, dtype=np.int64), table)

    def _rows(self, query: str, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        good = []
        for row in map(tuple, self._file.rows(query, values)):
            at, user, srv, count = row
            self._notes.rows += 1
            if count < 0 or user not in self._users or srv not in self._srvs:
                what = f"count {count}" if count < 0 else f"user {user} or srv {srv} without a name"
                self._notes.refuse(f"{self._file.path.name}: row of {at}: {what}")
            else:
                good.append((at, user, srv, count))
        return good

    def _fill(self, table: Ints, rest: Ints, minute: int) -> None:
        """Spread what is known by the minute over the seconds without counts of their own."""
        seconds = np.arange(_MINUTE) + minute
        begins, ends = self._watched
        watched = (seconds + 1 > begins) & (seconds < ends)
        free = watched & ~table.any(axis=0)
        places = np.flatnonzero(free if free.any() else watched if watched.any() else np.ones(_MINUTE, bool))
        phases = _phases(rest.size)
        n = places.size  # whole numbers only: nothing is lost or moved by rounding
        sums = (rest[:, None] * np.arange(n + 1) + (phases * n).astype(np.int64)[:, None]) // n
        table[:, places] += np.diff(sums, axis=1)


def _phases(n: int) -> Floats:
    return np.arange(n, dtype=np.float64) * _GOLDEN % 1.0


def _spread(second: int, keys: Ints, counts: Ints, phases: Floats) -> TrafficSecond:
    """Spread the Service Requests of a second evenly over it, User by User and SRV by SRV."""
    cell = np.repeat(np.arange(keys.size), counts)
    number = np.arange(cell.size) - np.repeat(np.cumsum(counts) - counts, counts)
    steps = ((number + phases[cell]) / counts[cell] * _STEPS).astype(np.int64)
    order = np.argsort(steps, kind="stable")
    chosen = keys[cell[order]]
    return TrafficSecond(
        second, (chosen >> 16).astype(np.uint32), (chosen & 0xFFFF).astype(np.uint16), steps[order]
    )


@dataclass(frozen=True, slots=True)
class Over:
    """One User's recorded traffic against an allocation; priority traffic is not part of it.

    Attributes
    ----------
    allocation : float
        Units per second.
    minutes : int
        Minutes with requests of the User.
    minutes_over : int
        Those with more units than a minute of the allocation.
    seconds_over : int
        Seconds with more requests than a second of the allocation, of those in which the Mechanism was active.
    units, units_over : int
        Units offered; those above the allocation in the minutes over it.
    highest : float
        Units per second in the User's busiest minute.
    """

    user: str
    allocation: float
    minutes: int
    minutes_over: int
    seconds_over: int
    units: int
    units_over: float
    highest: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """The Users of a log, in the order of their names, and what it covers.

    Attributes
    ----------
    first_s, last_s : int
        Seconds since 1970 of the first and the last minute with requests.
    active_seconds : int
        Seconds with requests while the Mechanism was active.
    without_allocation : tuple of str
        Users with traffic that the new allocations do not name: unknown to them.
    """

    users: tuple[Over, ...]
    first_s: int
    last_s: int
    active_seconds: int
    without_allocation: tuple[str, ...]


def over_allocation(logs: LogSet, allocations: Mapping[str, float], unknown: float) -> Recorded:
    """Compare recorded traffic with allocations.

    Parameters
    ----------
    logs : LogSet
        Of one or many hosts; their traffic is added up.
    allocations : mapping of str to float
        Units per second by User.
    unknown : float
        Units per second of all unknown Users together; Users without an allocation count among them.
    """
    minutes: Counter[tuple[str, int]] = Counter()
    seconds: Counter[tuple[str, int]] = Counter()
    without: set[str] = set()

    def user_of(name: str) -> str:
        if name in allocations:
            return name
        if name != UNKNOWN:
            without.add(name)
        return UNKNOWN

    for _, row in logs.rows(
        "SELECT name, minute, throttled_units + spare_units + within_units AS units"
        " FROM user_minutes JOIN users USING (user)"
    ):
        minutes[user_of(row["name"]), row["minute"]] += row["units"]
    for _, row in logs.rows(
        "SELECT name, second, sum(throttled + spare + within) AS requests"
        " FROM second_counts JOIN users USING (user) GROUP BY user, second"
    ):
        seconds[user_of(row["name"]), row["second"]] += row["requests"]
    by_user: dict[str, list[int]] = {}
    for (user, _), units in minutes.items():
        by_user.setdefault(user, []).append(units)
    over = Counter(user for (user, _), most in seconds.items() if most > allocations.get(user, unknown))
    covered = [minute for _, minute in minutes]
    users = (
        _over(user, allocations.get(user, unknown), by_user[user], over[user]) for user in sorted(by_user)
    )
    return Recorded(
        users=tuple(users),
        first_s=min(covered, default=0),
        last_s=max(covered, default=0),
        active_seconds=len({second for _, second in seconds}),
        without_allocation=tuple(sorted(without)),
    )


def _over(user: str, allocation: float, units: list[int], seconds_over: int) -> Over:
    most = allocation * _MINUTE
    above = [each - most for each in units if each > most]
    return Over(
        user=user,
        allocation=allocation,
        minutes=sum(each > 0 for each in units),
        minutes_over=len(above),
        seconds_over=seconds_over,
        units=sum(units),
        units_over=sum(above),
        highest=max(units) / _MINUTE,
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Service Requests offered in some days.

    Attributes
    ----------
    by_srv : dict of str to int
        Offered, by SRV; ``"(unknown)"`` among them.
    priority : int
        Those that were admitted as priority, by the list that was in force.
    first, last : date or None
        First and last day (UTC) with requests.
    """

    by_srv: dict[str, int]
    priority: int
    first: date | None
    last: date | None

    @property
    def total(self) -> int:
        return sum(self.by_srv.values())

    def on(self, srvs: Iterable[str]) -> int:
        """Return how many of them are of these SRVs."""
        return sum(self.by_srv.get(code, 0) for code in srvs)


def days_of(month: str) -> tuple[date, date]:
    """Return the first day of a month and of the next.

    Raises
    ------
    TMMError
        It is not written as 2026-11.
    """
    try:
        if len(month) != 7:
            raise ValueError
        first = date.fromisoformat(f"{month}-01")
    except ValueError:
        raise TMMError(f"month {month!r}, expected a form like 2026-11") from None
    return first, (first + timedelta(days=31)).replace(day=1)


def traffic_of(logs: LogSet, month: str | None = None) -> Traffic:
    """Add up a month of the event log, or all there is; of one or many hosts."""
    low, high = 0, 1 << 62
    if month is not None:
        low, high = (int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) for day in days_of(month))
    by_srv: Counter[str] = Counter()
    priority, days = 0, set()
    for _, row in logs.rows(
        "SELECT day, code, sum(throttled + spare + within + priority) AS offered, sum(priority) AS priority"
        " FROM day_counts JOIN srvs USING (srv) WHERE day >= ? AND day < ? GROUP BY day, srv",
        (low, high),
    ):
        by_srv[row["code"]] += row["offered"]
        priority += row["priority"]
        days.add(row["day"])
    dates = [datetime.fromtimestamp(day, UTC).date() for day in sorted(days)]
    return Traffic(by_srv, priority, dates[0] if dates else None, dates[-1] if dates else None)
