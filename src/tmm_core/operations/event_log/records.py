"""What threads, gateways and other processes tell the watcher: never waits, grows without end or counts twice.

A record of a throttled request has all that is needed to decide it again; see docs/decisions.

recorder = Recorder(mechanism, watcher.put, every=100)    # a sample; every=1: all
decision = recorder.admit(user, srv)                      # instead of mechanism.admit

In a process, records wait in a bounded queue. A process that is not the elected writer posts them as a file
into ``events.db.inbox/``, which the elected one reads, commits and deletes. Of what a gateway
noticed, every incident is in a count, told of or not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.event_log.event_records import Fault, Notification, ThrottleRecord

_log = logging.getLogger("tmm_core.watch")

_MOST = 10_000  # records waiting in this process
_MOST_FILES = 1_000  # letters waiting for the elected process
_MOST_BYTES = 16_000_000  # of one letter
_KINDS: dict[str, type[Any]] = {
    "fault": Fault,
    "throttle-record": ThrottleRecord,
    "notification": Notification,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
#: Kind of a gateway's event, and that of the fault.
_FAULTS = {
    "fail_open": "fail-open",
    "identity_disagrees": "identity-mismatch",
    "identity_ambiguous": "identity-mismatch",
}


class Inbox:
    """Records on their way into the log configured at `path`.

    *Thread-safe*, but for `take`, `post` and `written`: one thread.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        base = Path(path)
        self._folder = base.with_name(base.name + ".inbox")
        self._waiting: deque[Any] = deque()
        self._lost: dict[str, list[Any]] = {}
        self._guard = threading.Lock()
        self._read: list[Path] = []
        self._done: set[str] = set()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # A child starts with what it is told itself; its parent keeps the rest, and perhaps the lock.
        self._guard = threading.Lock()
        self._waiting = deque()
        self._lost = {}

    def put(self, record: Any) -> None:
        """Add a record, or count it as lost where too many are waiting."""
        what = _NAMES[type(record)]
        with self._guard:
            if len(self._waiting) < _MOST:
                self._waiting.append(record)
            else:
                self._lose(what, 1, f"more than {_MOST} records were waiting to be written")

    def _lose(self, what: str, records: int, reason: str) -> None:
        self._lost.setdefault(what, [0, reason])[0] += records

    def lost(self) -> dict[str, tuple[int, str]]:
        """Return what was lost since the last call: records and reason by kind."""
        with self._guard:
            lost, self._lost = self._lost, {}
        return {what: (row[0], row[1]) for what, row in lost.items()}

    def forget(self, names: set[str]) -> None:
        """Delete letters that are in the log already: whoever took them in died before it could."""
        self._read = [letter for letter in self._letters() if letter.name in names]
        self.written()

    @property
    def letters(self) -> list[str]:
        """Names of the letters taken and not yet written."""
        return [letter.name for letter in self._read]

    def take(self) -> list[Any]:
        """Return what is waiting here and in other processes' letters; call `written` when it is in the log."""
        with self._guard:
            records, self._waiting = list(self._waiting), deque()
        for letter in self._letters():
            if letter in self._read or letter.name in self._done:
                continue
            try:
                records += _records_of(letter)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, KeyError) as error:
                _log.warning("%s: cannot be read, and is set aside: %s", letter, error)
                with self._guard:
                    self._lose("fault", 1, f"a letter of another process could not be read: {error}")
                with contextlib.suppress(OSError):
                    letter.rename(letter.with_suffix(".unreadable"))
                continue
            self._read.append(letter)
        return records

    def written(self) -> None:
        """Say that what was taken is in the log: letters are deleted."""
        for letter in self._read:
            try:
                letter.unlink(missing_ok=True)
            except OSError as error:
                self._done.add(letter.name)  # never again, though it stays
                _log.warning("%s: in the log, but cannot be deleted: %s", letter, error)
        self._read = []

    def post(self) -> None:
        """Hand what is waiting here to the elected process: one file, whole or not at all."""
        with self._guard:
            if not self._waiting:
                return
            records = list(self._waiting)
        lines = [
            json.dumps([_NAMES[type(record)], asdict(record)], separators=(",", ":")) for record in records
        ]
        name = f"{records[0].at_ms:014d}-{os.getpid()}-{uuid.uuid4().hex}"
        part, letter = self._folder / f"{name}.part", self._folder / f"{name}.jsonl"
        try:
            self._folder.mkdir(mode=0o750, exist_ok=True)
            if len(self._letters()) >= _MOST_FILES:
                raise OSError("too many letters are waiting: does anybody write the event log?")
            part.write_text("\n".join(lines) + "\n", encoding="ascii")
            part.rename(letter)
        except OSError as error:
            _log.warning("%s: what this process has to tell must wait: %s", self._folder, error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return
        with self._guard:
            for _ in records:
                self._waiting.popleft()

    def _letters(self) -> list[Path]:
        try:
            return sorted(each for each in self._folder.iterdir() if each.suffix == ".jsonl")
        except OSError:
            return []


def _records_of(letter: Path) -> list[Any]:
    if letter.stat().st_size > _MOST_BYTES:
        raise ValueError(f"longer than {_MOST_BYTES} bytes")
    found = []
    for line in letter.read_text(encoding="ascii").splitlines():
        name, values = json.loads(line)
        found.append(_KINDS[name](**values))
    return found


class GatewayFaults:
    """Takes the events of one gateway as its `on_event`, and hands them to `Watcher.fault`. *Thread-safe.*

    A gateway tells of a kind at most once a second, and of the last incidents of a burst not at all: `rest` looks at
    its counts.
    """

    def __init__(self, fault: Callable[..., object]) -> None:
        self._fault = fault
        self._guard = threading.Lock()
        self._told: dict[str, int] = {}
        self._latest: dict[str, str] = {}
        self._counts: Any = None

    def __call__(self, event: Any) -> None:
        if event.kind in _FAULTS:
            self._counts = getattr(event, "counts", None)
            self._latest[event.kind] = event.message
            self._tell(event.kind, event.count)

    def rest(self) -> None:
        """Tell of what there was since the last event."""
        if self._counts is not None:
            for kind in tuple(self._latest):
                self._tell(kind, getattr(self._counts, kind))

    def _tell(self, kind: str, count: int) -> None:
        # A gateway counts from its start; the log holds how many more there were.
        with self._guard:
            more = count - self._told.get(kind, 0)
            if more > 0:
                self._fault(_FAULTS[kind], self._latest[kind], count=more)
                self._told[kind] = count


class Recorder:
    """Decide like the Mechanism, and record each throttled request of a sample.

    Parameters
    ----------
    mechanism : Mechanism
    put : callable
        Gets each `ThrottleRecord` in the thread of the request, and must not wait: ``Watcher.put``.
    every : int
        Of so many requests one is in the sample, whatever becomes of it; 1: all of them.
    at_ms : callable, optional
        UTC now, milliseconds since 1970.

    Attributes
    ----------
    unrecorded : int
        Throttled requests of the sample without a record: while the record was made another request moved the
        state, or a configuration came into force.

    Notes
    -----
    *Thread-safe.* A request outside the sample costs a few nanoseconds more than `Mechanism.admit`.
    """

    __slots__ = ("_at_ms", "_every", "_mechanism", "_names", "_next", "_put", "unrecorded")

    def __init__(
        self,
        mechanism: Mechanism,
        put: Callable[[Any], object],
        *,
        every: int = 1000,
        at_ms: Callable[[], int] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every {every} must be 1 or more")
        self._mechanism = mechanism
        self._put = put
        self._every = every
        self._at_ms = at_ms or (lambda: time.time_ns() // 1_000_000)
        self._next = itertools.count(1)  # atomic
        self._names: tuple[int, str, list[str], list[str]] = (-1, "", [], [])
        self.unrecorded = 0

    def admit(self, user: int, srv: int, now: int | None = None) -> Decision:
        """Decide on one Service Request; as `Mechanism.admit`, or `admit_at` where `now` is given."""
        if next(self._next) % self._every:
            return (
                self._mechanism.admit(user, srv) if now is None else self._mechanism.admit_at(user, srv, now)
            )
        decision, grounds = self._mechanism.engine.admit_recorded(user, srv, now)
        if grounds is not None:
            self._record(user, srv, grounds)
        elif decision is Decision.THROTTLED:
            self.unrecorded += 1
        return decision

    @property
    def front(self) -> Any:
        """The Mechanism with gates that record: give it to a gateway in the Mechanism's place."""
        return _Front(self, self._mechanism)

    def _record(self, user: int, srv: int, grounds: dict[str, int]) -> None:
        names = self._names
        if names[0] != grounds["generation"]:
            names = self._names = self._read_names()
            if names[0] != grounds["generation"]:
                self.unrecorded += 1  # the version it was decided by is not known any more, or not yet
                return
        self._put(
            ThrottleRecord(
                at_ms=self._at_ms(),
                now_ns=grounds["now"],
                version=names[1],
                user=names[2][user],
                srv=names[3][srv],
                tat=grounds["tat"],
                spare_tat=grounds["spare_tat"],
                backlog=grounds["backlog"],
                level=grounds["level"],
                active=bool(grounds["active"]),
                decision=grounds["outcome"],
            )
        )

    def _read_names(self) -> tuple[int, str, list[str], list[str]]:
        # A configuration is named after it is in force: before that, the names are of an earlier generation.
        snapshot = self._mechanism.snapshot()
        if snapshot.generation != self._mechanism.engine.generation:
            return (-1, "", [], [])
        return (snapshot.generation, snapshot.version, snapshot.users, snapshot.srvs)


class _RecordedGate:
    """A User's own handle that decides by a recorder."""

    __slots__ = ("_gate", "_recorder")

    def __init__(self, recorder: Recorder, gate: Any) -> None:
        self._recorder = recorder
        self._gate = gate

    def admit(self, srv: int) -> Decision:
        return self._recorder.admit(self._gate.slot, srv)

    def retry_after(self) -> float:
        seconds: float = self._gate.retry_after()
        return seconds


class _Front:
    """A Mechanism whose gates record; all else is the Mechanism's own."""

    __slots__ = ("_mechanism", "_recorder")

    def __init__(self, recorder: Recorder, mechanism: Mechanism) -> None:
        self._recorder = recorder
        self._mechanism = mechanism

    def gate(self, user_id: str) -> _RecordedGate:
        return _RecordedGate(self._recorder, self._mechanism.gate(user_id))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mechanism, name)
