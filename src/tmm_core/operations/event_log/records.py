"""Records of throttled requests, with all that is needed to decide them again; see docs/decisions.

recorder = Recorder(mechanism, watcher.put, every=100)    # a sample; every=1: all
decision = recorder.admit(user, srv)                      # instead of mechanism.admit
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.event_log.event_records import ThrottleRecord

__all__ = ["Recorder"]


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
