"""A block in a mapped file: made by the first process of a host that asks for it, joined by the others.

    header page | the engine's block: control, Users, slab 0 (common), slab 1, slab 2, ...

The file is larger than its memory: address space is kept for many Users and slabs, and memory is allocated
for those there are, before anybody may touch it. So a block grows in place, and no mapping is ever left
behind. A slab belongs to the process that holds its byte lock; what a dead process has counted stays, and
whoever takes its slab next goes on counting there.

A process that may count there, now or later, shares one lock more for as long: where nobody has it, a block
may be succeeded by a larger one (`succession.py`).
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from tmm_core.errors import MemoryLayoutError
from tmm_core.memory.files import TermsFiles, make_file
from tmm_core.memory.header import HEADER_BYTES, WORDS_AT, Header, Layout, boot_id, time_namespace
from tmm_core.memory.locks import ByteLocks
from tmm_core.memory.place import allocate, open_anew, open_file

__all__ = ["SharedBlock"]

_log = logging.getLogger("tmm_core")
#: Number of the lock for changes of the block itself; slab k has lock k.
_CHANGES = 0
_CHANGES_WAIT_S = 10.0
_CLAIM_WAIT_S = 1.0
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK, Linux 4.14; not in the module mmap
_PID_BITS = 22


class _BusyError(MemoryLayoutError):
    """Another process or thread is changing the block."""


_living: weakref.WeakSet[SharedBlock] = weakref.WeakSet()


class SharedBlock:
    """One mapping of a shared block; the `host` of an engine.

    Made by `create`, `join` or `look`.

    Attributes
    ----------
    path : str
    header : Header
    terms : TermsFiles
        Names of its terms.
    memory : ndarray of uint8
        The engine's block.
    guard : ndarray of int64, shape (2,)
        Zeroed in a child by a fork, even by one that Python does not know of.
    owner : int
        Names this process in what people are shown.

    Notes
    -----
    *Thread-safe.*
    """

    def __init__(
        self, fd: int, path: str, header: Header, layout: Layout, *, writable: bool, name: str = ""
    ) -> None:
        self.path = path
        self.header = header
        self.layout = layout
        self.owner = _owner()
        self._published = name or path
        self.terms = TermsFiles(path, header.block_id)
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        found = os.fstat(fd)
        self._file = (found.st_dev, found.st_ino)
        try:
            self._map = mmap.mmap(fd, header.file_bytes, flags=mmap.MAP_SHARED, prot=access)
            guard = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            # The map keeps a duplicate of its descriptor: locks need a description that ends when we close it.
            self._fd = open_anew(fd, name or path, self._file, writable=writable)
        except (OSError, ValueError) as error:
            raise MemoryLayoutError(
                f"{path}: {header.file_bytes:,} bytes cannot be mapped: {error}"
            ) from None
        finally:
            os.close(fd)
        whole = np.frombuffer(self._map, dtype=np.uint8)
        self.memory = whole[HEADER_BYTES : HEADER_BYTES + header.nbytes]
        self._words = whole[WORDS_AT : WORDS_AT + 24].view(np.int64)
        with contextlib.suppress(OSError):
            guard.madvise(_WIPE_ON_FORK)
        self.guard = np.frombuffer(guard, dtype=np.int64)[:2]
        self._locks = ByteLocks(self._fd, path)
        self._slabs: set[int] = set()
        self._present = self._told = False
        self._lock = threading.Lock()
        self._pid = os.getpid()
        _living.add(self)

    # ---- made, joined, looked at

    @classmethod
    def create(
        cls, path: str, layout: Layout, *, users: int, user_slots: int, srv_slots: int, slab_slots: int,
        package: str = "",
    ) -> SharedBlock:  # fmt: skip
        """Make a block that nobody sees before `publish`.

        Parameters
        ----------
        path : str
        layout : Layout
        users : int
            Slots for Users that get memory at once.
        user_slots, srv_slots, slab_slots : int
            Slots that get address space.
        package : str
            Version of this package.

        Raises
        ------
        MemoryLayoutError
            There is no room, or the folder may not be written to.
        """
        block_id = secrets.token_hex(16)
        header = Header(
            user_slots, srv_slots, slab_slots, layout.nbytes(user_slots, srv_slots, slab_slots),
            block_id, boot_id(), time_namespace(), time.time_ns(), os.getpid(), package, block_id,
        )  # fmt: skip
        return cls.make(path, header, layout, users=users, slabs=1)

    @classmethod
    def make(
        cls, path: str, header: Header, layout: Layout, *, users: int, slabs: int, mark: str = ""
    ) -> SharedBlock:
        """Make a block of so many Users and slabs that nobody sees yet; `make_file` says what is raised."""
        fd, temporary = make_file(path, header, layout, users, slabs, mark)
        try:
            block = cls(fd, path, header, layout, writable=True, name=temporary)
        except MemoryLayoutError:
            os.unlink(temporary)
            raise
        block._words[:] = (users, slabs, 0)
        return block

    def publish(self) -> bool:
        """Give the block its name; False if another process was first. Then this one is gone."""
        try:
            os.link(self._published, self.path)
        except FileExistsError:
            self.discard()
            return False
        except OSError as error:
            self.discard()
            raise MemoryLayoutError(f"{self.path}: cannot be published: {error.strerror}") from None
        os.unlink(self._published)
        self._published = self.path
        return True

    def rename(self) -> None:
        """Give the block its name, in place of the one that has it: at no moment there is none."""
        temporary, self._published = self._published, self.path  # it is not to be discarded from here on
        try:
            os.rename(temporary, self.path)
        except OSError as error:
            self._published = temporary
            raise MemoryLayoutError(f"{self.path}: cannot be made larger: {error.strerror}") from None

    def discard(self) -> None:
        """Remove a block, with its files, if it was not published."""
        if self._published != self.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._published)
            self.terms.forget()
        self.release()

    @classmethod
    def join(cls, path: str, layout: Layout) -> SharedBlock:
        """Map a block that is there, to count in it.

        Raises
        ------
        FileNotFoundError
            There is none.
        MemoryLayoutError
            It cannot be used; says what was found and what was expected.
        """
        return cls._map_file(path, layout, writable=True)

    @classmethod
    def look(cls, path: str, layout: Layout) -> SharedBlock:
        """Map a block that is there, only to read it. Raises as `join` does."""
        return cls._map_file(path, layout, writable=False)

    @classmethod
    def _map_file(cls, path: str, layout: Layout, *, writable: bool) -> SharedBlock:
        fd = open_file(path, writable=writable)
        try:
            # A private copy: what is checked cannot change afterwards.
            header = Header.read(os.pread(fd, HEADER_BYTES, 0), os.fstat(fd).st_size, path, layout)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path, header, layout, writable=writable)

    # ---- who counts here, and who comes after

    def enter(self) -> bool:
        """Be one of those who may count here, before a slab is claimed; False if another block has the name by now.

        Raises
        ------
        MemoryLayoutError
            For ten seconds another process has been making the block larger.
        """
        until = time.monotonic() + _CHANGES_WAIT_S
        while not self._locks.share(self.header.slab_slots):
            if time.monotonic() > until:
                raise _BusyError(self._busy(_CHANGES_WAIT_S))
            time.sleep(0.001)
        self._present = True
        if not self.succeeded and self.has_its_name:
            return True
        self.release()
        return False

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the block as `changing` does, and tell whether nobody counts in it: then nobody can begin to."""
        present = self.header.slab_slots
        with self.changing():
            alone = self._locks.take(present)
            try:
                yield alone and not any(map(self._locks.is_taken, range(1, self.ready[1])))
            finally:
                if alone:
                    self._locks.give(present)

    @property
    def ready(self) -> tuple[int, int]:
        """Slots for Users, and slabs, that have memory."""
        return int(self._words[0]), int(self._words[1])

    @property
    def has_its_name(self) -> bool:
        """Whether its path leads to this block."""
        try:
            found = os.lstat(self._published)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    @property
    def succeeded(self) -> bool:
        """Whether another block has taken its place: this one can be read, and nobody counts in it any more."""
        return bool(self._words[2]) or (not self.has_its_name and os.path.lexists(self._published))

    def tell_if_succeeded(self) -> None:
        """Tell who looks at it, once, that it has been succeeded."""
        if not self._told and self.succeeded:
            self._told = True
            _log.warning(
                "%s: this block has been succeeded by another of its name: look at that one", self.path
            )

    def tell_successor(self, header: Header) -> None:
        """Say which block has succeeded this one, to those who have it mapped."""
        self._words[2] = int(header.block_id[:15], 16) | 1

    def used_up(self, users: int) -> MemoryLayoutError:
        """Return what to say where there are no slots for so many Users, and others count here."""
        return MemoryLayoutError(
            f"{self.path}: found slots for {self.header.user_slots - 1:,} Users, expected {users - 1:,} (a User that "
            "was ever named keeps its slot): stop the processes that use it, all at one time, and start them again: "
            "the first makes the block larger; nothing has to be removed, and nothing is lost"
        )

    # ---- slabs

    def claim(self, wait_s: float = 0) -> int:
        """Take a slab nobody owns, a dead process's first; -1 if others are at it just now, -2 if there is none.

        Parameters
        ----------
        wait_s : float
            Seconds to wait for others.
        """
        try:
            with self._changing(wait_s):
                return self._claim()
        except _BusyError:
            return -1
        except (OSError, MemoryLayoutError) as error:
            _log.warning("%s: this process counts in the common slab, slower: %s", self.path, error)
            return -2

    def claim_first(self) -> int:
        """Take the slab a process begins with; 0, the common one, where there is none."""
        return max(self.claim(_CLAIM_WAIT_S), 0)

    def _claim(self) -> int:
        users, ready = self.ready
        for slab in range(1, min(ready + 1, self.header.slab_slots)):
            if slab in self._slabs or not self._locks.take(slab):
                continue
            if slab == ready:
                try:
                    self._allocate_slab(slab, users)
                except MemoryLayoutError:
                    self._locks.give(slab)
                    raise
                self._words[1] = slab + 1
            self._slabs.add(slab)
            return slab
        raise MemoryLayoutError(f"all {self.header.slab_slots - 1} slabs have an owner")

    def _allocate_slab(self, slab: int, users: int, have: int = 0) -> None:
        """Allocate a slab for so many slots for Users, beside those it has."""
        header = self.header

        def ranges(n: int) -> list[tuple[int, int]]:
            return self.layout.slab_ranges(header.user_slots, header.srv_slots, slab, n)

        self._allocate(ranges(users), ranges(have) if have else [])

    def _allocate(self, ranges: list[tuple[int, int]], had: list[tuple[int, int]]) -> None:
        """Allocate ranges, without those at the same place before: what is in them may be in use."""
        for place, (offset, nbytes) in enumerate(ranges):
            old = had[place][1] if had else 0
            allocate(self._fd, HEADER_BYTES + offset + old, nbytes - old, self.path)

    def renew(self, engine: Any) -> None:
        """Give a forked child's engine a slab of its own; called by the engine, once or by several threads."""
        _after_fork(self)
        slab = self.claim_first()
        with self._lock:
            if engine.forked:
                engine.start_over(slab)
            elif slab:
                self._slabs.discard(slab)
                self._locks.give(slab)

    def is_alive(self, slab: int) -> bool:
        """Tell whether a process owns a slab; one that cannot be told counts as alive."""
        return slab in self._slabs or self._locks.is_taken(slab)

    @property
    def slabs(self) -> frozenset[int]:
        """The slabs of this process."""
        return frozenset(self._slabs)

    def release(self) -> None:
        """Give the slabs back: others may count in them from here on. The mapping stays."""
        with self._lock:
            self._slabs.clear()
            self._present = False
            if self._fd >= 0:
                self._locks.close()
                self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0 and self._pid == os.getpid():
            self._locks.close()

    # ---- terms

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the block's lock for changes: one process of the host at a time, for ten seconds at most.

        Raises
        ------
        MemoryLayoutError
            Another process does not let go of it.
        """
        with self._changing(_CHANGES_WAIT_S):
            yield

    @contextlib.contextmanager
    def _changing(self, wait_s: float) -> Iterator[None]:
        until = time.monotonic() + wait_s
        if not self._lock.acquire(timeout=wait_s):
            raise _BusyError(self._busy(wait_s))
        try:
            if self._fd < 0:
                raise MemoryLayoutError(f"{self.path}: this process has let go of the block")
            while not self._locks.take(_CHANGES):
                if time.monotonic() > until:
                    raise _BusyError(self._busy(wait_s))
                time.sleep(0.001)
            try:
                yield
            finally:
                self._locks.give(_CHANGES)
        finally:
            self._lock.release()

    def _busy(self, wait_s: float) -> str:
        return (
            f"{self.path}: another process has been changing the block for {wait_s:g} s: it hangs or is stopped "
            "(its lock goes when it ends)"
        )

    def make_room(self, users: int) -> None:
        """Allocate memory for so many slots for Users, in every slab; call it while `changing`.

        Raises
        ------
        MemoryLayoutError
            There is no address space or no memory for them; nothing has changed.
        """
        have, ready = self.ready
        header = self.header
        if users <= have:
            return
        if users > header.user_slots:
            raise self.used_up(users)
        users = min(max(users, 2 * have), header.user_slots)
        self._allocate(
            self.layout.base_ranges(header.user_slots, header.srv_slots, users),
            self.layout.base_ranges(header.user_slots, header.srv_slots, have),
        )
        for slab in range(ready):
            self._allocate_slab(slab, users, have)
        self._words[0] = users


def _owner() -> int:
    """Process number and start, in one word: for people, who may meet the same number twice."""
    return (time.time_ns() // 1_000_000) << _PID_BITS | os.getpid() & ((1 << _PID_BITS) - 1)


def _after_fork(block: SharedBlock) -> None:
    """Let go of what belongs to the parent, in its child."""
    if block._pid == os.getpid():
        return
    block._pid = os.getpid()
    block._lock = threading.Lock()  # another thread of the parent may have held it
    block.guard[:] = 0
    block.owner = _owner()
    block._slabs.clear()
    old = block._fd
    if old < 0:
        return
    # Its own description of the same file: locks of the parent's must not live on in its child, nor be given back.
    try:
        fd = open_anew(old, block._published, block._file, writable=True)
    except OSError:
        block._fd = (
            -1
        )  # and the parent's stays open: while this child counts, in the common slab, it shall be known of
        return
    locks = ByteLocks(fd, block.path)
    if block._present:
        locks.share(block.header.slab_slots)  # before the parent's is let go: it is held without a gap
    block._locks.close()
    block._fd = fd
    block._locks = locks


def _children_start_over() -> None:
    for block in list(_living):
        _after_fork(block)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_children_start_over)
