"""The files of the event log: reading them (one host or many, one month or all), who keeps them, and for how long.

``events.db`` in the configuration names ``events-2026-11.db`` and so on, one file a month. The one of a host's
processes writes it that holds a lock on ``events.db.lock``. The kernel lets go of the lock when its holder dies,
however it dies; nothing has to be cleaned up. Whole files go after some years, seconds and minutes after some months.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from tmm_core.errors import EventLogError
from tmm_core.operations.event_log.schema import APPLICATION_ID, SCHEMA_VERSION

_log = logging.getLogger("tmm_core.events")
_watch_log = logging.getLogger("tmm_core.watch")

#: How long a reader or the writer waits for the other.
BUSY_MS = 1_000
_LONGEST_PAUSE = 12  # months without a file: more looks like a clock that is wrong
_DETAIL = ("second_counts", "minute_counts", "user_minutes", "system_seconds")
_OPEN_A_FILE = 3  # with what SQLite keeps beside each
_OPEN_BESIDES = 100


def month_of(at_ms: int) -> str:
    """Return the month of a time, UTC, for example ``2026-11``."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m}"


def file_of(path: str | PathLike[str], month: str) -> Path:
    """Return the file of a log for a month: ``events-2026-11.db`` of ``events.db``."""
    base = Path(path)
    return base.with_name(f"{base.stem}-{month}{base.suffix}")


def files_of(path: str | PathLike[str]) -> list[Path]:
    """Return the files of a log, oldest first; the path itself where it is a file already."""
    base = Path(path)
    found = sorted(base.parent.glob(f"{_escaped(base.stem)}-[0-9][0-9][0-9][0-9]-[0-9][0-9]{base.suffix}"))
    return [base, *found] if base.is_file() else found


def identity_of(file: Path) -> tuple[int, int] | None:
    """Return which file of the system this is, whatever it is called; None if it is not there."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _escaped(text: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in text)


def connect(path: str | PathLike[str]) -> sqlite3.Connection:
    """Open one file of a log to read it, also while it is written: it writes nothing, and rows are `sqlite3.Row`.

    EventLogError if the file is not there, or is not an event log this version can read.
    """
    file = Path(path)
    if not file.is_file():
        raise EventLogError(f"{file}: there is no such event log")
    try:
        try:
            connection = _connected(file, "mode=ro")
        except sqlite3.OperationalError as error:
            # A reader of a write-ahead log makes a file beside it, which it cannot in a folder that is not its own or
            # on a medium for reading only. Where nobody writes there is no log ahead: all is in this one file.
            if not error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
                raise
            ahead = Path(f"{file}-wal")
            if ahead.exists() and ahead.stat().st_size:
                fault = "it was not finished: copy it with its -wal to where you may write"
                raise EventLogError(f"{file}: cannot be read as an event log: {error}; {fault}") from error
            connection = _connected(file, "immutable=1")
    except sqlite3.Error as error:
        raise EventLogError(f"{file}: cannot be read as an event log: {error}") from error
    connection.execute("PRAGMA query_only = ON")
    connection.row_factory = sqlite3.Row
    return connection


def _connected(file: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{file.resolve().as_uri()}?{how}", uri=True, timeout=BUSY_MS / 1000, check_same_thread=False
    )
    try:
        check_schema(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def check_schema(connection: sqlite3.Connection, file: Path) -> None:
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != APPLICATION_ID:
        raise EventLogError(
            f"{file}: not an event log: application_id {found:#x}, expected {APPLICATION_ID:#x}"
        )
    if not 1 <= version <= SCHEMA_VERSION:
        raise EventLogError(
            f"{file}: schema version {version}, expected 1 to {SCHEMA_VERSION}: written by a later tmm-core"
        )


class LogFile:
    """One file of a log, open for reading: its host, its month, and its rows."""

    __slots__ = ("compacted", "connection", "host", "host_id", "month", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect(path)
        try:
            meta = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        except sqlite3.Error as error:
            self.connection.close()
            raise EventLogError(f"{path}: cannot be read as an event log: {error}") from error
        self.host: str = meta["host"]
        self.host_id: str = meta["host_id"]
        self.month: str = meta["month"]
        self.compacted = "compacted" in meta  # seconds and minutes are deleted

    def rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Iterator[sqlite3.Row]:
        """Yield the rows of a query on this file."""
        yield from self.connection.execute(query, values)


def _without_copies(files: Iterable[LogFile]) -> list[LogFile]:
    """Leave out copies, and say so: what is in them would be counted twice.

    A copy made while its file was still written ends earlier. Two files of a host and month that are no copies of one
    another (one was moved away, and another begun) are both kept.
    """
    kept: list[LogFile] = []
    commit = "SELECT seq, from_ms, to_ms, mono_ns, requests FROM commits"
    lasts = [(file, next(file.rows(f"{commit} ORDER BY seq DESC LIMIT 1"), None)) for file in files]
    # Of equal ones the one whose seconds and minutes are still there.
    lasts.sort(key=lambda each: (0 if each[1] is None else -each[1]["seq"], each[0].compacted))
    for file, last in lasts:
        for other in kept:
            if (other.host_id, other.month) != (file.host_id, file.month):
                continue
            if last is None or tuple(last) in map(
                tuple, other.rows(f"{commit} WHERE seq = ?", (last["seq"],))
            ):
                _log.warning("%s: left out, it is a copy of %s", file.path, other.path)
                break
        else:
            kept.append(file)
    return kept


def _make_room(files: int) -> None:
    """Let this process open so many files of logs at once; seven years of a few hosts are more than the usual 1,024.

    EventLogError if the system does not allow it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = files * _OPEN_A_FILE + _OPEN_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        raise EventLogError(
            f"{files} files of event logs need {wanted} open files, found a limit of {hard}: name fewer, or raise it "
            "(ulimit -Hn)"
        ) from None


class LogSet:
    """The logs of one or many hosts, open for reading.

    Parameters
    ----------
    paths : iterable of path
        Files, configured paths (``events.db``: all its months), or folders (all ``*.db`` in them).

    Raises
    ------
    EventLogError
        There is no file, or one cannot be read as an event log.

    Attributes
    ----------
    files : list of LogFile
        By host and month. Of copies of one file only the one that goes on furthest.

    Notes
    -----
    *Not thread-safe.* Numbers of Users, SRVs and sources belong to one file: join on them inside it.
    """

    def __init__(self, paths: Iterable[str | PathLike[str]]) -> None:
        found: dict[Path, None] = {}
        for each in paths:
            path = Path(each)
            files = sorted(path.glob("*.db")) if path.is_dir() else files_of(path)
            if not files:
                raise EventLogError(f"{path}: there is no such event log")
            found.update(dict.fromkeys(file.resolve() for file in files))
        _make_room(len(found))
        with ExitStack() as opened:
            self.files: list[LogFile] = []
            for path in found:
                file = LogFile(path)
                opened.enter_context(closing(file.connection))
                self.files.append(file)
            self.files = _without_copies(self.files)
            self.files.sort(key=lambda file: (file.host, file.host_id, file.month))
            self._opened = opened.pop_all()

    def rows(
        self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()
    ) -> Iterator[tuple[LogFile, sqlite3.Row]]:
        """Yield the rows of a query on each file, with the file."""
        for file in self.files:
            for row in file.rows(query, values):
                yield file, row

    def events(self, since_ms: int = 0, until_ms: int = 1 << 62) -> list[dict[str, Any]]:
        """Return the traffic management events that lasted into a time, each once, by their beginning.

        An event is in each month's file it lasted into: the last one that knows it is taken.

        Returns
        -------
        list of dict
            The columns of ``traffic_management_events``, and ``host``, ``source_id``, ``last_ms`` (the last
            commit of its source: an event without an end was still open then).
        """
        found: dict[str, dict[str, Any]] = {}
        for file, row in self.rows(
            "SELECT e.*, s.source_id, s.last_ms FROM traffic_management_events AS e JOIN sources AS s USING (source)"
            " WHERE e.began_ms < ? AND ifnull(e.ended_ms, s.last_ms) >= ?",
            (until_ms, since_ms),
        ):
            event = {**dict(row), "host": file.host}
            before = found.get(event["event"])
            if before is None or before["seq"] <= event["seq"]:
                found[event["event"]] = event
        return sorted(found.values(), key=lambda event: (event["began_ms"], event["host"], event["number"]))

    def close(self) -> None:
        """Close all files. Harmless when repeated."""
        self._opened.close()

    def __enter__(self) -> LogSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- who keeps them, and for how long


class Seat:
    """The right to write a log, until `leave` or the end of the process."""

    __slots__ = ("__weakref__", "_fd", "_lock")

    def __init__(self, fd: int, lock: Path) -> None:
        self._fd = fd
        self._lock = lock
        _seats.add(self)

    @property
    def in_place(self) -> bool:
        """Whether others meet this lock: its file was not removed."""
        if self._fd < 0:
            return False
        held = os.fstat(self._fd)
        return identity_of(self._lock) == (held.st_dev, held.st_ino)

    def leave(self) -> None:
        """Let somebody else write. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_seats: weakref.WeakSet[Seat] = weakref.WeakSet()


def _leave_all() -> None:
    # A lock of flock belongs to the open file, which a child shares: it would hold on when its parent dies.
    for seat in list(_seats):
        seat.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def take_seat(path: str | PathLike[str]) -> Seat | None:
    """Take the right to write a log, or return None where another process has it.

    EventLogError if the lock's file cannot be made.
    """
    base = Path(path)
    lock = base.with_name(base.name + ".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o640)
    except OSError as error:
        raise EventLogError(f"{lock}: cannot be opened: {error.strerror}") from error
    if _locked(fd):
        return Seat(fd, lock)
    os.close(fd)
    return None


def _locked(fd: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def months_between(early: str, late: str) -> int:
    """Return the months from one to another, for example 2 from ``2026-11`` to ``2027-01``."""
    year, month = (int(part) for part in early.split("-"))
    later_year, later_month = (int(part) for part in late.split("-"))
    return (later_year - year) * 12 + later_month - month


def keep_within(path: str | PathLike[str], month: str, keep_months: int, detail_months: int) -> list[Path]:
    """Delete what is too old: files after `keep_months`, their seconds and minutes after `detail_months` (0: never).

    Returns the files deleted or made smaller in this `month`. What cannot be done is logged and tried again next month.
    Nothing is deleted in a month that comes more than a year after the last one: a clock that leaps ahead must not take
    the log.
    """
    done: list[Path] = []
    files = [file for file in files_of(path) if file != Path(path)]
    last = max((each for file in files if (each := file.stem[-7:]) < month), default=month)
    if months_between(last, month) > _LONGEST_PAUSE:
        _watch_log.warning(
            "%s: the log goes on from %s to %s: nothing is deleted before the next month; is the clock right?",
            path, last, month,
        )  # fmt: skip
        return done
    for file in files:
        age = months_between(file.stem[-7:], month)
        try:
            if keep_months and age > keep_months:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{file}{suffix}").unlink(missing_ok=True)
                done.append(file)
            elif detail_months and age > detail_months and _compact(file):
                done.append(file)
        except (OSError, sqlite3.Error) as error:
            _watch_log.warning(
                "%s: older than configured, and cannot be deleted or made smaller: %s", file, error
            )
    return done


def _compact(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=BUSY_MS / 1000, isolation_level=None)) as connection:
        if connection.execute("SELECT 1 FROM meta WHERE key = 'compacted'").fetchone():
            return False
        connection.execute("BEGIN IMMEDIATE")
        for table in _DETAIL:
            connection.execute(f"DELETE FROM {table}")
        connection.execute("INSERT INTO meta VALUES ('compacted', 'seconds and minutes deleted, days kept')")
        connection.execute("COMMIT")
        connection.execute("VACUUM")
    return True
