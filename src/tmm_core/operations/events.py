"""The event log: one SQLite file per host and month, written by one process, read by anybody.

``events.db`` in the configuration names ``events-2026-11.db`` and so on: one file a month, told by the UTC
time of its first commit. See docs/event-log.md for the tables.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from tmm_core.errors import EventLogError
from tmm_core.operations.event_log import schema
from tmm_core.operations.event_log.event_records import Batch, Event
from tmm_core.operations.event_log.files import (
    BUSY_MS,
    check_schema,
    connect,
    file_of,
    files_of,
    identity_of,
    month_of,
)  # fmt: skip

__all__ = ["EventLog", "connect", "file_of", "files_of", "month_of"]

_LETTER_COMMITS = 1_000  # a letter is deleted right after its commit: no need to remember it for long
_OUTCOMES = ("throttled", "spare", "within", "priority")
_UNITS = tuple(f"{name}_units" for name in _OUTCOMES)


class EventLog:
    """The log of one host, open for writing.

    Parameters
    ----------
    path : path
        As configured, for example ``events.db``; the files are named by month.
    at_ms : int
        UTC now, milliseconds since 1970: chooses the file.
    host : str, optional
        Name of this host; the system's by default.

    Raises
    ------
    EventLogError
        The file cannot be opened, is not an event log, or is of a later version.

    Notes
    -----
    *Not thread-safe: one writer.* Whoever writes holds the log's lock (``watch.elect``). Each `append` is one
    transaction, on disk when it returns (``synchronous=FULL``).
    """

    def __init__(self, path: str | PathLike[str], *, at_ms: int, host: str | None = None) -> None:
        self._path = Path(path)
        self._host = host or socket.gethostname()
        self._month = ""
        self._connection: sqlite3.Connection | None = None
        self._users: dict[str, int] = {}
        self._srvs: dict[str, int] = {}
        self._seq = 0
        earlier = [file for file in files_of(path) if file != self._path]
        newest = earlier[-1].stem[-7:] if earlier else ""
        self._open(max(month_of(at_ms), newest))

    @property
    def file(self) -> Path:
        """The file that is written now."""
        return file_of(self._path, self._month)

    @property
    def month(self) -> str:
        """The month of the file that is written now."""
        return self._month

    @property
    def in_place(self) -> bool:
        """Whether the file is still the one that was opened: not removed, moved or replaced."""
        return identity_of(self.file) == self._identity

    @property
    def seq(self) -> int:
        """Number of the last commit."""
        return self._seq

    def totals(self, source_id: str) -> tuple[dict[tuple[str, str], list[int]], dict[str, list[int]]]:
        """Return what of a source's counters is in the log: requests by (User, SRV), units by User."""
        connection = self._open_connection()
        requests = {
            (row[0], row[1]): list(row[2:])
            for row in connection.execute(
                "SELECT name, code, throttled, spare, within, priority FROM totals JOIN sources USING (source)"
                " JOIN users USING (user) JOIN srvs USING (srv) WHERE source_id = ?",
                (source_id,),
            )
        }
        units = {
            row[0]: list(row[1:])
            for row in connection.execute(
                f"SELECT name, {', '.join(_UNITS)} FROM unit_totals JOIN sources USING (source)"
                " JOIN users USING (user) WHERE source_id = ?",
                (source_id,),
            )
        }
        return requests, units

    def candidate_totals(self, source_id: str) -> dict[str, list[int]]:
        """Return what of a source's differences of candidate allocations is in the log, by User."""
        return schema.candidate_totals(self._open_connection(), source_id)

    def last_source(self) -> sqlite3.Row | None:
        """Return the source of the last commit, or None in a new log."""
        connection = self._open_connection()
        connection.row_factory = sqlite3.Row
        found: sqlite3.Row | None = connection.execute(
            "SELECT sources.*, commits.to_ms, commits.mono_ns FROM commits JOIN sources USING (source)"
            " ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        connection.row_factory = None
        return found

    def activations(self, source_id: str) -> int:
        """Return how many activations of a source the log knows of."""
        row = (
            self._open_connection()
            .execute("SELECT activations FROM sources WHERE source_id = ?", (source_id,))
            .fetchone()
        )
        return 0 if row is None else row[0]

    def letters(self) -> set[str]:
        """Return the letters of other processes that are in the log, the latest of them."""
        return {row[0] for row in self._open_connection().execute("SELECT name FROM letters")}

    def last_configuration(self) -> tuple[str | None, str]:
        """Return the version last put in force, or None, and that of the candidate allocations beside it."""
        query = (
            "SELECT version, coalesce(json_extract(description, '$.candidate.version'), '') FROM configurations"
            " ORDER BY from_ms DESC, seq DESC LIMIT 1"
        )
        row: tuple[str, str] | None = self._open_connection().execute(query).fetchone()
        return row or (None, "")

    def open_events(self, source_id: str) -> list[Event]:
        """Return a source's events that have not ended."""
        fields = [name for name in Event.__slots__ if name != "number"]
        rows = self._open_connection().execute(
            f"SELECT number, {', '.join(fields)} FROM traffic_management_events WHERE ended_ms IS NULL"
            " AND source = (SELECT source FROM sources WHERE source_id = ?) ORDER BY number",
            (source_id,),
        )
        found = [Event(number=row[0], **dict(zip(fields, row[1:], strict=True))) for row in rows]
        for event in found:
            event.began_exact = bool(event.began_exact)
        return found

    def append(self, batch: Batch) -> int:
        """Write a batch in one transaction; returns its sequence number.

        Raises
        ------
        EventLogError
            It could not be written: disk full, locked, damaged, or a value the log does not take. Nothing of it is
            in the log.
        """
        try:
            month = month_of(batch.from_ms)
            if month > self._month:
                self._open(month)
            connection = self._open_connection()
            known = dict(self._users), dict(self._srvs)
            try:
                with self._transaction(connection):
                    seq = self._write(connection, batch)
            except BaseException:
                # Names that were given a number in the transaction have none any more.
                self._users, self._srvs = known
                raise
        except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError) as error:
            raise EventLogError(f"{self.file}: cannot be written: {error}") from error
        self._seq = seq
        return seq

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- opening

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise EventLogError(f"{self.file}: the event log is closed")
        return self._connection

    def _open(self, month: str) -> None:
        file = file_of(self._path, month)
        try:
            connection = sqlite3.connect(
                file, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise EventLogError(f"{file}: cannot be opened: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 1000")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if new:
                with self._transaction(connection):
                    for statement in schema.statements():
                        connection.execute(statement)
                    self._begin_file(connection, month)
                    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
            check_schema(connection, file)
            schema.add_candidate_tables(connection)
            users = dict(connection.execute("SELECT name, user FROM users").fetchall())
            srvs = dict(connection.execute("SELECT code, srv FROM srvs").fetchall())
            last = connection.execute("SELECT max(seq) FROM commits").fetchone()[0]
            base = connection.execute("SELECT value FROM meta WHERE key = 'first_seq'").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise EventLogError(f"{file}: cannot be opened as an event log: {error}") from error
        except BaseException:
            connection.close()
            raise
        self.close()
        self._connection, self._month, self._users, self._srvs = connection, month, users, srvs
        self._identity = identity_of(file)
        self._seq = last if last is not None else int(base[0]) - 1

    def _begin_file(self, connection: sqlite3.Connection, month: str) -> None:
        """Fill in what a new file starts with: who writes it, and what goes on from the month before."""
        from tmm_core import __version__

        host_id, first_seq = uuid.uuid4().hex, 1
        earlier = [file for file in files_of(self._path) if file != self._path and file.stem[-7:] < month]
        if earlier:
            old = connect(earlier[-1])
            try:
                host_id = old.execute("SELECT value FROM meta WHERE key = 'host_id'").fetchone()[0]
                first = old.execute("SELECT value FROM meta WHERE key = 'first_seq'").fetchone()[0]
                last = old.execute("SELECT max(seq) FROM commits").fetchone()[0]
                first_seq = int(first) if last is None else last + 1
                _carry_on(old, connection)
            finally:
                old.close()
        values = {
            "host": self._host,
            "host_id": host_id,
            "month": month,
            "first_seq": str(first_seq),
            "created_by": f"tmm-core {__version__}",
        }
        connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # ---- writing

    def _number(self, table: str, column: str, known: dict[str, int], name: str) -> int:
        number = known.get(name)
        if number is None:
            cursor = self._open_connection().execute(f"INSERT INTO {table} ({column}) VALUES (?)", (name,))
            assert cursor.lastrowid is not None
            number = known[name] = cursor.lastrowid
        return number

    def _user(self, name: str) -> int:
        return self._number("users", "name", self._users, name)

    def _srv(self, code: str) -> int:
        return self._number("srvs", "code", self._srvs, code)

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> int:
        seq = self._seq + 1
        source = self._source(connection, batch)
        connection.execute(
            "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq, source, batch.from_ms, batch.to_ms, batch.mono_ns, batch.polls, batch.requests),
        )
        self._write_counts(connection, source, batch)
        self._write_system(connection, batch)
        self._write_events(connection, seq, source, batch)
        self._write_rest(connection, seq, batch)
        return seq

    def _source(self, connection: sqlite3.Connection, batch: Batch) -> int:
        given = batch.source
        ended = batch.to_ms if batch.ended else None
        connection.execute(
            "INSERT INTO sources (source_id, kind, began_ms, last_ms, ended_ms, pid, activations)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source_id) DO UPDATE SET last_ms = excluded.last_ms, ended_ms = excluded.ended_ms,"
            " pid = excluded.pid, activations = excluded.activations",
            (given.source_id, given.kind, given.began_ms, batch.to_ms, ended, given.pid, batch.activations),
        )
        row = connection.execute("SELECT source FROM sources WHERE source_id = ?", (given.source_id,))
        number: int = row.fetchone()[0]
        return number

    def _write_counts(self, connection: sqlite3.Connection, source: int, batch: Batch) -> None:
        def cells(table: dict[tuple[Any, ...], list[int]]) -> list[tuple[int, ...]]:
            return [
                (when, self._user(user), self._srv(srv), *row) for (when, user, srv), row in table.items()
            ]

        requests = [
            (source, self._user(user), self._srv(srv), *row) for (user, srv), row in batch.counts.items()
        ]
        connection.executemany(schema.adding("totals", ("source", "user", "srv"), _OUTCOMES), requests)
        units = [(source, self._user(user), *row) for (user,), row in batch.units.items()]
        connection.executemany(schema.adding("unit_totals", ("source", "user"), _UNITS), units)
        minutes = cells(batch.minute_counts)
        connection.executemany(schema.adding("minute_counts", ("minute", "user", "srv"), _OUTCOMES), minutes)
        connection.executemany(
            schema.adding("day_counts", ("day", "user", "srv"), _OUTCOMES), schema.by_day(minutes, keys=3)
        )
        connection.executemany(
            schema.adding("second_counts", ("second", "user", "srv"), _OUTCOMES), cells(batch.second_counts)
        )
        users = [(when, self._user(user), *row) for (when, user), row in batch.user_minutes.items()]
        connection.executemany(
            schema.adding("user_minutes", ("minute", "user"), (*_OUTCOMES, *_UNITS)), users
        )
        connection.executemany(
            schema.adding("user_days", ("day", "user"), (*_OUTCOMES, *_UNITS)), schema.by_day(users, keys=2)
        )
        schema.write_candidates(connection, source, batch, self._user)

    def _write_system(self, connection: sqlite3.Connection, batch: Batch) -> None:
        connection.executemany(
            "INSERT INTO system_minutes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (minute) DO UPDATE SET"
            " polls = polls + excluded.polls, active_polls = active_polls + excluded.active_polls,"
            " load_sum = load_sum + excluded.load_sum, load_max = max(load_max, excluded.load_max),"
            " offered_sum = offered_sum + excluded.offered_sum,"
            " offered_max = max(offered_max, excluded.offered_max),"
            " backlog_max_s = max(backlog_max_s, excluded.backlog_max_s),"
            " level_min = min(level_min, excluded.level_min)",
            [
                (minute, s.polls, s.active_polls, s.load_sum, s.load_max, s.offered_sum, s.offered_max,
                 s.backlog_max_s, s.level_min)
                for minute, s in batch.system_minutes.items()
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT OR REPLACE INTO system_seconds VALUES (?, ?, ?, ?, ?)",
            [(second, *row) for second, row in batch.system_seconds.items()],
        )

    def _write_events(self, connection: sqlite3.Connection, seq: int, source: int, batch: Batch) -> None:
        names = [name for name in Event.__slots__ if name != "number"]
        changing = ", ".join(
            f"{name} = excluded.{name}"
            for name in ("seq", "ended_ms", "ended_mono_ns", "ended_exact", "duration_ms", "load_max",
                         "offered_max", "backlog_max_s", "level_min")
        )  # fmt: skip
        connection.executemany(
            f"INSERT INTO traffic_management_events (seq, source, number, {', '.join(names)})"
            f" VALUES ({', '.join('?' * (len(names) + 3))}) ON CONFLICT (event) DO UPDATE SET {changing}",
            [
                (seq, source, event.number, *(getattr(event, name) for name in names))
                for event in batch.events.values()
            ],
        )
        connection.executemany(
            "INSERT INTO event_users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (event, user) DO UPDATE SET "
            + ", ".join(f"{name} = {name} + excluded.{name}" for name in (*_OUTCOMES, *_UNITS))
            + ", throttled_seconds = throttled_seconds + excluded.throttled_seconds,"
            " first_throttled_ms = ifnull(first_throttled_ms, excluded.first_throttled_ms),"
            " last_throttled_ms = ifnull(excluded.last_throttled_ms, last_throttled_ms)",
            [
                (event, self._user(user), u.allocation, u.began_offered, u.over_at_beginning, *u.outcomes,
                 u.throttled_seconds, u.first_throttled_ms, u.last_throttled_ms)
                for (event, user), u in batch.event_users.items()
            ],
        )  # fmt: skip
        connection.executemany(
            schema.adding("event_counts", ("event", "user", "srv"), _OUTCOMES),
            [
                (event, self._user(user), self._srv(srv), *row)
                for (event, user, srv), row in batch.event_counts.items()
            ],
        )

    def _write_rest(self, connection: sqlite3.Connection, seq: int, batch: Batch) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO configurations VALUES (?, ?, ?, ?)",
            [
                (seq, each.from_ms, each.version, json.dumps(each.description, allow_nan=False))
                for each in batch.configurations
            ],
        )
        connection.executemany(
            "INSERT INTO faults (seq, at_ms, mono_ns, kind, user, count, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (seq, f.at_ms, f.mono_ns, f.kind, None if f.user is None else self._user(f.user), f.count,
                 _written(f.detail))
                for f in batch.faults
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO priority_excesses VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (minute, ifnull(user, -1)) DO UPDATE SET"
            " priority_rate = max(priority_rate, excluded.priority_rate), seconds = seconds + excluded.seconds",
            [
                (minute, None if user is None else self._user(user), seq, p.priority_rate, p.plan, p.seconds)
                for (minute, user), p in batch.priority_excesses.items()
            ],
        )
        connection.executemany(
            "INSERT INTO throttle_records (seq, at_ms, now_ns, version, user, srv, tat, spare_tat, backlog,"
            " level, active, decision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (seq, r.at_ms, r.now_ns, r.version, self._user(r.user), self._srv(r.srv), r.tat, r.spare_tat,
                 r.backlog, r.level, r.active, r.decision)
                for r in batch.throttle_records
            ],
        )  # fmt: skip
        connection.executemany("INSERT INTO letters VALUES (?, ?)", [(name, seq) for name in batch.letters])
        if batch.letters:
            connection.execute("DELETE FROM letters WHERE seq < ?", (seq - _LETTER_COMMITS,))
        connection.executemany(
            "INSERT INTO losses (seq, what, records, first_ms, last_ms, reason) VALUES (?, ?, ?, ?, ?, ?)",
            [(seq, x.what, x.records, x.first_ms, x.last_ms, _written(x.reason)) for x in batch.losses],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (n.event, self._user(n.user), n.notice, n.sender, n.state, n.attempts, n.at_ms, n.detail)
                for n in batch.notifications
            ],
        )


def _written(text: str) -> str:
    """Return a text as UTF-8 can write it: the name of a file in it may be none."""
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")


def _carry_on(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Copy what goes on in the next month: sources still counting, their totals, open events, the configuration."""
    # One source is watched at a time. Earlier ones have ended, with a word or without.
    live = (
        "source = (SELECT source FROM commits ORDER BY seq DESC LIMIT 1)"
        " AND source IN (SELECT source FROM sources WHERE kind = 'shared' OR ended_ms IS NULL)"
    )
    open_event = f"ended_ms IS NULL AND {live}"
    events = f"SELECT event FROM traffic_management_events WHERE {open_event}"
    copies = {
        "users": "SELECT * FROM users",
        "srvs": "SELECT * FROM srvs",
        "sources": f"SELECT * FROM sources WHERE {live}",
        "letters": "SELECT * FROM letters",
        "configurations": "SELECT * FROM configurations ORDER BY from_ms DESC, seq DESC LIMIT 1",
        "traffic_management_events": f"SELECT * FROM traffic_management_events WHERE {open_event}",
        "event_users": f"SELECT * FROM event_users WHERE event IN ({events})",
        "event_counts": f"SELECT * FROM event_counts WHERE event IN ({events})",
    }
    for table, base in (("totals", "bases"), ("unit_totals", "unit_bases")):
        copies[table] = copies[base] = f"SELECT * FROM {table} WHERE {live}"
    if schema.has_candidates(old):
        copies["candidate_totals"] = f"SELECT * FROM candidate_totals WHERE {live}"
    for table, query in copies.items():
        rows = [tuple(row) for row in old.execute(query)]
        if rows:
            new.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
