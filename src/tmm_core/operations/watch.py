"""Watch a Mechanism and keep its event log: one process of a host, elected by a lock, off the decision path.

    watcher = watch.start(mechanism, "events.db")     # in a gateway: a thread of it
    ...
    watcher.stop()                                    # or SIGTERM, or the end of the process: all is flushed

Whatever happens to the log (disk full, locked, damaged), decisions go on, and what could not be written is
written later or counted as lost.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from tmm_core.errors import EventLogError
from tmm_core.mechanism import Mechanism
from tmm_core.operations.event_log.event_records import Batch, Fault, Source
from tmm_core.operations.event_log.files import Seat, keep_within, take_seat
from tmm_core.operations.event_log.observe import Known, Observer
from tmm_core.operations.event_log.records import GatewayFaults, Inbox
from tmm_core.operations.event_log.schema import FAULTS
from tmm_core.operations.events import EventLog
from tmm_core.reload import Reload

__all__ = ["Clock", "SystemClock", "WatchSettings", "Watcher", "source_of", "start"]

_log = logging.getLogger("tmm_core.watch")

# What no log takes, however often it is tried: a kind it does not know, a text in the place of a number.
_UNFIT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError,
          ValueError, TypeError, OverflowError)  # fmt: skip
_TELL_NS = 60_000_000_000  # between two words about a log that cannot be written


class Clock(Protocol):
    """Wall clock and monotonic clock."""

    def at_ms(self) -> int:
        """Return UTC now, milliseconds since 1970."""

    def mono_ns(self) -> int:
        """Return the monotonic clock the Mechanism is driven by, nanoseconds."""


class SystemClock:
    """The clocks of this machine."""

    __slots__ = ()

    def at_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def mono_ns(self) -> int:
        # The engine's clock is CLOCK_MONOTONIC; Python's own is another one on some systems.
        if hasattr(time, "CLOCK_MONOTONIC"):
            return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How the log is kept.

    Attributes
    ----------
    poll_s : float
        Seconds between two looks; the resolution of counts by second.
    commit_s : float
        Seconds between two commits while inactive: what a private Mechanism loses with its process. While
        active, and when there is something to tell, each look is committed.
    keep_months : int
        Months after which a file of the log is deleted; 0: never.
    detail_months : int
        Months after which seconds and minutes are deleted and days stay; 0: never.
    priority_plan : float or None
        See `Observer`.
    host : str or None
        Name of this host in the log; the system's by default.
    """

    poll_s: float = 1.0
    commit_s: float = 10.0
    keep_months: int = 84
    detail_months: int = 3
    priority_plan: float | None = None
    host: str | None = None

    def __post_init__(self) -> None:
        for name in ("keep_months", "detail_months"):
            if getattr(self, name) < 0:  # every file is older than that, also the one being written
                raise ValueError(f"{name} {getattr(self, name)} must be 0 (never) or more")


@dataclass(slots=True)
class _Trouble:
    """Commits that failed since the last one that did not."""

    failures: int = 0
    since_ms: int = 0
    first_error: str = ""
    told_ns: int = field(default=-_TELL_NS)


class Watcher:
    """Watch one Mechanism; write what changed to its event log.

    Parameters
    ----------
    path : path, optional
        The log; that of the configuration by default.
    source : Source, optional
        Which life of which block is watched; `source_of` the Mechanism by default.
    listeners : sequence of callable
        Each gets every batch after it was written, in the watcher's thread: they must be quick (see
        ``notify.py``).

    Raises
    ------
    EventLogError
        No path is given or configured.

    Notes
    -----
    `step` is *not thread-safe*; `fault`, `put`, `stop` and what `gateway_listener` returns are *thread-safe*.
    Make it after a fork, in the process that decides: threads do not live through one.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        path: str | PathLike[str] | None = None,
        *,
        settings: WatchSettings | None = None,
        clock: Clock | None = None,
        source: Source | None = None,
        listeners: Sequence[Callable[[Batch], object]] = (),
    ) -> None:
        path = mechanism.config.event_log if path is None else path
        if path is None:
            raise EventLogError(
                "no event log is configured: tmm.toml: [files] event_log, for example events.db"
            )
        self.path = Path(path)
        self.settings = settings or WatchSettings()
        self._mechanism = mechanism
        self._clock = clock or SystemClock()
        self._listeners = tuple(listeners)
        self._source = source or source_of(mechanism, self._clock.at_ms())
        self._workers: dict[int, int] = {}
        self._inbox = Inbox(self.path)
        self._gateways: list[GatewayFaults] = []
        self._seat: Seat | None = None
        self._log: EventLog | None = None
        self._observer: Observer | None = None
        self._trouble = _Trouble()
        self._committed_ns = self._clock.mono_ns()
        self._warned = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def elected(self) -> bool:
        """Whether this process writes the host's log. *Thread-safe; may be out of date at once.*"""
        return self._seat is not None

    @property
    def failures(self) -> int:
        """Commits that failed since the last good one; 0 when all is well. *Thread-safe.*"""
        return self._trouble.failures

    # ---- what others tell

    def fault(self, kind: str, detail: str, *, count: int = 1, user: str | None = None) -> None:
        """Note a fault, one of ``event_log.schema.FAULTS``; never waits. *Thread-safe.*

        Raises
        ------
        ValueError
            `kind` is none of them.
        """
        if kind not in FAULTS:
            raise ValueError(f"kind {kind!r} must be one of {', '.join(FAULTS)}")
        self._inbox.put(Fault(self._clock.at_ms(), self._clock.mono_ns(), kind, detail, count, user))

    def gateway_listener(self) -> Callable[[Any], None]:
        """Return what one gateway is given as `on_event`: its events become faults. *Thread-safe.*"""
        listener = GatewayFaults(self.fault)
        self._gateways.append(listener)
        return listener

    def reload_listener(self, reload: Reload) -> None:
        """Take what a `Reloader` tells: a refused configuration becomes a fault. *Thread-safe.*

        One that was applied is in the log anyhow, as soon as the Mechanism is at it.
        """
        if reload.kind == "refused":
            self.fault("configuration-refused", reload.message)

    def put(self, record: Any) -> None:
        """Hand in a `ThrottleRecord` or `Notification`; never waits. *Thread-safe.*"""
        self._inbox.put(record)

    def _ask_gateways(self) -> None:
        for gateway in tuple(self._gateways):
            gateway.rest()

    # ---- one step

    def step(self) -> bool:
        """Look once, and write what is due; returns whether this process is elected."""
        at_ms, mono_ns = self._clock.at_ms(), self._clock.mono_ns()
        self._ask_gateways()
        if not self._elect(at_ms, mono_ns):
            return False
        observer = self._observer or self._open(at_ms, mono_ns)
        if observer is None:
            return True
        # What belongs to the last minute goes there whole, and into the file of its month.
        minute_over = at_ms // 60_000 != observer.at_ms // 60_000
        observer.poll(at_ms, mono_ns)
        self._watch_workers(observer, at_ms, mono_ns)
        self._take_in(observer, at_ms)
        batch = observer.batch
        told = (
            batch.events
            or batch.faults
            or batch.configurations
            or batch.notifications
            or batch.throttle_records
        )
        due = mono_ns - self._committed_ns >= self.settings.commit_s * 1e9
        if observer.active or told or due or minute_over or self._trouble.failures:
            self._commit(observer, at_ms, mono_ns)
        return True

    def _elect(self, at_ms: int, mono_ns: int) -> bool:
        if self._seat is not None:
            if self._seat.in_place:
                return True
            _log.error("%s: its lock was removed: who writes it is found out anew", self.path)
            self.close()
        try:
            self._seat = take_seat(self.path)
        except EventLogError as error:
            self._failed(error, at_ms, mono_ns)
            return False
        if self._seat is not None:
            return True
        # Another process writes: it shall have what was told here.
        self._inbox.post()
        if self._source.kind == "private" and not self._warned:
            self._warned = True
            _log.warning(
                "%s: another process writes this event log, and this one counts for itself: its counts are not in "
                "the log. Let the workers of a host share one block ([state] shared), or give each its own log",
                self.path,
            )
        return False

    def _open(self, at_ms: int, mono_ns: int) -> Observer | None:
        new_private = self._source.kind == "private"
        try:
            self._log = self._log or EventLog(self.path, at_ms=at_ms, host=self.settings.host)
            known = self._known(self._log)
        except EventLogError as error:
            self._failed(error, at_ms, mono_ns)
            if not new_private:
                return None  # what of the block is in the log already is not known yet
            known = Known.nothing()
        self._observer = observer = Observer(
            self._mechanism,
            self._source,
            at_ms=at_ms,
            mono_ns=mono_ns,
            known=known,
            priority_plan=self.settings.priority_plan,
        )
        if self._log is not None:
            self._begin_log(self._log, observer, at_ms, mono_ns)
        return observer

    def _known(self, log: EventLog) -> Known:
        requests, units = log.totals(self._source.source_id)
        opened = log.open_events(self._source.source_id)
        return Known(
            requests,
            units,
            log.activations(self._source.source_id),
            opened[-1] if opened else None,
            *log.last_configuration(),
            log.candidate_totals(self._source.source_id),
        )

    def _begin_log(self, log: EventLog, observer: Observer, at_ms: int, mono_ns: int) -> None:
        self._inbox.forget(log.letters())
        self._tell_of_the_last(log, observer, at_ms, mono_ns)

    def _tell_of_the_last(self, log: EventLog, observer: Observer, at_ms: int, mono_ns: int) -> None:
        """Say so where the last watcher ended without a word, or nobody watched a block that was counting."""
        last = log.last_source()
        if last is None or (last["ended_ms"] is not None and last["source_id"] != self._source.source_id):
            return
        away = max(at_ms - last["to_ms"], 0) / 1000
        if last["source_id"] == self._source.source_id:
            text = f"the block was not watched for {away:.1f} s; its counts are booked now"
            observer.fault(Fault(at_ms, mono_ns, "gap", text))
        if last["ended_ms"] is None:
            lost = "its counts are in the block" if last["kind"] == "shared" else "its last seconds are lost"
            text = f"the last watcher (process {last['pid']}) ended without a word {away:.1f} s ago; {lost}"
            observer.fault(Fault(at_ms, mono_ns, "unclean-end", text))

    def _watch_workers(self, observer: Observer, at_ms: int, mono_ns: int) -> None:
        """Tell which processes that counted in the block are gone since the last look."""
        block = self._mechanism.block
        if block is None:
            return
        owners = self._mechanism.engine.owners()
        alive = {slab: pid for slab, (pid, _) in enumerate(owners) if slab and pid and block.is_alive(slab)}
        for slab, pid in self._workers.items():
            if alive.get(slab) != pid:
                text = f"process {pid} counts no more in slab {slab}; what it counted stays"
                observer.fault(Fault(at_ms, mono_ns, "worker-died", text))
        self._workers = alive

    def _take_in(self, observer: Observer, at_ms: int) -> None:
        observer.take_in(self._inbox.take(), at_ms)
        observer.batch.letters = self._inbox.letters
        for what, (records, reason) in self._inbox.lost().items():
            observer.lose(what, records, at_ms, reason)

    def _commit(self, observer: Observer, at_ms: int, mono_ns: int) -> None:
        try:
            if self._log is not None and not self._log.in_place:
                # SQLite would go on writing to a file that has no name any more.
                gone = f"{self._log.file}: removed or replaced while it was written; going on with a new one"
                self._failed(EventLogError(gone), at_ms, mono_ns)
                self._log.close()
                self._log = None
            if self._log is None:
                self._log = EventLog(self.path, at_ms=at_ms, host=self.settings.host)
                self._begin_log(self._log, observer, at_ms, mono_ns)
            month = self._log.month
            self._log.append(observer.batch)
        except EventLogError as error:
            self._failed(error, at_ms, mono_ns)
            if isinstance(error.__cause__, _UNFIT) and not observer.give_up_told(at_ms, str(error)):
                self.close()  # the log is not what it was when it was opened: what is in it is asked again
            return
        batch = observer.batch
        self._committed_ns = mono_ns
        self._inbox.written()
        observer.written()
        if self._trouble.failures:
            text = f"not written for {(at_ms - self._trouble.since_ms) / 1000:.1f} s: {self._trouble.first_error}"
            observer.fault(Fault(at_ms, mono_ns, "log-unwritable", text, self._trouble.failures))
            _log.warning("the event log can be written again: %s", text)
            self._trouble = _Trouble()
        if self._log.month != month or self._log.seq == 1:
            keep_within(self.path, self._log.month, self.settings.keep_months, self.settings.detail_months)
        for listener in self._listeners:
            try:
                listener(batch)
            except Exception:
                _log.exception("a listener of the event log failed")

    def _failed(self, error: EventLogError, at_ms: int, mono_ns: int) -> None:
        trouble = self._trouble
        trouble.failures += 1
        if trouble.failures == 1:
            trouble.since_ms, trouble.first_error = at_ms, str(error)
        if mono_ns - trouble.told_ns >= _TELL_NS:
            trouble.told_ns = mono_ns
            _log.error("%s; counts are kept and written later (%d attempts so far)", error, trouble.failures)

    def flush(self) -> None:
        """Look once more, write everything, and say good-bye in the log."""
        at_ms, mono_ns = self._clock.at_ms(), self._clock.mono_ns()
        self._ask_gateways()
        if not self._elect(at_ms, mono_ns):
            return
        observer = self._observer or self._open(at_ms, mono_ns)
        if observer is not None:
            observer.poll(at_ms, mono_ns)
            observer.finish()
            self._take_in(observer, at_ms)
            self._commit(observer, at_ms, mono_ns)

    def close(self) -> None:
        """Give up log and lock, without a word. Harmless when repeated."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._seat is not None:
            self._seat.leave()
            self._seat = None
        self._observer = None

    # ---- the loop

    def run(self) -> None:
        """Step until `stop`, then flush. No error ends it."""
        due = self._clock.mono_ns()
        period = int(self.settings.poll_s * 1e9)
        try:
            while True:
                due = max(due + period, self._clock.mono_ns())
                if self._stopping.wait(max(due - self._clock.mono_ns(), 0) / 1e9):
                    break
                self._safely(self.step)
            self._safely(self.flush)
        finally:
            self.close()

    def _safely(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:
            _log.exception("the watcher failed; it goes on")

    def start(self) -> Watcher:
        """Run in a thread of this process; it is stopped, and all is flushed, when the process ends."""
        thread = threading.Thread(target=self.run, name="tmm-watch", daemon=True)
        self._thread = thread
        thread.start()
        atexit.register(self.stop)
        return self

    def stop(self, timeout_s: float = 10.0) -> None:
        """Flush and end. Harmless when repeated. *Thread-safe.*"""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        atexit.unregister(self.stop)


def source_of(mechanism: Mechanism, at_ms: int) -> Source:
    """Return the life of the block that a Mechanism counts in or looks at.

    A shared block goes on with its counters whoever watches it, and so does a larger one that has succeeded it; a
    private one begins now, as far as anybody knows.
    """
    block = mechanism.block
    if block is None:
        return Source(uuid.uuid4().hex, "private", at_ms, os.getpid())
    return Source(block.header.life_id, "shared", block.header.created_at // 1_000_000, os.getpid())


def start(mechanism: Mechanism, path: str | PathLike[str] | None = None, **options: Any) -> Watcher:
    """Watch a Mechanism in a thread of this process: the one call a gateway makes, after any fork.

    Parameters
    ----------
    mechanism, path, **options
        As for `Watcher`.

    Returns
    -------
    Watcher
        Running. Where another process of the host writes this log already, it stands by to take over.
    """
    return Watcher(mechanism, path, **options).start()
