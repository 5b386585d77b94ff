"""Drive the Mechanism through past or invented traffic on a simulated clock, and tally what becomes of it.

`Drive` is fed Service Requests in order of time. Its `Outcome` has totals for each User, every traffic management
event, and what the DSP would have had waiting with and without the Mechanism; a row for each second goes to who wants
it. Memory does not grow with the length of the traffic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.traffic import Decisions, Ints, Srvs, Users

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


@dataclass(frozen=True, slots=True)
class Row:
    """One second: counts of Service Requests by outcome, units, and the state at its end.

    Attributes
    ----------
    second : int
        Since the start of the traffic.
    counts : tuple of int
        By `Decision`.
    active : bool
        At the end of the second, or at any of its ticks since the last row.
    level : float or None
        `Snapshot.level` at the end of the second; None while inactive.
    backlog_without : float
        Units a DSP of the system capacity would have waiting without the Mechanism.
    """

    second: int
    counts: tuple[int, int, int, int]
    offered_units: int
    admitted_units: int
    active: bool
    level: float | None
    backlog_without: float

    @property
    def offered(self) -> int:
        return sum(self.counts)

    @property
    def admitted(self) -> int:
        return self.offered - self.counts[Decision.THROTTLED]


@dataclass(slots=True)
class Event:
    """One traffic management event.

    Attributes
    ----------
    began_s, ended_s : float
        Seconds since the start of the traffic; `ended_s` is None while it lasts.
    throttled : int
        Service Requests.
    highest_offered : int
        Units in its highest second.
    highest_admitted : int
        Units in its highest second, the second in which it began left out.
    """

    began_s: float
    ended_s: float | None = None
    throttled: int = 0
    highest_offered: int = 0
    highest_admitted: int = 0


@dataclass(slots=True)
class Queue:
    """Load of a DSP, second by second: a queue that works off `capacity` units a second.

    Attributes
    ----------
    capacity, threshold : float
        Units per second.
    highest, highest_second : int
        Units of the highest second, and which it was.
    seconds_above_threshold, seconds_above_capacity : int
    backlog, highest_backlog : float
        Units waiting at the end of the last second, and of the worst.
    seconds_with_backlog : int
        Seconds at whose end something was waiting.
    """

    capacity: float
    threshold: float
    highest: int = 0
    highest_second: int = 0
    seconds_above_threshold: int = 0
    seconds_above_capacity: int = 0
    backlog: float = 0.0
    highest_backlog: float = 0.0
    highest_backlog_second: int = 0
    seconds_with_backlog: int = 0

    @property
    def longest_wait_s(self) -> float:
        """Seconds a Service Request would have waited behind the highest backlog."""
        return self.highest_backlog / self.capacity

    def add(self, second: int, units: int, idle_s: int) -> None:
        """Add the units of one second, after `idle_s` seconds without any."""
        if idle_s and self.backlog:
            # Of the idle seconds, those at whose end something is still waiting.
            self.seconds_with_backlog += min(idle_s, int(-(-self.backlog // self.capacity)) - 1)
            self.backlog = max(0.0, self.backlog - idle_s * self.capacity)
        self.backlog = max(0.0, self.backlog + units - self.capacity)
        self.seconds_with_backlog += self.backlog > 0
        self.seconds_above_threshold += units > self.threshold
        self.seconds_above_capacity += units > self.capacity
        if units > self.highest:
            self.highest, self.highest_second = units, second
        if self.backlog > self.highest_backlog:
            self.highest_backlog, self.highest_backlog_second = self.backlog, second


@dataclass(slots=True)
class Series:
    """Offered and admitted units by bins of equal width, at most `limit` of them: the highest second of each.

    When the bins run out, each two become one of twice the width.
    """

    first: int
    limit: int = 600
    width: int = 1
    offered: list[int] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)
    active: list[bool] = field(default_factory=list)

    def add(self, row: Row) -> None:
        place = (row.second - self.first) // self.width
        while place >= self.limit:
            self._halve()
            place = (row.second - self.first) // self.width
        missing = place + 1 - len(self.offered)
        if missing > 0:
            self.offered += [0] * missing
            self.admitted += [0] * missing
            self.active += [False] * missing
        self.offered[place] = max(self.offered[place], row.offered_units)
        self.admitted[place] = max(self.admitted[place], row.admitted_units)
        self.active[place] |= row.active

    def _halve(self) -> None:
        for name, join in (("offered", max), ("admitted", max), ("active", any)):
            old = getattr(self, name)
            setattr(self, name, [join(old[at : at + 2]) for at in range(0, len(old), 2)])
        self.width *= 2


@dataclass(slots=True, eq=False)
class Outcome:
    """What the Mechanism did with all the traffic.

    Attributes
    ----------
    users : list of str
        By slot; the first stands for the unknown ones.
    offered, admitted : Queue
        A DSP that gets everything, and one behind the Mechanism.
    seconds : int
        From the first to the last, both included; 0 if there was no Service Request.
    counts : ndarray of int64, shape (users, 4)
        Service Requests by User and `Decision`.
    seconds_throttled, highest_offered : ndarray of int64, shape (users,)
        Seconds with a throttled request; Service Requests offered in the User's highest second.
    events : list of Event
        The first 10,000 of them.
    series : Series
        The whole of it.
    closest : Series or None
        The activation with the most throttled requests, with the seconds around it.
    decided_s : float
        Seconds of this machine's time spent deciding: not reproducible, never in a file.
    """

    users: list[str]
    offered: Queue
    admitted: Queue
    seconds: int = 0
    unknown_srv: int = 0
    activations: int = 0
    events: list[Event] = field(default_factory=list)
    series: Series = field(default_factory=lambda: Series(0))
    closest: Series | None = None
    closest_began_s: float = 0.0
    decided_s: float = 0.0
    counts: Ints = field(init=False)
    seconds_throttled: Ints = field(init=False)
    highest_offered: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.users), 4), dtype=np.int64)
        self.seconds_throttled, self.highest_offered = np.zeros((2, len(self.users)), dtype=np.int64)

    @property
    def requests(self) -> int:
        return int(self.counts.sum())

    def of(self, decision: Decision) -> int:
        """Service Requests with this outcome, all Users together."""
        return int(self.counts[:, decision].sum())

    def of_user(self, user: str) -> list[int]:
        """Service Requests of a User by `Decision`; none of one that is not among them."""
        found: list[int] = self.counts[self.users.index(user)].tolist() if user in self.users else [0] * 4
        return found

    @property
    def active_s(self) -> float:
        """Seconds the Mechanism was active."""
        return sum(
            (self.seconds if each.ended_s is None else each.ended_s) - each.began_s for each in self.events
        )

    @property
    def highest_while_active(self) -> int:
        """Units admitted in the highest second of any event that had begun by then; 0 without one."""
        return max((event.highest_admitted for event in self.events), default=0)


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
