"""Who of a host's processes keeps the event log, and for how long.

The one writes it that holds a lock on ``events.db.lock``. The kernel lets go of the lock when its holder dies,
however it dies; nothing has to be cleaned up. Whole files go after some years, seconds and minutes after some months.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from contextlib import closing
from os import PathLike
from pathlib import Path

from tmm_core.errors import EventLogError
from tmm_core.operations.event_log.files import BUSY_MS, files_of, identity_of

__all__ = ["Seat", "keep_within", "months_between", "take_seat"]

_log = logging.getLogger("tmm_core.watch")
_LONGEST_PAUSE = 12  # months without a file: more looks like a clock that is wrong
_DETAIL = ("second_counts", "minute_counts", "user_minutes", "system_seconds")


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

    Raises
    ------
    EventLogError
        The lock's file cannot be made.
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
    """Delete what is too old: files after `keep_months`, their seconds and minutes after `detail_months`.

    Parameters
    ----------
    path : path
        The log as configured.
    month : str
        The month now.
    keep_months, detail_months : int
        0: never.

    Returns
    -------
    list of Path
        Files deleted or made smaller. What cannot be done is logged and tried again next month. Nothing is deleted
        in a month that comes more than a year after the last one: a clock that leaps ahead must not take the log.
    """
    done: list[Path] = []
    files = [file for file in files_of(path) if file != Path(path)]
    last = max((each for file in files if (each := file.stem[-7:]) < month), default=month)
    if months_between(last, month) > _LONGEST_PAUSE:
        _log.warning(
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
            _log.warning("%s: older than configured, and cannot be deleted or made smaller: %s", file, error)
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
