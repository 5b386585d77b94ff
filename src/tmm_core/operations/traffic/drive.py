"""Drive the Mechanism through past or invented traffic on a simulated clock, and tally what it decides.

`Drive` is fed Service Requests in order of time. It keeps one row for each second, totals for each User,
every traffic management event, and what the DSP would have had waiting with and without the Mechanism.
Memory does not grow with the length of the traffic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.traffic import Decisions, Ints, Srvs, Users
from tmm_core.operations.traffic.outcome import Event, Outcome, Queue, Row, Series

NS = 1_000_000_000
STEP_NS = 5_000_000
"""Service Requests of the same 5 ms are decided at one instant, unless a `Drive` is told otherwise."""
_IDLE_TICK_NS = NS // 10
_MAX_EVENTS = 10_000
_LEVEL = 65_536  # what the engine's `state` counts the level in
_AROUND_S = 20  # seconds shown before and after the closest activation


@dataclass(frozen=True, slots=True, eq=False)
class TrafficSecond:
    """The Service Requests of one second, in the order of their time.

    Attributes
    ----------
    second : int
        Since the start of the traffic.
    users : ndarray of uint32, shape (n,)
    srvs : ndarray of uint16, shape (n,)
    steps : ndarray of int64, shape (n,)
        Rising; number of the instant (step) within the second.
    """

    second: int
    users: Users
    srvs: Srvs
    steps: Ints


@dataclass(slots=True)
class Near:
    """The seconds around an activation, and around others that follow it closely."""

    series: Series
    began_s: float
    active_until: int = 0
    throttled: int = 0


class Drive:
    """Feeds a Mechanism that was started at 0 and tallies its decisions. *Not thread-safe.*

    Parameters
    ----------
    mechanism : Mechanism
        Made with ``start=0``; nobody else may use it. Its mode is ``enforce``: ``observe`` does not tell the
        throttled requests apart.
    step_ns : int
        Service Requests of the same step are decided at one instant, its beginning; divides one second.
    on_row : callable, optional
        Gets each `Row` as soon as its second is over.

    Raises
    ------
    ValueError
        The mode is not ``enforce``.
    """

    def __init__(
        self, mechanism: Mechanism, *, step_ns: int = STEP_NS, on_row: Callable[[Row], None] | None = None
    ) -> None:
        config = mechanism.config
        if config.mode != "enforce":
            raise ValueError(f"mode {config.mode!r} must be 'enforce': another one hides what is throttled")
        snapshot = mechanism.snapshot()
        self._mechanism = mechanism
        self._step_ns = step_ns
        self._on_row = on_row
        self._costs = np.array([config.cost_of(code) for code in snapshot.srvs], dtype=np.float64)
        self._uniform = bool((self._costs == 1).all())
        offered, admitted = (Queue(config.system_capacity, config.operating_threshold) for _ in range(2))
        self._outcome = Outcome(snapshot.users, offered, admitted)
        self._open: Event | None = None
        self._touched: Event | None = None  # the event that was open at any time of this second
        self._active = False
        self._level = 0
        self._activations = 0
        # A second may then hold more than one beginning and end: look at every instant.
        self._look_closely = config.hold_s < 1
        self._near: Near | None = None
        self._most_throttled = -1  # around an activation so far
        self._lately: deque[Row] = deque(maxlen=_AROUND_S)
        self._second = -1  # the second whose tallies are open
        self._last_row = -1
        self._now = 0
        self._open_counts = np.zeros_like(self._outcome.counts)
        self._open_units = [0, 0]

    def feed(self, traffic: TrafficSecond) -> Decisions:
        """Decide on Service Requests of one second; a second may come in several parts.

        Parameters
        ----------
        traffic : TrafficSecond
            Of the second fed last or of a later one.

        Returns
        -------
        ndarray of uint8, shape (n,)
            `Decision` numbers.

        Raises
        ------
        ValueError
            The second is before the one fed last.
        """
        second, users, srvs, steps = traffic.second, traffic.users, traffic.srvs, traffic.steps
        if second < self._second:
            raise ValueError(f"second {second} is before second {self._second}, which was fed already")
        if second != self._second:
            self._close_second()
            self._pass_idle(second)
            self._second = second
        out = np.empty(users.size, dtype=np.uint8)
        if not users.size:
            return out
        edges = np.flatnonzero(steps[1:] != steps[:-1]) + 1
        starts = [0, *edges.tolist()]
        ends = [*starts[1:], users.size]
        instants = (second * NS + steps[starts] * self._step_ns).tolist()
        admit_many, began = self._mechanism.admit_many, perf_counter()
        for start, end, now in zip(starts, ends, instants, strict=True):
            if now - self._now > _IDLE_TICK_NS and self._active:
                self._tick_until(now)
            self._now = now
            admit_many(users[start:end], srvs[start:end], out=out[start:end], now=now)
            if self._look_closely:
                self._observe(now)
        self._outcome.decided_s += perf_counter() - began
        self._tally(users, srvs, out)
        return out

    def finish(self) -> Outcome:
        """Close the last second and return the outcome.

        Raises
        ------
        RuntimeError
            The tallies differ from the engine's own counts: a defect, never a property of the traffic.
        """
        self._close_second()
        snapshot, outcome = self._mechanism.snapshot(), self._outcome
        if not np.array_equal(snapshot.counts.sum(axis=1), outcome.counts):
            raise RuntimeError("the tallies differ from the engine's own counts: please report this")
        self._keep_nearest()
        outcome.seconds, outcome.activations = self._last_row + 1, snapshot.activations
        outcome.unknown_srv = int(snapshot.counts[:, 0].sum())
        return outcome

    def _tally(
        self,
        users: Users,
        srvs: Srvs,
        out: Decisions,
    ) -> None:
        keys = users.astype(np.int64) * 4 + out
        self._open_counts += np.bincount(keys, minlength=self._open_counts.size).reshape(-1, 4)
        if self._uniform:
            throttled = int(np.count_nonzero(out == Decision.THROTTLED))
            units, admitted = users.size, users.size - throttled
        else:
            costs = self._costs[srvs]  # whole numbers below 2**53: their sums are exact
            units, admitted = int(costs.sum()), int(costs[out != Decision.THROTTLED].sum())
        self._open_units[0] += units
        self._open_units[1] += admitted

    def _close_second(self) -> None:
        if self._second < 0 or self._second == self._last_row:
            return
        second, table, outcome = self._second, self._open_counts, self._outcome
        outcome.counts += table
        outcome.seconds_throttled += table[:, Decision.THROTTLED] > 0
        np.maximum(outcome.highest_offered, table.sum(axis=1), out=outcome.highest_offered)
        self._observe(min((second + 1) * NS - 1, self._now + _IDLE_TICK_NS))
        idle_s = second - self._last_row - 1
        outcome.offered.add(second, self._open_units[0], idle_s)
        outcome.admitted.add(second, self._open_units[1], idle_s)
        counts = table.sum(axis=0).tolist()
        self._write(second, (counts[0], counts[1], counts[2], counts[3]))
        self._open_counts[:] = 0
        self._open_units = [0, 0]

    def _write(self, second: int, counts: tuple[int, int, int, int]) -> None:
        level = 1 + self._level / _LEVEL if self._active else None
        event, self._touched = self._touched, self._open
        offered, admitted = self._open_units
        row = Row(second, counts, offered, admitted, event is not None, level, self._outcome.offered.backlog)
        if event is not None:
            event.throttled += row.counts[Decision.THROTTLED]
            event.highest_offered = max(event.highest_offered, row.offered_units)
            if event.began_s < second:  # before it began nothing was throttled
                event.highest_admitted = max(event.highest_admitted, row.admitted_units)
        self._last_row = second
        self._outcome.series.add(row)
        self._follow(row, event)
        if self._on_row is not None:
            self._on_row(row)

    def _follow(self, row: Row, event: Event | None) -> None:
        """Keep the seconds around the activation that throttles most."""
        if self._near is not None and row.second > self._near.active_until + _AROUND_S:
            self._keep_nearest()
        if event is not None and self._near is None:
            before = [each for each in self._lately if each.second >= row.second - _AROUND_S]
            self._near = Near(Series(before[0].second if before else row.second), event.began_s)
            for each in before:
                self._near.series.add(each)
        self._lately.append(row)
        if self._near is not None:
            self._near.series.add(row)
            self._near.throttled += row.counts[Decision.THROTTLED]
            if event is not None:
                self._near.active_until = row.second

    def _keep_nearest(self) -> None:
        near, self._near = self._near, None
        if near is not None and near.throttled > self._most_throttled:
            self._most_throttled = near.throttled
            self._outcome.closest, self._outcome.closest_began_s = near.series, near.began_s

    def _observe(self, now: int) -> None:
        """Run a tick that is due and note a beginning or an end."""
        self._mechanism.tick(now)
        self._now = max(self._now, now)
        state = self._mechanism.engine.state(now)
        changed_s = state["changed_at"] / NS
        if state["activations"] > self._activations:
            self._activations = state["activations"]
            if self._open is not None:  # ended and began again since the last look
                self._open.ended_s = changed_s
            self._open = self._touched = Event(changed_s)
            if len(self._outcome.events) < _MAX_EVENTS:
                self._outcome.events.append(self._open)
        self._active = bool(state["active"])
        self._level = state["level"]
        if not self._active and self._open is not None:
            self._open.ended_s = changed_s
            self._open = None

    def _tick_until(self, now: int) -> None:
        """Let the control ticks run that a gateway's clock would have run while nobody asked."""
        while self._active and self._now + _IDLE_TICK_NS < now:
            self._observe(self._now + _IDLE_TICK_NS)

    def _pass_idle(self, second: int) -> None:
        """Write a row for each second without requests as long as the Mechanism is active."""
        while self._active and self._last_row + 1 < second:
            quiet = self._last_row + 1
            self._tick_until((quiet + 1) * NS)
            self._outcome.offered.add(quiet, 0, 0)
            self._outcome.admitted.add(quiet, 0, 0)
            self._write(quiet, (0, 0, 0, 0))
