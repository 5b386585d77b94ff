"""Past traffic in a scenario: the lines of a CSV file, or the counts of an event log."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.operations.simulation.scenario import Traffic
from tmm_core.operations.simulation.words import SRV, TIME_BITS, USER, Words
from tmm_core.operations.traffic.drive import NS, STEP_NS, TrafficSecond
from tmm_core.operations.traffic.logged_traffic import LoggedTraffic, names_event_log
from tmm_core.policy.tables import begins_of

__all__ = ["Replayed", "logged_traffic", "replayed"]

_Times = np.ndarray[Any, np.dtype[np.uint64]]
_STEPS = NS // STEP_NS


class Replayed(Protocol):
    """Past traffic, read once, second by second."""

    def second(self, second: int) -> tuple[Words, _Times]:
        """Return the words of a second, without the step they are born in, and their times in 2**-24 s."""

    def close(self) -> None:
        """Close the files. Harmless when repeated."""


def replayed(traffic: Traffic, slot_of: Callable[[str], int], number_of: Callable[[str], int]) -> Replayed:
    """Open the file of ``replay`` traffic.

    Raises
    ------
    TMMError
        It cannot be used; an `EventLogError` where it is an event log.
    """
    path = traffic.file
    assert path is not None
    try:
        if names_event_log(path):
            return _Logged(path, logged_traffic(traffic), slot_of, number_of)
        return _Lines(path, slot_of, number_of)
    except OSError as error:
        raise TMMError(f"{path}: {error.strerror or error}") from None


def logged_traffic(traffic: Traffic) -> LoggedTraffic:
    """Open the event log of ``replay`` traffic, in its time.

    Raises
    ------
    EventLogError
        There is none, or it cannot be read.
    """
    assert traffic.file is not None
    until = {} if traffic.until_s is None else {"until_s": traffic.until_s}
    return LoggedTraffic([traffic.file], since_s=traffic.since_s or 0, **until)


class _Lines:
    """Lines ``second,user,srv`` of a CSV file, in order of time; seconds since the start, with decimals."""

    def __init__(self, path: Path, slot_of: Callable[[str], int], number_of: Callable[[str], int]) -> None:
        self._path, self._slot_of, self._number_of = path, slot_of, number_of
        self._lines = self._read()
        self._next = next(self._lines, None)

    def _read(self) -> Iterator[tuple[float, int]]:
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"second", "user", "srv"} - set(rows.fieldnames or ())
            if missing:
                raise TMMError(
                    f"{self._path}:1:1: found no column {sorted(missing)[0]}, expected second, user and srv"
                )
            before = 0.0
            for row in rows:
                try:
                    at = float(row["second"])
                except (TypeError, ValueError):
                    at = -1.0
                if not before <= at < 1e9:
                    fault = f"second {row['second']!r} must be a number, 0 or more, not below the line before"
                    column = self._column(rows.line_num, list(rows.fieldnames or ()).index("second"))
                    raise TMMError(f"{self._path}:{rows.line_num}:{column}: {fault}")
                before = at
                yield at, self._slot_of(row["user"]) << USER | self._number_of(row["srv"]) << SRV

    def _column(self, number: int, place: int) -> int:
        """Return where a cell begins; the end of the line if that is shorter."""
        with self._path.open(encoding="utf-8", newline="") as file:
            line = next(islice(file, number - 1, None)).rstrip("\r\n")
        begins = begins_of(line, ",")
        return begins[place] if place < len(begins) else len(line) + 1

    def second(self, second: int) -> tuple[Words, _Times]:
        words, times = [], []
        while self._next is not None and self._next[0] < second + 1:
            at, word = self._next
            words.append(word)
            times.append(int((at - second) * 2**TIME_BITS))
            self._next = next(self._lines, None)
        return np.array(words, dtype=np.int64), np.array(times, dtype=np.uint64)

    def close(self) -> None:
        self._lines.close()  # type: ignore[attr-defined]


class _Logged:
    """The counts of an event log, as `tmm replay` spreads them; second 0 is the first with a Service Request."""

    def __init__(
        self,
        path: Path,
        traffic: LoggedTraffic,
        slot_of: Callable[[str], int],
        number_of: Callable[[str], int],
    ) -> None:
        self._path, self._traffic, self._slot_of, self._known = path, traffic, slot_of, False
        self._seconds = traffic.seconds(self._slot, number_of)
        self._next = next(self._seconds, None)
        if self._next is None:
            fault = "the event log has no Service Request in this time"
        elif not self._known:
            fault = f"no User of the event log is one of the scenario: {', '.join(traffic.notes.unknown_users[:3])}"
        else:
            return
        self.close()
        raise TMMError(f"{path}: {fault}")

    def _slot(self, name: str) -> int:
        slot = self._slot_of(name)
        self._known |= slot > 0
        return slot

    def second(self, second: int) -> tuple[Words, _Times]:
        notes, found = self._traffic.notes, self._next
        if notes.bad:
            raise TMMError(
                f"{self._path}: {notes.first_bad[0]}: tmm replay leaves such rows out and counts them"
            )
        if found is None or found.second > second:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        self._next = next(self._seconds, None)
        return _words(found), -((-found.steps.astype(np.int64) << TIME_BITS) // _STEPS).astype(np.uint64)

    def close(self) -> None:
        self._traffic.close()


def _words(found: TrafficSecond) -> Words:
    return found.users.astype(np.int64) << USER | found.srvs.astype(np.int64) << SRV
