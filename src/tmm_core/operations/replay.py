"""What the Mechanism would have done to past traffic: the real engine on the log's own clock.

The traffic is that of a gateway's request log, or of the Mechanism's own event log. A second configuration
can be tried on it at the same time: both get the same Service Requests, read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.mechanism import Mechanism
from tmm_core.operations.figures import Panel, clock_label, outcome_chart
from tmm_core.operations.traffic import Users
from tmm_core.operations.traffic.drive import Drive, Outcome, TrafficSecond
from tmm_core.operations.traffic.logged_traffic import LoggedNotes, LoggedTraffic
from tmm_core.operations.traffic.request_log import LogNotes, RequestLog
from tmm_core.operations.traffic.request_times import by_second
from tmm_core.operations.traffic.summary import OutcomeFiles
from tmm_core.policy.config import Config

WINDOW_S = 5.0
"""Seconds a line may be behind an earlier one, unless told otherwise."""

_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = np.dtype(np.uint32)


class Requests:
    """A request log: its lines in the order of time within a window."""

    def __init__(self, log: RequestLog, window_s: float = WINDOW_S) -> None:
        self._log, self._window_s = log, window_s
        self.name, self.notes = log.name, log.notes

    def seconds(
        self, slot_of: Callable[[str], int], number_of: Callable[[str], int]
    ) -> Iterator[TrafficSecond]:
        """Yield the Service Requests, second by second."""
        return by_second(self._log.blocks(slot_of, number_of), self._window_s, self.notes)

    def done(self) -> float:
        """Return how far it has been read."""
        return self._log.done()


Source = Requests | LoggedTraffic
"""Past traffic, read once."""


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A configuration, in force in mode ``enforce``, and what became of the traffic under it."""

    config: Config
    outcome: Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A finished replay.

    Attributes
    ----------
    tried : tuple of Tried
        As configured; then what was tried beside it, if anything.
    notes : LogNotes or LoggedNotes
        About the log.
    start : int
        The first second of the log, seconds since 1970.
    files : tuple of Path
        What was written.
    """

    tried: tuple[Tried, ...]
    notes: LogNotes | LoggedNotes
    start: int
    files: tuple[Path, ...]

    @property
    def config(self) -> Config:
        return self.tried[0].config

    @property
    def outcome(self) -> Outcome:
        return self.tried[0].outcome


def run_replay(
    source: Source,
    config: Config,
    folder: Path,
    *,
    beside: Config | None = None,
    keep: tuple[Path, ...] = (),
    progress: Callable[[float], None] = lambda done: None,
) -> Replay:
    """Decide on every Service Request of a log, and write ``replay.csv``, ``users.csv`` and ``replay.svg``.

    With a second configuration the same files of it are named ``what-if.csv``, ``what-if-users.csv`` and
    ``what-if.svg``.

    Parameters
    ----------
    source : Source
        Not read yet.
    config : Config
        With ``mode = "observe"`` the replay still shows what ``enforce`` would have throttled.
    folder : Path
        Made if it does not exist.
    beside : Config, optional
        Tried on the same traffic.
    keep : tuple of Path
        Files that must not be overwritten.
    progress : callable
        Told `Source.done`.

    Raises
    ------
    TMMError
        The log has no Service Request that can be decided on, or is damaged.
    OSError
        A file cannot be read or written.
    """
    notes = source.notes

    def time_of(second: float) -> str:
        return time_at((notes.start or 0) + int(second))

    with ExitStack() as stack:
        sides = [
            _Side(stack, each, name, folder, time_of, keep)
            for name, each in (("replay", config), ("what-if", beside))
            if each is not None
        ]
        slots = _Slots([side.mechanism for side in sides])
        for traffic in source.seconds(slots.number, sides[0].mechanism.srv):
            for side, users in zip(sides, slots.of(traffic.users), strict=True):
                side.drive.feed(replace(traffic, users=users))
            progress(source.done())
        first = notes.start
        if first is None:
            raise TMMError(_nothing(source))
        tried = tuple(side.finish(first, time_of) for side in sides)
        for side, each in zip(sides, tried, strict=True):
            side.write(each.outcome)
        files = tuple(path for side in sides for path in side.files.paths)
    return Replay(tried, notes, first, files)


class _Side:
    """One configuration: its Mechanism, its tallies and its files."""

    def __init__(
        self, stack: ExitStack, config: Config, name: str, folder: Path, time_of: Callable[[int], str],
        keep: tuple[Path, ...],
    ) -> None:  # fmt: skip
        self.name, self.config, self._chart = name, replace(config, mode="enforce"), ""
        users = "users.csv" if name == "replay" else f"{name}-users.csv"
        self.files = stack.enter_context(OutcomeFiles(folder, name, time_of, keep, users=users))
        self.mechanism = stack.enter_context(Mechanism(self.config, start=0))
        self.drive = Drive(self.mechanism, on_row=self.files.row)

    def finish(self, first: int, time_of: Callable[[float], str]) -> Tried:
        """Close the tallies, and draw them."""
        outcome = self.drive.finish()
        which = "" if self.name == "replay" else ", what if"
        self._chart = outcome_chart(
            outcome,
            self.config,
            Panel("The whole log (UTC)", outcome.series, _label_of(first), zero=-(first % _DAY_S)),
            f"tmm replay{which}: {time_of(0)} to {time_of(outcome.seconds - 1)}",
            lambda second: f"from {time_of(second)}",
        )
        return Tried(self.config, outcome)

    def write(self, outcome: Outcome) -> None:
        """Put the files in place."""
        self.files.finish(outcome, self.config, self._chart)


class _Slots:
    """Numbers for Users, by their slots in every Mechanism: a name may be a User of one and unknown to another.

    Number 0 is unknown to all. There are no more numbers than pairs of slots that names have.
    """

    def __init__(self, mechanisms: list[Mechanism]) -> None:
        self._mechanisms = mechanisms
        self._numbers = {(0,) * len(mechanisms): 0}
        self._tables: list[Users] = []

    def number(self, user_id: str) -> int:
        """Return the number of an identifier."""
        slots = tuple(mechanism.user(user_id) for mechanism in self._mechanisms)
        return self._numbers.setdefault(slots, len(self._numbers))

    def of(self, numbers: Users) -> list[Users]:
        """Return the slots of numbers, Mechanism by Mechanism."""
        if not self._tables or self._tables[0].size < len(self._numbers):
            self._tables = [np.array(each, dtype=_NUMBERS) for each in zip(*self._numbers, strict=True)]
        return [table[numbers] for table in self._tables]


def time_at(second: int) -> str:
    """Return seconds since 1970 as text, for example ``2026-12-01T18:30:00Z``."""
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _label_of(start: int) -> Callable[[int], str]:
    """Return the labels of an axis in seconds since the midnight before the start: the day, or the time."""
    midnight = start - start % _DAY_S

    def label(seconds: int) -> str:
        if seconds % _DAY_S:
            return clock_label(seconds)
        at = _EPOCH + timedelta(seconds=midnight + seconds)
        return f"{at.day} {at:%b}"

    return label


def _nothing(source: Source) -> str:
    """Say why there is nothing to decide on."""
    notes = source.notes
    if isinstance(notes, LoggedNotes):
        return f"{source.name}: the event log has no Service Request in this time, of {notes.rows:,} rows"
    if not notes.bad:
        return f"{source.name}: no Service Request after the header"
    faults = "\n".join(f"{source.name}: {bad}" for bad in notes.first_bad[:3])
    return f"{source.name}: none of {notes.bad:,} lines after the header can be read\n{faults}"
