"""What became of the traffic: by second, by User, by traffic management event, and in the DSP's queue.

And the files of `tmm demo` and `tmm replay`: a row per second, a row per User, a chart. They are written beside
their names first and moved into place when all is done: an interrupted run leaves no half file that could be taken
for a whole one.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations.traffic import Ints
from tmm_core.policy.config import Config


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


OUTCOMES = tuple(reversed(Decision))
"""In the order in which they are shown: ``counts[::-1]``."""
_LOAD = ("offered", "admitted", *(decision.name.lower() for decision in OUTCOMES))
SECONDS_HEADER = (
    "time",
    "second",
    *_LOAD,
    "offered_units",
    "admitted_units",
    "active",
    "level",
    "backlog_without_units",
)
USERS_HEADER = ("user", "category", "allocation", *_LOAD, "seconds_throttled", "highest_offered_second")


def allocation_of(config: Config, user: str) -> float | None:
    """Return the allocation of a User or of the unknown ones, units per second; None without one."""
    return config.unknown_allocation if user == UNKNOWN else config.allocations.get(user)


def in_csv(text: str) -> str:
    """Return text as a CSV cell that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


class OutcomeFiles:
    """Writes ``NAME.csv``, ``users.csv`` and ``NAME.svg`` into a folder; a context manager.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    time_of : callable
        Text of the column ``time`` for a second of the traffic.
    keep : sequence of Path
        Files that were read: refused as a place to write to.
    users : str
        Name of the file of Users.

    Raises
    ------
    TMMError
        A file that was read would be overwritten.
    OSError
        The folder cannot be made or written to.
    """

    def __init__(
        self, folder: Path, name: str, time_of: Callable[[int], str], keep: tuple[Path, ...] = (), *,
        users: str = "users.csv",
    ) -> None:  # fmt: skip
        self.seconds = folder / f"{name}.csv"
        self.users = folder / users
        self.chart = folder / f"{name}.svg"
        self._time_of = time_of
        self._done: list[Path] = []
        self._stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.paths:
            if any(path.exists() and kept.exists() and path.samefile(kept) for kept in keep):
                raise TMMError(f"{path} was read, and would be overwritten: choose another folder with --out")
        self._file = self._open(self.seconds)
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(SECONDS_HEADER)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in place after `finish`."""
        return self.seconds, self.users, self.chart

    def row(self, row: Row) -> None:
        """Write one second."""
        level = "" if row.level is None else f"{row.level:.4f}"
        self._rows.writerow(
            [self._time_of(row.second), row.second, row.offered, row.admitted, *row.counts[::-1], row.offered_units,
             row.admitted_units, int(row.active), level, f"{row.backlog_without:.0f}"]
        )  # fmt: skip

    def finish(self, outcome: Outcome, config: Config, chart: str) -> None:
        """Write the Users and the chart, and put all the files in place."""
        with self._open(self.users) as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(USERS_HEADER)
            for slot, user in enumerate(outcome.users):
                counts = outcome.counts[slot].tolist()
                allocation = allocation_of(config, user) or 0.0
                rows.writerow(
                    [in_csv(user), config.categories.get(user, ""), f"{allocation:.15g}", sum(counts),
                     sum(counts) - counts[Decision.THROTTLED], *counts[::-1], int(outcome.seconds_throttled[slot]),
                     int(outcome.highest_offered[slot])]
                )  # fmt: skip
        with self._open(self.chart) as file:
            file.write(chart)
        self._file.close()
        for path in self._done:
            os.replace(_part(path), path)
        self._done.clear()

    def _open(self, path: Path) -> TextIO:
        file = self._stack.enter_context(_part(path).open("w", encoding="utf-8", newline=""))
        self._done.append(path)
        return file

    def __enter__(self) -> OutcomeFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for path in self._done:
            _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
