"""What changed in the Mechanism between two looks at it, as rows for the event log.

Pure accounting on a clock that is handed in: no file, no thread, no sleep. `Observer.poll` is called about
once a second; what it adds up in `Observer.batch` is written by whoever holds the log (``watch.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.event_log.event_records import (
    Batch,
    ConfigurationApplied,
    Event,
    EventUser,
    Fault,
    Loss,
    PriorityExcess,
    Source,
    SystemMinute,
    ThrottleRecord,
    add_to,
    config_record,
)
from tmm_core.policy.config import Config
from tmm_core.snapshot import Snapshot

_GAP_NS = 5_000_000_000  # longer between two looks: somebody should know
_STEP_MS = 500  # the wall clock may differ so much from the monotonic one between two looks
_LEAST_SPAN_S = 0.05  # two looks closer than this give no rate
_LEAST_PLAN = 0.1  # of the operating threshold: the least that priority traffic may take without a word
_MOST_CELLS = 500_000  # rows kept while the log cannot be written; then minutes are merged
_MOST_LIST = 10_000  # faults, records and notifications kept; then they are counted as lost
_THROTTLED = int(Decision.THROTTLED)
_PRIORITY = int(Decision.PRIORITY)

_Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Known:
    """What the log already has of a source: of a new one nothing."""

    requests: Mapping[tuple[str, str], list[int]]
    units: Mapping[str, list[int]]
    events: int = 0
    open_event: Event | None = None
    version: str | None = None
    candidate: str = ""
    differences: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def nothing(cls) -> Known:
        return cls({}, {})


class Observer:
    """Turn looks at a Mechanism into rows.

    Parameters
    ----------
    mechanism : Mechanism
    source : Source
    at_ms, mono_ns : int
        When watching begins: UTC milliseconds since 1970, and monotonic nanoseconds.
    known : Known
        What of the source is in the log.
    priority_plan : float, optional
        Units per second that all priority traffic together is planned to take; by default what the
        allocations leave of the operating threshold, at least a tenth of it.

    Attributes
    ----------
    batch : Batch
        What is not in the log yet.
    active : bool
        Whether the Mechanism was active at the last look.

    Notes
    -----
    *Not thread-safe.* Requests are booked in the second and minute in which the time between two looks began.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        source: Source,
        *,
        at_ms: int,
        mono_ns: int,
        known: Known,
        priority_plan: float | None = None,
    ) -> None:
        self.source = source
        self.active = False
        self._mechanism = mechanism
        self._priority_plan = priority_plan
        self._at_ms, self._mono_ns = at_ms, mono_ns
        self._version = known.version
        self._candidate = known.candidate
        self._activations = known.events
        self._event = known.open_event  # the one that is open
        self._last = known.open_event  # the one that last was
        self._requests, self._units = self._baseline(known, mono_ns)
        self._trial = _Trial(mechanism, mechanism.snapshot(mono_ns).users, known.differences, known.candidate)
        self._healed = mechanism.engine.state(mono_ns)["healed"]
        self._total = sum(sum(row) for row in known.requests.values())
        self._dropped: dict[tuple[str, str], list[int]] = {}
        self._beginning = False  # whether the event began since the look before
        self.batch = Batch(source, at_ms, at_ms, mono_ns)
        self.batch.requests = self._total

    def _baseline(self, known: Known, mono_ns: int) -> tuple[_Ints, _Ints]:
        snapshot = self._mechanism.snapshot(mono_ns)
        requests, units = np.zeros_like(snapshot.counts), np.zeros((len(snapshot.users), 4), dtype=np.int64)
        users = {name: slot for slot, name in enumerate(snapshot.users)}
        srvs = {code: number for number, code in enumerate(snapshot.srvs)}
        for (user, srv), row in known.requests.items():
            if user in users and srv in srvs:
                requests[users[user], srvs[srv]] = row
        for user, row in known.units.items():
            if user in users:
                units[users[user]] = row
        return requests, units

    @property
    def at_ms(self) -> int:
        """UTC milliseconds at the last look."""
        return self._at_ms

    def poll(self, at_ms: int, mono_ns: int) -> None:
        """Look, and add what changed since the last look."""
        state = self._mechanism.engine.state(mono_ns)
        tried = self._trial.look()
        snapshot = self._mechanism.snapshot(mono_ns)
        config = self._mechanism.config
        self._watch_clocks(at_ms, mono_ns)
        if config.version != self._version or config.candidate_version != self._candidate:
            self._version, self._candidate = config.version, config.candidate_version
            self.batch.configurations.append(
                ConfigurationApplied(at_ms, config.version, config_record(config))
            )
        requests, units = self._grown(snapshot)
        span_s = (mono_ns - self._mono_ns) / 1e9
        # Events first: a request that was throttled in an event that began and ended since is booked in it.
        self._beginning = False
        touched = self._follow_events(snapshot, state["changed_at"], at_ms, mono_ns, config)
        if touched is None and requests[:, :, _THROTTLED].any():
            touched = self._last  # decided while it was active, and counted a moment later
        self._book(snapshot, requests, units, touched, config, span_s)
        self._trial.book(self.batch, tried, snapshot, units, self._at_ms)
        self._book_system(snapshot)
        self._watch_priority(snapshot.users, units, span_s, config)
        if snapshot.healed > self._healed:
            grown, self._healed = snapshot.healed - self._healed, snapshot.healed
            self.fault(Fault(at_ms, mono_ns, "healed", "impossible words in the block", grown))
        self.active = snapshot.active
        self._at_ms, self._mono_ns = at_ms, mono_ns
        batch = self.batch
        batch.to_ms, batch.mono_ns = max(at_ms, batch.from_ms), mono_ns
        batch.polls += 1
        batch.requests, batch.activations = self._total, self._activations
        if len(batch.minute_counts) + len(batch.second_counts) + len(batch.event_counts) > _MOST_CELLS:
            self._merge()

    def finish(self) -> None:
        """Say that watching ends here in good order; an open event of a private block ends with its process."""
        self.batch.ended = True
        event = self._event
        if event is not None and self.source.kind == "private":
            self._end(event, self._at_ms, self._mono_ns, exact=False)

    def written(self) -> None:
        """Start a new batch: the last one is in the log."""
        self.batch = Batch(self.source, self._at_ms, self._at_ms, self._mono_ns)
        self.batch.requests, self.batch.activations = self._total, self._activations
        self._dropped.clear()

    # ---- what others tell

    def fault(self, fault: Fault) -> None:
        """Add a fault."""
        self._keep(self.batch.faults, fault, "fault", fault.at_ms)

    def take_in(self, records: list[Any], at_ms: int) -> None:
        """Add what others have told: faults, throttle records, notifications."""
        batch = self.batch
        for record in records:
            if isinstance(record, Fault):
                self._keep(batch.faults, record, "fault", at_ms)
            elif isinstance(record, ThrottleRecord):
                self._keep(batch.throttle_records, record, "throttle-record", at_ms)
            else:
                self._keep(batch.notifications, record, "notification", at_ms)

    def _keep(self, kept: list[Any], row: object, what: str, at_ms: int) -> None:
        if len(kept) < _MOST_LIST:
            kept.append(row)
        else:
            self.lose(what, 1, at_ms, "the event log could not be written in time")

    def give_up_told(self, at_ms: int, reason: str) -> bool:
        """Count as lost what others have told and the log does not take; return whether there was any.

        Counts and events must not wait for it.
        """
        batch = self.batch
        told: list[tuple[list[Any], str]] = [
            (batch.faults, "fault"),
            (batch.throttle_records, "throttle-record"),
            (batch.notifications, "notification"),
        ]
        kept = [(rows, what) for rows, what in told if rows]
        for rows, what in kept:
            self.lose(what, len(rows), at_ms, reason)
            rows.clear()
        return bool(kept)

    def lose(self, what: str, records: int, at_ms: int, reason: str) -> None:
        """Count what will never be written."""
        row = self._dropped.setdefault((what, reason), [0, at_ms, at_ms])
        row[0] += records
        row[2] = at_ms
        self.batch.losses = [
            Loss(kind, cells[0], cells[1], cells[2], why) for (kind, why), cells in self._dropped.items()
        ]

    # ---- counts

    def _grown(self, snapshot: Snapshot) -> tuple[_Ints, _Ints]:
        """Requests and units since the last look."""
        counts = snapshot.counts
        units = self._mechanism.engine.units()[: len(counts)]
        grown = _since(counts, self._requests), _since(units, self._units)
        self._requests, self._units = counts, units
        return grown

    def _book(
        self,
        snapshot: Snapshot,
        requests: _Ints,
        units: _Ints,
        event: Event | None,
        config: Config,
        span_s: float,
    ) -> None:
        batch, second = self.batch, self._at_ms // 1000
        minute = second // 60 * 60
        users, srvs = snapshot.users, snapshot.srvs
        found, srv_of = np.nonzero(requests.any(axis=2))
        rows = requests[found, srv_of].tolist()
        for slot, number, row in zip(found.tolist(), srv_of.tolist(), rows, strict=True):
            user, srv = users[slot], srvs[number]
            add_to(batch.counts, (user, srv), row)
            add_to(batch.minute_counts, (minute, user, srv), row)
            if event is not None:
                add_to(batch.second_counts, (second, user, srv), row)
                add_to(batch.event_counts, (event.event, user, srv), row)
        by_user = requests.sum(axis=1)
        self._total += int(by_user.sum())
        moved = np.nonzero(by_user.any(axis=1) | units.any(axis=1))[0].tolist()
        for slot in moved:
            user, row, charged = users[slot], by_user[slot].tolist(), units[slot].tolist()
            add_to(batch.units, (user,), charged)
            add_to(batch.user_minutes, (minute, user), [*row, *charged])
            if event is not None:
                self._book_event_user(event, user, slot, row, charged, config, span_s)
        if event is not None:
            batch.system_seconds[second] = (
                snapshot.load, snapshot.offered_load, snapshot.backlog_s, snapshot.level,
            )  # fmt: skip

    def _book_event_user(
        self,
        event: Event,
        user: str,
        slot: int,
        row: list[int],
        units: list[int],
        config: Config,
        span_s: float,
    ) -> None:
        key = (event.event, user)
        entry = self.batch.event_users.get(key)
        if entry is None:
            allocation = _allocation(config, user, slot)
            offered = sum(units[:_PRIORITY]) / span_s if span_s >= _LEAST_SPAN_S else 0.0
            over = units[_THROTTLED] > 0 or offered > allocation
            # The log keeps the first row's word about the beginning; who joins later was not over then.
            entry = (
                EventUser(allocation, offered, over) if self._beginning else EventUser(allocation, 0.0, False)
            )
            self.batch.event_users[key] = entry
        for place, amount in enumerate((*row, *units)):
            entry.outcomes[place] += amount
        if row[_THROTTLED]:
            entry.throttled_seconds += 1
            entry.last_throttled_ms = self._at_ms
            if entry.first_throttled_ms is None:
                entry.first_throttled_ms = self._at_ms

    def _book_system(self, snapshot: Snapshot) -> None:
        minute = self._at_ms // 60_000 * 60
        row = self.batch.system_minutes.setdefault(minute, SystemMinute())
        row.polls += 1
        row.active_polls += snapshot.active
        row.load_sum += snapshot.load
        row.load_max = max(row.load_max, snapshot.load)
        row.offered_sum += snapshot.offered_load
        row.offered_max = max(row.offered_max, snapshot.offered_load)
        row.backlog_max_s = max(row.backlog_max_s, snapshot.backlog_s)
        row.level_min = min(row.level_min, snapshot.level)

    # ---- traffic management events

    def _follow_events(
        self, snapshot: Snapshot, changed_ns: int, at_ms: int, mono_ns: int, config: Config
    ) -> Event | None:
        """Begin and end events; returns the one that the requests since the last look belong to."""
        touched = self._event
        if snapshot.activations > self._activations:
            if self._event is not None:
                # It ended and another one began since the last look: the end is not known better.
                self._end(self._event, self._at_ms, self._mono_ns, exact=False)
            for number in range(self._activations + 1, snapshot.activations):
                short = self._begin(number, self._at_ms, self._mono_ns, snapshot, config, exact=False)
                self._end(short, at_ms, mono_ns, exact=False)
            exact = snapshot.active and self._mono_ns < changed_ns <= mono_ns
            began_ns = changed_ns if exact else self._mono_ns
            began_ms = at_ms - (mono_ns - began_ns) // 1_000_000
            touched = self._begin(snapshot.activations, began_ms, began_ns, snapshot, config, exact=exact)
            self._activations = snapshot.activations
        event = self._event
        if event is not None:
            event.load_max = max(event.load_max, snapshot.load)
            event.offered_max = max(event.offered_max, snapshot.offered_load)
            event.backlog_max_s = max(event.backlog_max_s, snapshot.backlog_s)
            event.level_min = min(event.level_min, snapshot.level)
            self.batch.events[event.event] = event
            if not snapshot.active:
                exact = max(self._mono_ns, event.began_mono_ns) < changed_ns <= mono_ns
                ended_ns = changed_ns if exact else mono_ns
                self._end(event, at_ms - (mono_ns - ended_ns) // 1_000_000, ended_ns, exact=exact)
        return touched

    def _begin(
        self, number: int, began_ms: int, began_ns: int, snapshot: Snapshot, config: Config, *, exact: bool
    ) -> Event:
        event = Event(
            event=f"{self.source.source_id}/{number}", number=number,
            began_ms=began_ms, began_mono_ns=began_ns, began_exact=exact,
            mode=config.mode, version=config.version, operating_threshold=config.operating_threshold,
            release_threshold=config.release_threshold or 0.0,
            began_load=snapshot.load, began_offered_load=snapshot.offered_load, began_backlog_s=snapshot.backlog_s,
            load_max=snapshot.load, offered_max=snapshot.offered_load, backlog_max_s=snapshot.backlog_s,
            level_min=snapshot.level,
        )  # fmt: skip
        self._event = self._last = self.batch.events[event.event] = event
        self._beginning = True
        return event

    def _end(self, event: Event, ended_ms: int, ended_ns: int, *, exact: bool) -> None:
        event.ended_ms, event.ended_mono_ns, event.ended_exact = ended_ms, ended_ns, exact
        event.duration_ms = max((ended_ns - event.began_mono_ns) // 1_000_000, 0)
        self.batch.events[event.event] = event
        self._event = None

    # ---- what is not as it should be

    def _watch_clocks(self, at_ms: int, mono_ns: int) -> None:
        passed_ns = mono_ns - self._mono_ns
        step_ms = (at_ms - self._at_ms) - passed_ns // 1_000_000
        if abs(step_ms) > _STEP_MS:
            told = f"the wall clock moved by {step_ms / 1000:+.3f} s"
            self.fault(Fault(at_ms, mono_ns, "clock-step", told))
        if passed_ns > _GAP_NS:
            told = f"nobody looked for {passed_ns / 1e9:.1f} s; counts are booked at its start"
            self.fault(Fault(at_ms, mono_ns, "gap", told))

    def _watch_priority(self, users: list[str], units: _Ints, span_s: float, config: Config) -> None:
        if span_s < _LEAST_SPAN_S:
            return  # what came before anybody looked has no rate
        rates = units[:, _PRIORITY] / span_s
        minute = self._at_ms // 60_000 * 60
        plan = self._priority_plan
        if plan is None:
            left = config.operating_threshold - sum(config.allocations.values()) - config.unknown_allocation
            plan = max(left, _LEAST_PLAN * config.operating_threshold)
        if rates.sum() > plan:
            self._excess(minute, None, float(rates.sum()), plan)
        for slot in np.nonzero(rates)[0].tolist():
            allocation = _allocation(config, users[slot], slot)
            if rates[slot] > allocation:
                self._excess(minute, users[slot], float(rates[slot]), allocation)

    def _excess(self, minute: int, user: str | None, rate: float, plan: float) -> None:
        row = self.batch.priority_excesses.setdefault((minute, user), PriorityExcess(rate, plan, 0))
        row.priority_rate = max(row.priority_rate, rate)
        row.seconds += 1

    def _merge(self) -> None:
        """Give up detail, never counts: drop the seconds, and book all minutes in the last one."""
        batch = self.batch
        at_ms = self._at_ms
        if batch.second_counts:
            self.lose(
                "second-detail", len(batch.second_counts), at_ms, "the event log could not be written in time"
            )
            batch.second_counts = {}
            batch.system_seconds = {}
        last = at_ms // 60_000 * 60
        minutes, batch.minute_counts = batch.minute_counts, {}
        for (_, user, srv), row in minutes.items():
            add_to(batch.minute_counts, (last, user, srv), row)
        by_user, batch.user_minutes = batch.user_minutes, {}
        for (_, user), row in by_user.items():
            add_to(batch.user_minutes, (last, user), row)


def _allocation(config: Config, user: str, slot: int) -> float:
    return config.allocations.get(user, 0.0) if slot else config.unknown_allocation


def _since(now: _Ints, before: _Ints) -> _Ints:
    """Return what came since; there may be more Users now, or fewer."""
    grown = now.copy()
    grown[: len(before)] -= before[: len(now)]
    return grown


class _Trial:
    """Turn looks at what a candidate would have done into rows of a batch. *Not thread-safe.*

    `users` are the names by slot, `known` what of the differences is in the log by User, `version` the candidate last
    logged. What was offered and throttled in the look in which a candidate began is booked with it.
    """

    __slots__ = ("_known", "_mechanism", "_version")

    def __init__(
        self, mechanism: Mechanism, users: list[str], known: Mapping[str, list[int]], version: str
    ) -> None:
        self._mechanism = mechanism
        self._version = version
        self._known: _Ints = np.array([known.get(user, [0] * 4) for user in users], np.int64)

    def look(self) -> _Ints | None:
        """Return all differences counted so far, before a snapshot is taken; None where none is tried."""
        if not (self._version or self._mechanism.config.candidate_version):
            return None
        return self._mechanism.engine.differences()

    def book(self, batch: Batch, looked: _Ints | None, snapshot: Snapshot, units: _Ints, at_ms: int) -> None:
        """Add what came since the last look; `units` by User and Decision came since then too."""
        if looked is None:
            return
        users, candidate = snapshot.users, snapshot.candidate
        looked = looked[: len(users)]
        grown, self._known = _since(looked, self._known), looked
        now = np.zeros_like(grown) if candidate is None else np.minimum(grown, candidate.units)
        for slot in np.nonzero(grown.any(axis=1))[0].tolist():
            add_to(batch.candidate_totals, (users[slot],), grown[slot].tolist())
        day = at_ms // 86_400_000 * 86_400
        if self._version and (candidate is None or candidate.version != self._version):
            # It ended since the last look: what the new one has not counted was its own.
            _add_differences(batch, day, self._version, users, np.zeros_like(units), grown - now)
        if candidate is not None:
            _add_differences(batch, day, candidate.version, users, units, now)
        self._version = "" if candidate is None else candidate.version


def _add_differences(
    batch: Batch, day: int, version: str, users: list[str], units: _Ints, differences: _Ints
) -> None:
    rows = np.column_stack((units.sum(axis=1), units[:, Decision.THROTTLED], differences))
    rows[0] = 0  # the pool of unknown Users: no candidate is tried on it
    for slot in np.nonzero(rows.any(axis=1))[0].tolist():
        add_to(batch.candidate_days, (day, version, users[slot]), rows[slot].tolist())
