"""Who of a host's processes writes the event log: the one that holds a lock on ``events.db.lock``.

The kernel lets go of the lock when its holder dies, however it dies; nothing has to be cleaned up.
"""

from __future__ import annotations

import os
import weakref
from os import PathLike
from pathlib import Path

from tmm_core.errors import EventLogError
from tmm_core.operations.event_log.files import identity_of

__all__ = ["Seat", "take_seat"]


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
