"""The hall: names to numbers, configuration to the core, snapshots from the core."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tmm_core.answers import UNKNOWN, Decision
from tmm_core.engines import CALLS, layout, make_block, native, private_engine, shared_engine, watching_engine
from tmm_core.errors import MemoryLayoutError
from tmm_core.in_force import enlarge, put_in_force
from tmm_core.policy.config import Config
from tmm_core.policy.service_requests import srv_codes
from tmm_core.terms import LEVEL, RATE, SECOND, View, named_from, own_files, slot_of, terms_of, unknown

if TYPE_CHECKING:
    import logging

    from tmm_core._core.engine import Engine, Gate, Lane
    from tmm_core.memory import SharedBlock
    from tmm_core.snapshot import Candidate, Explanation, Snapshot

__all__ = ["UNKNOWN", "Decision", "Mechanism", "terms_of"]

_living: weakref.WeakSet[Mechanism] = weakref.WeakSet()
_ATTEMPTS = 1000  # at joining a block that others make and remove at the same time


class Mechanism:
    """The Traffic Management Mechanism of SECMP0067.

    A Service Request is throttled only if it is not on the priority list, its Service User is over its
    allocation, the Mechanism is active, and there is no spare capacity left for that User; every other Service
    Request is admitted.

    Parameters
    ----------
    config : Config
    start : int, optional
        Nanoseconds, monotonic: drive the Mechanism on a clock of your own from here on, giving `now` to every
        call. By default it reads the monotonic clock itself.

    Raises
    ------
    MemoryLayoutError
        There is no memory for so many Users.

    Notes
    -----
    *Thread-safe.* `admit`, `admit_at`, `admit_many` and `retry_after` are the engine's own methods.

    Examples
    --------
    >>> mechanism = Mechanism(Config(500, 400, allocations={"Northern Energy": 300.0}), start=0)
    >>> mechanism.admit_at(mechanism.user("Northern Energy"), mechanism.srv("4.1.1"), 0)
    <Decision.WITHIN_ALLOCATION: 2>
    """

    __slots__ = {
        **dict.fromkeys(
            ("__weakref__", "_block", "_block_error", "_engine", "_lock", "_srvs", "_start", "_view")
        ),
        **CALLS,
    }

    admit: Callable[[int, int], Decision]
    admit_at: Callable[[int, int, int], Decision]
    admit_many: Callable[..., np.ndarray[Any, np.dtype[np.uint8]]]
    retry_after: Callable[..., float]

    def __init__(self, config: Config, *, start: int | None = None) -> None:
        _check(config)
        srvs = [UNKNOWN, *srv_codes()]
        engine = private_engine(config, len(srvs), native.clock() if start is None else start)
        self._begin(engine, srvs, View(config, [UNKNOWN, *config.users], 0, []), start, None)
        self._put_in_force(config, self._now(start))

    def _begin(
        self, engine: Engine, srvs: list[str], view: View, start: int | None, block: SharedBlock | None
    ) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._engine = engine
        self._srvs = {code: number for number, code in enumerate(srvs)}
        self._view = view
        self._block = block
        self._block_error: str | None = None
        for name in CALLS:
            setattr(self, name, getattr(engine, name))
        _living.add(self)

    @classmethod
    def open(
        cls, path: str | PathLike[str] | Config, *, start: int | None = None, on_block_error: str = "raise"
    ) -> Mechanism:
        """Read ``tmm.toml`` and the files it names, and start.

        With ``[state] shared`` the processes of this host share one block: the first makes it, the others join
        it, and a configuration that is not the one in force is put in force for all of them. Where it needs a larger
        block, and nobody counts in this one, the first makes it, with all that was counted.

        Parameters
        ----------
        path : path or Config
        start : int, optional
            As for `Mechanism`.
        on_block_error : {"raise", "private"}
            What to do where the block cannot be used. ``"private"``: go on with memory of this process alone
            and say so in the log; a User may then have its allocation in every process. See `block_error`.

        Raises
        ------
        ConfigError
            All mistakes of the files at once.
        MemoryLayoutError
            The block cannot be used: what was found, and what was expected.
        """
        if on_block_error not in ("raise", "private"):
            raise ValueError(f'on_block_error must be "raise" or "private", found {on_block_error!r}')
        config = path if isinstance(path, Config) else Config.load(path)
        if config.shared is None:
            return cls(config, start=start)
        try:
            return cls._share(config, start)
        except MemoryLayoutError as error:
            if on_block_error == "raise":
                raise
            _log().error(
                "NOT SHARED: each process of this host has buckets of its own from here on: %s", error
            )
            mechanism = cls(config, start=start)
            mechanism._block_error = str(error)
            return mechanism

    @classmethod
    def look(cls, shared: str, *, change: bool = False) -> Mechanism:
        """Look at a shared block without deciding anything: `snapshot` and `explain` work, `admit` raises.

        Parameters
        ----------
        shared : str
            Name or path of the block.
        change : bool
            Allow `apply`; by default the mapping is read-only.

        Raises
        ------
        FileNotFoundError
            There is none.
        MemoryLayoutError
            It cannot be used.
        """
        from tmm_core.memory import path_of

        return cls._look(path_of(shared, make=False), change=change)

    @classmethod
    def _look(
        cls, path: str, own: Config | None = None, start: int | None = None, *, change: bool
    ) -> Mechanism:
        from tmm_core.memory import SharedBlock

        for _ in range(_ATTEMPTS):
            block = SharedBlock.join(path, layout()) if change else SharedBlock.look(path, layout())
            try:
                return cls._over(block, watching_engine(block), own, start)
            except MemoryLayoutError:
                if not block.succeeded:  # else its names went with it, to a larger block
                    raise
        raise MemoryLayoutError(f"{path}: it is made anew again and again: found no block to look at")

    @classmethod
    def _share(cls, config: Config, start: int | None) -> Mechanism:
        from tmm_core.memory import path_of

        path = path_of(str(config.shared))
        now = native.clock() if start is None else start
        for _ in range(_ATTEMPTS):
            try:
                mechanism = cls._look(path, config, start, change=True)
            except FileNotFoundError:
                made = cls._make(config, path, start)
                if made is not None:
                    return made
                continue
            block, srvs = mechanism._block, list(mechanism._srvs)
            assert block is not None
            if enlarge(block, mechanism._current, srvs, config, now) or not block.enter():
                continue  # to the block that has the name now
            mechanism._begin(shared_engine(block, now), srvs, mechanism._view, start, block)
            try:
                mechanism.apply(config)
            except BaseException:
                mechanism.close()  # its slab is for the next one
                raise
            return mechanism
        raise MemoryLayoutError(f"{path}: it is made and removed again and again: found no block to join")

    @classmethod
    def _make(cls, config: Config, path: str, start: int | None) -> Mechanism | None:
        """Make the block, with the terms in force before anybody sees it; None if another process was first."""
        from tmm_core import __version__

        srvs = [UNKNOWN, *srv_codes()]
        now = native.clock() if start is None else start
        block = make_block(config, path, len(srvs), __version__)
        try:
            block.enter()
            mechanism = cls.__new__(cls)
            view = View(config, [UNKNOWN, *config.users], 0, [])
            mechanism._begin(shared_engine(block, now), srvs, view, start, block)
            with block.changing():
                mechanism._put_in_force(config, now)
        except BaseException:
            block.discard()
            raise
        if block.publish():
            return mechanism
        mechanism.close()
        return None

    @classmethod
    def _over(cls, block: SharedBlock, engine: Engine, own: Config | None, start: int | None) -> Mechanism:
        generation, text = block.terms.read(lambda: engine.generation)
        config, users, srvs, differences = named_from(text, block.header.block_id, block.path)
        if len(srvs) != block.header.srv_slots or srvs[:1] != [UNKNOWN]:
            raise MemoryLayoutError(
                f"{block.path}: found names of {len(srvs)} SRVs, expected {block.header.srv_slots}"
            )
        if own is not None:
            config = own_files(config, own)
        mechanism = cls.__new__(cls)
        mechanism._begin(engine, srvs, View(config, users, generation, differences), start, block)
        return mechanism

    def _follow(self, path: str) -> None:
        """Look at the block that has the name now."""
        there = self._look(path, self._view.config, self._start, change=True)
        self._begin(there._engine, list(there._srvs), there._view, self._start, there._block)

    def user(self, user_id: str) -> int:
        """Return the slot of a Service User by its EUI-64 or its name; the shared slot of the unknown ones, 0.

        *Thread-safe.* EUI-64 identifiers are compared without regard to case. What is no text raises TypeError.
        """
        ids = (self._view if self._block is None else self._current()).ids
        try:
            return ids.get(user_id) or ids.get(str.upper(user_id), 0)
        except TypeError:
            return unknown("user_id", user_id)

    def srv(self, srv_code: str) -> int:
        """Return the number of an SRV; the number kept for unknown ones, 0. *Thread-safe.*"""
        try:
            return self._srvs.get(srv_code, 0) or unknown("srv_code", srv_code)
        except TypeError:
            return unknown("srv_code", srv_code)

    def gate(self, user_id: str) -> Gate:
        """Return a User's own light handle, one per connection or thread.

        It follows the configuration: when `user_id` moves to another User, so does the gate.
        """
        return self._engine.gate(user_id, self._resolve)

    def lane(self) -> Lane:
        """Return a handle for a thread of Cython or C code that decides without the GIL (``tmm_core.h``).

        Raises
        ------
        RuntimeError
            All lanes are taken.
        """
        return self._engine.lane()

    def tick(self, now: int | None = None) -> bool:
        """Run a control tick if one is due; returns whether it ran.

        Decisions do so by themselves. Call it where none come for a while and the state should stay current.
        *Thread-safe.*
        """
        return self._engine.tick(now)

    def apply(self, config: Config, *, now: int | None = None) -> None:
        """Put a new configuration in force: seen whole or not at all by every decision. *Thread-safe.*

        Buckets and counts survive. Users keep their slots; one that is no longer named keeps its slot with
        an allocation of 0, and its identifiers count as unknown.

        In a shared block all processes of the host see it at the same moment; the same configuration once
        more changes nothing.

        Raises
        ------
        ConfigError
            There are more new Users than slots; the configuration in force stays.
        MemoryLayoutError
            A shared block has no room or no slots for the new Users; the configuration in force stays.
        ValueError
            The Mechanism is closed, or only looks at the block.
        """
        _check(config)
        if self._block is None:
            with self._lock:
                self._put_in_force(config, self._now(now))
            return
        if not self._block.memory.flags.writeable:
            raise ValueError("the block may only be looked at")
        if self._engine.forked:
            self._block.renew(self._engine)
        path, watching = self._block.path, self._engine.watching
        while watching and enlarge(self._block, self._current, list(self._srvs), config, self._now(now)):
            self._follow(path)
        with self._lock, self._block.changing():
            if watching and self._block.succeeded:
                raise MemoryLayoutError(
                    f"{path}: a larger block has succeeded this one just now: apply again"
                )
            view = self._current()
            if config.version == view.config.version and own_files(config, view.config) == view.config:
                return  # another process was first
            self._put_in_force(config, self._now(now))
            _log().info("%s: version %s in force, was %s", path, config.version, view.config.version)

    def snapshot(self, now: int | None = None) -> Snapshot:
        """Return the state and the counts. *Thread-safe; out of date at once.*

        Parameters
        ----------
        now : int, optional
            Nanoseconds, monotonic; the clock by default, or the last control tick if the Mechanism is driven
            on a clock of its own.
        """
        from tmm_core.snapshot import Snapshot  # here and below: no decision needs it

        if (now is not None or self._start is None) and not self._engine.watching:
            self._engine.tick(now)
        if self._engine.watching and self._block is not None:
            self._block.tell_if_succeeded()
        view = self._current()
        state = self._engine.state(now if now is not None or self._start is not None else native.clock())
        names = list(view.slots)
        counts = self._engine.counts()[: len(names)]
        return Snapshot(
            active=bool(state["active"]),
            load=state["load"] / RATE,
            offered_load=state["offered"] / RATE,
            level=1 + state["level"] / LEVEL,
            activations=state["activations"],
            backlog_s=state["backlog"] / SECOND,
            version=view.config.version,
            users=names[: counts.shape[0]],
            srvs=list(self._srvs),
            counts=counts,
            ticks=state["ticks"],
            healed=state["healed"],
            generation=view.generation,
            candidate=self._candidate(view, counts.shape[0]),
        )

    def _candidate(self, view: View, users: int) -> Candidate | None:
        if not view.config.candidate_version:
            return None
        from tmm_core.snapshot import Candidate

        units = self._engine.differences()[:users]
        before = np.array(view.differences[:users], dtype=np.int64).reshape(-1, units.shape[1])
        units[: len(before)] -= before
        return Candidate(view.config.candidate_version, units)

    def explain(self, user_id: str, srv_code: str, *, now: int | None = None) -> Explanation:
        """Say what would be decided now, and why, in one sentence; charges nothing. *Thread-safe.*"""
        from tmm_core.snapshot import Explanation, reason

        view = self._current()
        slot, number = slot_of(view.ids, user_id), self.srv(srv_code)
        found = self._engine.peek(slot, number, self._now(now, last=True))
        decision = Decision(found["outcome"])
        user = list(view.slots)[slot]
        allocation = view.config.allocations.get(user, view.config.unknown_allocation if slot == 0 else 0.0)
        why = reason(found, user, srv_code if number else f"{srv_code} (unknown)", allocation)
        verb = "be throttled" if decision is Decision.THROTTLED else "be admitted"
        if decision is Decision.THROTTLED and view.config.mode == "observe":
            verb = "be counted as throttled, and admitted because the Mechanism only observes"
        sentence = f"{srv_code} from {user_id} would {verb} ({decision.name}): {why}."
        return Explanation(decision, user, srv_code if number else UNKNOWN, sentence)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._current().config

    @property
    def engine(self) -> Engine:
        """The engine, for who wants to look at its words and counters."""
        return self._engine

    @property
    def block(self) -> SharedBlock | None:
        """The block this process shares with others; None if it shares none."""
        return self._block

    @property
    def block_error(self) -> str | None:
        """Why this process has buckets of its own although a shared block is configured; None if that is not so."""
        return self._block_error

    def close(self) -> None:
        """End: every further decision raises ValueError. Harmless when repeated.

        What was counted in a shared block stays; another process goes on where this one stopped.
        """
        self._engine.close()
        if self._block is not None and self._engine.idle:
            self._block.release()

    def __enter__(self) -> Mechanism:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Mechanism cannot be copied or pickled: open it again, in the other process")

    def __repr__(self) -> str:
        config = self._view.config
        return (
            f"<Mechanism {config.mode} at {config.operating_threshold:g} units per second, "
            f"{len(config.users)} Users, version {config.version}>"
        )

    def _now(self, now: int | None, *, last: bool = False) -> int:
        if now is not None:
            return now
        if last and self._start is not None:
            return self._engine.state()["tick_at"]
        return native.clock()

    def _current(self) -> View:
        """Return the terms in force, of whichever process they came from."""
        view, block = self._view, self._block
        if block is None or self._engine.generation == view.generation:
            return view
        try:
            generation, text = block.terms.read(lambda: self._engine.generation)
            config, users, _, differences = named_from(text, block.header.block_id, block.path)
            view = View(own_files(config, view.config), users, generation, differences)
        except MemoryLayoutError as error:
            # Slots stay valid: go on with the names that are known rather than stop deciding.
            _log().error("the names of the terms in force cannot be read, older ones stay: %s", error)
            view = View(view.config, view.slots, self._engine.generation, view.differences)
        self._view = view
        return view

    def _resolve(self, user_id: str) -> tuple[int, int]:
        view = self._current()
        return slot_of(view.ids, user_id), view.generation

    def _put_in_force(self, config: Config, now: int) -> None:
        block = self._block
        # In one store: a gate that looks in between sees the old generation and looks again.
        self._view = put_in_force(self._engine, block, self._view, list(self._srvs), config, now)
        if block is not None:
            block.terms.forget(self._view.generation)


def _check(config: object) -> None:
    if not isinstance(config, Config):
        raise TypeError(f"config must be a Config, found {config!r}: Config.load reads one from a file")


def _log() -> logging.Logger:
    import logging  # a fifth of the time of importing the package: only for who has something to tell

    return logging.getLogger("tmm_core")


def _start_over_in_child() -> None:
    # Threads do not survive a fork: what they held is nobody's.
    for mechanism in list(_living):
        mechanism._lock = threading.Lock()
        if mechanism._block is None:
            mechanism._engine.start_over(0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_in_child)
