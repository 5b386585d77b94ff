"""Byte locks the kernel drops when their owner dies, whatever killed it.

A lock belongs to an open file description, not to a process number: a number used again, or another process
namespace, cannot be taken for the owner. A forked child shares its parent's description: it must close it and
open the file anew, or the lock outlives the parent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys

if sys.platform != "win32":
    import fcntl

__all__ = ["ByteLocks"]

# short l_type, short l_whence, off_t l_start, off_t l_len, pid_t l_pid
_FLOCK = struct.Struct("@hhqqi0q")
_BUSY = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}


class ByteLocks:
    """Locks by number, on one open file; where there are no such locks (macOS), on a small file each beside it.

    Parameters
    ----------
    fd : int
        The file, opened by this process for itself.
    path : str
    """

    __slots__ = ("_fd", "_files", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._files: dict[int, int] = {}

    def take(self, number: int) -> bool:
        """Take a lock if nobody has it. Taking one's own again says True."""
        if hasattr(fcntl, "F_OFD_SETLK"):
            return self._lock(number, fcntl.F_WRLCK)
        return number in self._files or self._take_file(number)

    def share(self, number: int) -> bool:
        """Take a lock together with others that share it, if nobody has taken it alone."""
        if hasattr(fcntl, "F_OFD_SETLK"):
            return self._lock(number, fcntl.F_RDLCK)
        return number in self._files or self._take_file(number, fcntl.LOCK_SH)

    def _lock(self, number: int, kind: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, number, 1, 0))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def give(self, number: int) -> None:
        """Give a lock back."""
        if hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, number, 1, 0))
        elif number in self._files:
            os.close(self._files.pop(number))

    def is_taken(self, number: int) -> bool:
        """Tell whether anybody else has it; the file may be open for reading only."""
        if hasattr(fcntl, "F_OFD_GETLK"):
            answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, number, 1, 0))
            return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
        if number in self._files:
            return False
        taken = not self._take_file(number)
        self.give(number)
        return taken

    def close(self) -> None:
        """Close all files: locks that no other description of this process shares are given back."""
        for fd in (self._fd, *self._files.values()):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._files.clear()
        self._fd = -1

    def _take_file(self, number: int, kind: int | None = None) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{self._path}.lock{number}", flags, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if kind is None else kind) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in _BUSY:
                return False
            raise
        self._files[number] = fd
        return True
