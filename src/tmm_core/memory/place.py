"""Files of a shared block: where they are, who may have made them, and memory that is really there.

A plain name is a file in a folder of this account alone, under ``/dev/shm`` where there is one. Nothing is
followed that could have been planted: no symbolic link, no file of another account, none that others may
write to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
import tempfile
from pathlib import Path

from tmm_core.errors import MemoryLayoutError

__all__ = ["allocate", "create_file", "open_anew", "open_file", "path_of", "read_text", "write_text"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_MAX_TEXT = 1 << 30
_OWNER_ONLY = 0o077
_CHUNK = 1 << 20


def path_of(shared: str, *, make: bool = True) -> str:
    """Return the path of a block by its name or path.

    Parameters
    ----------
    shared : str
        A path if there is a separator in it, otherwise a name.
    make : bool
        Make the folder for names where it is missing.

    Raises
    ------
    MemoryLayoutError
        The name cannot be one, or the folder is not safe.
    """
    if sys.platform == "win32":
        raise MemoryLayoutError(
            f"{shared}: a block shared by processes needs Linux or macOS: on Windows run one process with threads"
        )
    if "/" in shared:
        return os.path.abspath(shared)
    if not _NAME.fullmatch(shared):
        raise MemoryLayoutError(
            f"{shared!r} is no name of a block: expected letters, digits, dots and dashes, or a path"
        )
    base = Path("/dev/shm")
    if not base.is_dir():
        base = Path(tempfile.gettempdir())
    folder = base / f"tmm-{os.geteuid()}"
    if make:
        with contextlib.suppress(FileExistsError):
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                raise
            except OSError as error:
                raise MemoryLayoutError(f"{folder}: cannot be made: {error.strerror}") from None
    with contextlib.suppress(FileNotFoundError):
        _check_folder(folder)
    return str(folder / shared)


def _check_folder(folder: Path) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise MemoryLayoutError(f"{folder}: found {_kind(found.st_mode)}, expected a folder of this account")
    if found.st_uid != os.geteuid() or found.st_mode & _OWNER_ONLY:
        raise MemoryLayoutError(
            f"{folder}: found a folder of account {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}, "
            f"expected account {os.geteuid()} and mode 0700"
        )


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "something that is no file")


def open_file(path: str, *, writable: bool) -> int:
    """Open a file that must be there, of this account and closed to others.

    Raises
    ------
    FileNotFoundError
        There is none.
    MemoryLayoutError
        It is not safe to use.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            found = _kind(os.lstat(path).st_mode)
            raise MemoryLayoutError(f"{path}: found {found}, expected a file") from None
        raise MemoryLayoutError(f"{path}: {error.strerror}") from None
    info = os.fstat(fd)
    fault = None
    if not stat.S_ISREG(info.st_mode):
        fault = f"found {_kind(info.st_mode)}, expected a file"
    elif info.st_uid != os.geteuid() and (writable or os.geteuid() != 0):
        fault = f"found a file of account {info.st_uid}, expected account {os.geteuid()}"
    elif info.st_mode & _OWNER_ONLY:
        fault = f"found mode {stat.S_IMODE(info.st_mode):04o}, expected 0600: others may read or write it"
    if fault:
        os.close(fd)
        raise MemoryLayoutError(f"{path}: {fault}")
    return fd


def open_anew(fd: int, name: str, file: tuple[int, int], *, writable: bool) -> int:
    """Open the file of a descriptor once more: another description, with locks of its own.

    Parameters
    ----------
    fd : int
    name : str
        Its path.
    file : tuple of int
        Its device and number.
    writable : bool

    Raises
    ------
    FileNotFoundError
        It has been removed, and cannot be opened by its descriptor.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    for path, more in ((f"/proc/self/fd/{fd}", 0), (name, os.O_NOFOLLOW)):
        with contextlib.suppress(OSError):
            anew = os.open(path, flags | more)
            found = os.fstat(anew)
            if (found.st_dev, found.st_ino) == file:
                return anew
            os.close(anew)
    raise FileNotFoundError(f"{name} has been removed")


def create_file(path: str, mark: str = "") -> tuple[int, str]:
    """Create a file of this account beside `path`, under a name nobody can guess; returns it and its path.

    Parameters
    ----------
    path : str
    mark : str
        Stands in the name, behind that of `path`.

    Raises
    ------
    MemoryLayoutError
        The folder is missing or may not be written to.
    """
    temporary = f"{path}{mark}.{secrets.token_hex(8)}.new"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600)
    except OSError as error:
        where = os.path.dirname(path)
        raise MemoryLayoutError(f"{path}: cannot be made in {where}: {error.strerror}") from None
    os.fchmod(fd, 0o600)
    return fd, temporary


def allocate(fd: int, offset: int, nbytes: int, path: str) -> None:
    """Make a part of a file real memory: a hole would end the process (SIGBUS) where the disk is full.

    The part must be new: where the system cannot allocate, zeros are written.

    Raises
    ------
    MemoryLayoutError
        There is no room.
    """
    if not nbytes:
        return
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, offset, nbytes)
            return
        for start in range(offset, offset + nbytes, _CHUNK):
            os.pwrite(fd, bytes(min(_CHUNK, offset + nbytes - start)), start)
    except OSError as error:
        raise MemoryLayoutError(f"{path}: no room for {nbytes:,} bytes more: {_room(path, error)}") from None


def _room(path: str, error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return f"{error.strerror}"
    disk = os.statvfs(os.path.dirname(path))
    return (
        f"{disk.f_bavail * disk.f_frsize:,} of {disk.f_blocks * disk.f_frsize:,} bytes are free: give it more "
        "(containers: --shm-size), configure fewer slots (max_users), or a path on another disk"
    )


def write_text(path: str, text: bytes) -> None:
    """Write a small file whole: it is there with all its bytes or not at all.

    Raises
    ------
    MemoryLayoutError
    """
    fd, temporary = create_file(path)
    try:
        with open(fd, "wb") as out:
            out.write(text)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise MemoryLayoutError(f"{path}: cannot be written: {_room(path, error)}") from None


def read_text(path: str) -> bytes:
    """Read a small file.

    Raises
    ------
    FileNotFoundError
    MemoryLayoutError
    """
    fd = open_file(path, writable=False)
    with open(fd, "rb") as file:
        size = os.fstat(fd).st_size
        if size > _MAX_TEXT:
            raise MemoryLayoutError(f"{path}: found {size:,} bytes, expected at most {_MAX_TEXT:,}")
        return file.read()
