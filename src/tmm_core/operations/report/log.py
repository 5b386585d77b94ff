"""Read one month from the event logs of any number of hosts, day by day: memory does not grow with the month.

A Service Request is counted in the minute the log has it in, whichever file that minute is in; an activation
is counted once, however many files and months it is in.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any

import numpy as np

from tmm_core.errors import EventLogError
from tmm_core.operations.event_log.files import LogFile, LogSet
from tmm_core.operations.event_log.schema import CANDIDATE_COLUMNS, has_candidates
from tmm_core.operations.report.record import (
    Activation,
    ActivationUser,
    Applied,
    Commits,
    Excess,
    Fault,
    Ints,
    Loss,
    Month,
    Notice,
    PastMonth,
    Record,
    Tried,
    four,
)

_OUTCOMES = ("throttled", "spare", "within", "priority")  # in the order of Decision
_SUMS = ", ".join(f"sum({name})" for name in _OUTCOMES)
_OFFERED_UNITS = " + ".join(f"{name}_units" for name in _OUTCOMES)
_DAY = 86_400
_MINUTES = 1_440
_UNIT_BITS = 40  # units of a User in a minute; the User above them
_TREND_MONTHS = 12

Progress = Callable[[float], None]


def read_month(
    logs: LogSet, month: Month, progress: Progress = lambda done: None, expected: Sequence[str] = ()
) -> Record:
    """Return what the logs hold about a month.

    `progress` is told how many of the month's days are read; `expected` are hosts that should have logged, beside those
    whose logs are given. EventLogError if a log cannot be read, or none has anything about the month.
    """
    try:
        return _Reader(logs, month, progress).record(tuple(expected))
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise EventLogError(f"the logs hold what this version cannot read: {error}") from error


class _Reader:
    """Adds up the files of one month."""

    def __init__(self, logs: LogSet, month: Month, progress: Progress) -> None:
        self.logs = logs
        self.month = month
        self.progress = progress
        self.from_s, self.to_s = month.start_ms // 1000, month.end_ms // 1000
        self.users = _names(logs, "SELECT name FROM users")
        self.srvs = _names(logs, "SELECT code FROM srvs")
        user_place = {name: place for place, name in enumerate(self.users)}
        srv_place = {name: place for place, name in enumerate(self.srvs)}
        # Numbers of a file to places in the record.
        self.user_of = {
            file.path: _places(file, "SELECT user, name FROM users", user_place) for file in logs.files
        }
        self.srv_of = {
            file.path: _places(file, "SELECT srv, code FROM srvs", srv_place) for file in logs.files
        }

    def record(self, expected: tuple[str, ...]) -> Record:
        hosts = tuple(self.commits(host) for host in sorted({file.host for file in self.logs.files}))
        user_days, user_day_units, past = self.days()
        if not any(host.spans for host in hosts) and not user_days.any():
            raise EventLogError(
                f"the logs hold nothing about {self.month}: they are of "
                f"{', '.join(sorted({file.month for file in self.logs.files}))}"
            )
        minute_units, busiest = self.minutes()
        user_seconds, highest = self.seconds()
        return Record(
            month=self.month,
            hosts=hosts,
            users=self.users,
            srvs=self.srvs,
            user_days=user_days,
            user_day_units=user_day_units,
            user_srvs=self.by_srv(),
            minute_units=minute_units,
            user_busiest=busiest,
            user_seconds=user_seconds,
            highest_second=highest,
            activations=self.activations(),
            configurations=self.configurations(),
            faults=self.faults(),
            losses=self.losses(),
            excesses=self.excesses(),
            notices=self.notices(),
            tried=self.tried(),
            past=past,
            hosts_expected=expected,
        )

    # ---- counts

    def days(self) -> tuple[Ints, Ints, tuple[PastMonth, ...]]:
        """Return requests and units by User and day, and the totals of the months before."""
        first = self.month.before(_TREND_MONTHS).start_ms // 1000
        requests = np.zeros((len(self.users), self.month.days, 4), np.int64)
        units = np.zeros_like(requests)
        earlier: dict[Month, dict[int, list[int]]] = defaultdict(dict)
        busiest: dict[Month, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        months = {
            day: month
            for back in range(1, _TREND_MONTHS + 1)
            for month in (self.month.before(back),)
            for day in range(month.start_ms // 1000, month.end_ms // 1000, _DAY)
        }
        columns = ", ".join([*_OUTCOMES, *[f"{name}_units" for name in _OUTCOMES]])
        for file in self.logs.files:
            user_of = self.user_of[file.path]
            for day, user, *amounts in file.connection.execute(
                f"SELECT day, user, {columns} FROM user_days WHERE day >= ? AND day < ?", (first, self.to_s)
            ):
                place = user_of[user]
                if day >= self.from_s:
                    requests[place, (day - self.from_s) // _DAY] += amounts[:4]
                    units[place, (day - self.from_s) // _DAY] += amounts[4:]
                else:
                    month = months[day]
                    counts = earlier[month].setdefault(place, [0, 0, 0, 0])
                    for outcome, amount in enumerate(amounts[:4]):
                        counts[outcome] += amount
                    busiest[month][day] += sum(amounts[:4])
        past = tuple(
            PastMonth(
                month,
                four(sum(counts[outcome] for counts in users.values()) for outcome in range(4)),
                sum(1 for counts in users.values() if counts[0]),
                max(busiest[month].values()),
            )
            for month, users in sorted(earlier.items())
        )
        return requests, units, past

    def by_srv(self) -> Ints:
        counts = np.zeros((len(self.users), len(self.srvs), 4), np.int64)
        for file in self.logs.files:
            user_of, srv_of = self.user_of[file.path], self.srv_of[file.path]
            for user, srv, *amounts in file.connection.execute(
                f"SELECT user, srv, {_SUMS} FROM day_counts WHERE day >= ? AND day < ? GROUP BY user, srv",
                (self.from_s, self.to_s),
            ):
                counts[user_of[user], srv_of[srv]] += amounts
        return counts

    def minutes(self) -> tuple[Ints, Ints]:
        """Return units of all Users by minute, and each User's busiest minute."""
        units = np.zeros((self.month.days * _MINUTES, 2), np.int64)
        busiest = np.zeros((len(self.users), 2), np.int64)
        with ThreadPoolExecutor(min(len(self.logs.files), os.cpu_count() or 1)) as pool:
            for day in range(self.month.days):
                start = self.from_s + day * _DAY
                offered = np.zeros((_MINUTES, len(self.users)), np.int64)
                # SQLite lets go of the interpreter while it adds up: the files are read side by side.
                for minutes, throttled, of_users in pool.map(self.day_of, self.logs.files, repeat(start)):
                    units[day * _MINUTES + minutes, 1] += throttled
                    np.add.at(offered, (of_users[0], of_users[1]), of_users[2])
                units[day * _MINUTES : (day + 1) * _MINUTES, 0] = offered.sum(axis=1)
                highest = offered.max(axis=0, initial=0)
                better = highest > busiest[:, 0]
                busiest[better, 0] = highest[better]
                busiest[better, 1] = offered.argmax(axis=0)[better] + day * _MINUTES
                self.progress(day + 1)
        return units, busiest

    def day_of(self, file: LogFile, start: int) -> tuple[Ints, Ints, tuple[Ints, Ints, Ints]]:
        """Return one day of a file: minutes, units throttled in them, and (minute, User, units offered)."""
        # One text of numbers a minute: a row of Python objects for each User would take three times as long.
        rows = file.connection.execute(
            "SELECT minute, sum(throttled_units), count(*),"
            f" group_concat((user << {_UNIT_BITS}) | ({_OFFERED_UNITS}), ' ')"
            " FROM user_minutes WHERE minute >= ? AND minute < ? GROUP BY minute",
            (start, start + _DAY),
        ).fetchall()
        sums = np.array([tuple(row)[:3] for row in rows], np.int64).reshape(-1, 3)
        minutes = (sums[:, 0] - start) // 60
        packed = np.fromstring(" ".join(row[3] for row in rows), dtype=np.int64, sep=" ")
        users = self.user_of[file.path][packed >> _UNIT_BITS]
        offered = packed & ((1 << _UNIT_BITS) - 1)
        return minutes, sums[:, 1], (np.repeat(minutes, sums[:, 2]), users, offered)

    def seconds(self) -> tuple[Ints, tuple[int, int] | None]:
        """Return in how many seconds each User was throttled, and the highest second while active."""
        throttled: list[Ints] = []
        totals: list[Ints] = []
        for file in self.logs.files:
            user_of = self.user_of[file.path]
            among = (self.from_s, self.to_s)
            rows = file.connection.execute(
                "SELECT user, second FROM second_counts WHERE second >= ? AND second < ? AND throttled > 0"
                " GROUP BY second, user",
                among,
            ).fetchall()
            if rows:
                pairs = np.array([tuple(row) for row in rows], np.int64)
                pairs[:, 0] = user_of[pairs[:, 0]]
                throttled.append(pairs)
            rows = file.connection.execute(
                "SELECT second, sum(throttled), sum(spare + within + priority) FROM second_counts"
                " WHERE second >= ? AND second < ? GROUP BY second",
                among,
            ).fetchall()
            if rows:
                totals.append(np.array([tuple(row) for row in rows], np.int64))
        by_user = np.zeros(len(self.users), np.int64)
        if throttled:
            pairs = np.unique(np.concatenate(throttled), axis=0)
            by_user += np.bincount(pairs[:, 0], minlength=len(self.users))
        if not totals:
            return by_user, None
        rows_of_all = np.concatenate(totals)
        seconds, place = np.unique(rows_of_all[:, 0], return_inverse=True)
        counts = np.zeros((len(seconds), 2), np.int64)
        np.add.at(counts, place, rows_of_all[:, 1:])
        return by_user, (int(counts.sum(axis=1).max()), int(counts[:, 1].max()))

    # ---- events

    def activations(self) -> tuple[Activation, ...]:
        """Return the activations of this month and the twelve before it, each once."""
        chosen: dict[str, tuple[LogFile, Any]] = {}
        since = self.month.before(_TREND_MONTHS).start_ms
        for file, row in self.logs.rows(
            "SELECT e.*, s.last_ms FROM traffic_management_events AS e JOIN sources AS s USING (source)"
            " WHERE e.began_ms < ?",
            (self.month.end_ms,),
        ):
            before = chosen.get(row["event"])
            if before is None or before[1]["seq"] <= row["seq"]:
                chosen[row["event"]] = (file, row)
        found = []
        for file, row in chosen.values():
            is_open = row["ended_ms"] is None
            # By the monotonic clock, whatever the wall clock did meanwhile.
            until = row["last_ms"] if is_open else row["began_ms"] + (row["duration_ms"] or 0)
            until = max(until, row["began_ms"])
            if until < since:
                continue
            found.append(
                Activation(
                    event=row["event"],
                    host=file.host,
                    began_ms=row["began_ms"],
                    until_ms=until,
                    open=is_open,
                    exact=bool(row["began_exact"]) and bool(row["ended_exact"]),
                    mode=row["mode"],
                    operating_threshold=row["operating_threshold"],
                    offered_max=row["offered_max"],
                    backlog_max_s=row["backlog_max_s"],
                    users=self.users_of(file, row["event"]) if until >= self.month.start_ms else (),
                )
            )
        return tuple(sorted(found, key=lambda each: (each.began_ms, each.host, each.event)))

    def users_of(self, file: LogFile, event: str) -> tuple[ActivationUser, ...]:
        return tuple(
            ActivationUser(
                row["name"],
                row["allocation"],
                row["began_offered"],
                bool(row["over_at_beginning"]),
                four(row[name] for name in _OUTCOMES),
                row["throttled_seconds"],
                row["first_throttled_ms"],
                row["last_throttled_ms"],
            )
            for row in file.rows(
                "SELECT * FROM event_users JOIN users USING (user) WHERE event = ? ORDER BY name", (event,)
            )
        )

    def configurations(self) -> tuple[Applied, ...]:
        """Return the configurations in force at any time of the month, by time and host."""
        found: dict[tuple[str, int, str], Applied] = {}
        for file, row in self.logs.rows(
            "SELECT from_ms, version, description FROM configurations WHERE from_ms < ?", (self.month.end_ms,)
        ):
            each = Applied(file.host, row["from_ms"], row["version"], json.loads(row["description"]))
            found[file.host, each.from_ms, each.version] = each
        last_before = {
            each.host: each
            for each in sorted(found.values(), key=lambda each: each.from_ms)
            if each.from_ms <= self.month.start_ms
        }
        kept = [
            each
            for each in found.values()
            if each.from_ms > self.month.start_ms or last_before[each.host] is each
        ]
        return tuple(sorted(kept, key=lambda each: (each.from_ms, each.host, each.version)))

    # ---- what went wrong

    def faults(self) -> tuple[Fault, ...]:
        found = [
            Fault(file.host, row["at_ms"], row["kind"], row["name"], row["count"], row["detail"])
            for file, row in self.logs.rows(
                "SELECT faults.*, name FROM faults LEFT JOIN users USING (user)"
                " WHERE at_ms >= ? AND at_ms < ?",
                (self.month.start_ms, self.month.end_ms),
            )
        ]
        return tuple(sorted(found, key=lambda each: (each.at_ms, each.host, each.kind, each.detail)))

    def losses(self) -> tuple[Loss, ...]:
        found = [
            Loss(file.host, row["what"], row["records"], row["first_ms"], row["last_ms"], row["reason"])
            for file, row in self.logs.rows(
                "SELECT * FROM losses WHERE last_ms >= ? AND first_ms < ?",
                (self.month.start_ms, self.month.end_ms),
            )
        ]
        return tuple(sorted(found, key=lambda each: (each.first_ms, each.host, each.what)))

    def excesses(self) -> tuple[Excess, ...]:
        found = [
            Excess(row["minute"], row["name"], row["priority_rate"], row["plan"], row["seconds"])
            for _, row in self.logs.rows(
                "SELECT priority_excesses.*, name FROM priority_excesses LEFT JOIN users USING (user)"
                " WHERE minute >= ? AND minute < ?",
                (self.from_s, self.to_s),
            )
        ]
        return tuple(sorted(found, key=lambda each: (each.minute, each.user or "", each.rate)))

    def notices(self) -> tuple[Notice, ...]:
        found = {
            Notice(row["event"], row["name"], row["notice"], row["state"])
            for _, row in self.logs.rows(
                "SELECT event, name, notice, state FROM notifications JOIN users USING (user)"
                " WHERE at_ms >= ? AND at_ms < ?",
                (self.month.start_ms, self.month.end_ms),
            )
        }
        return tuple(sorted(found, key=lambda each: (each.event, each.user, each.notice, each.state)))

    def tried(self) -> tuple[Tried, ...]:
        """Return what candidate allocations would have done, all hosts together."""
        found: dict[tuple[str, str], Tried] = {}
        sums = ", ".join(f"sum({name})" for name in CANDIDATE_COLUMNS)
        for file in self.logs.files:
            if not has_candidates(file.connection):
                continue
            for version, user, first, last, *units in file.connection.execute(
                f"SELECT candidate, name, min(day), max(day), {sums} FROM candidate_days JOIN users USING (user)"
                " WHERE day >= ? AND day < ? GROUP BY candidate, user",
                (self.from_s, self.to_s),
            ):
                before = found.get(
                    (version, user), Tried(version, user, (0,) * len(CANDIDATE_COLUMNS), first, last)
                )
                together = tuple(a + b for a, b in zip(before.units, units, strict=True))
                days = min(before.first_day, first), max(before.last_day, last)
                found[version, user] = Tried(version, user, together, *days)
        return tuple(found[key] for key in sorted(found))

    def commits(self, host: str) -> Commits:
        """Return what of the month a host's files cover."""
        files = [file for file in self.logs.files if file.host == host]
        spans: list[tuple[int, int]] = []
        missing = 0
        last: dict[str, int] = {}
        for file in files:
            low, high, count = file.connection.execute(
                "SELECT min(seq), max(seq), count(*) FROM commits"
            ).fetchone()
            if count:
                # Numbered without a gap through all files of a host.
                missing += high - low + 1 - count
                missing += max(0, low - last.get(file.host_id, low - 1) - 1)
                last[file.host_id] = high
            spans += _spans(file.connection, self.month.start_ms, self.month.end_ms)
        covering = sum(1 for file in files if self.covers(file))
        return Commits(host, covering, _joined(spans), missing)

    def covers(self, file: LogFile) -> bool:
        found: int = file.connection.execute(
            "SELECT EXISTS (SELECT 1 FROM commits WHERE to_ms > ? AND from_ms < ?)",
            (self.month.start_ms, self.month.end_ms),
        ).fetchone()[0]
        return bool(found)


def _spans(connection: sqlite3.Connection, start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
    """Yield the times that commits cover: a span begins where a commit does not follow on those before it."""
    connection.row_factory, before = None, connection.row_factory
    rows = connection.execute(
        "SELECT from_ms, to_ms FROM commits WHERE to_ms > ? AND from_ms < ?", (start_ms, end_ms)
    )
    times = np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 2)
    connection.row_factory = before
    if not len(times):
        return
    times = times[np.argsort(times[:, 0], kind="stable")]
    ends = np.maximum.accumulate(times[:, 1])
    breaks = np.nonzero(times[1:, 0] > ends[:-1])[0] + 1
    for first, last in zip([0, *breaks.tolist()], [*(breaks - 1).tolist(), len(times) - 1], strict=True):
        yield max(int(times[first, 0]), start_ms), min(int(ends[last]), end_ms)


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return spans in order, those that touch or overlap joined."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return tuple(joined)


def _names(logs: LogSet, query: str) -> tuple[str, ...]:
    return tuple(sorted({row[0] for _, row in logs.rows(query)}))


def _places(file: LogFile, query: str, place: dict[str, int]) -> Ints:
    rows = [tuple(row) for row in file.rows(query)]
    places = np.zeros(max((number for number, _ in rows), default=0) + 1, np.int64)
    for number, name in rows:
        places[number] = place[name]
    return places
