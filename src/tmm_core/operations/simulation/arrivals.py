"""The new Service Requests of a scenario, second by second, from seeds of each User's own.

Only random 64-bit words and elementwise arithmetic are used: the same seed gives the same requests on every
machine. A User's traffic does not change when other Users are added or taken away.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tmm_core.operations.simulation.mixes import SRV_BITS, srv_table
from tmm_core.operations.simulation.replayed import Replayed, replayed
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.streams import Stream, Streams
from tmm_core.operations.simulation.words import BORN, SRV, TIME_BITS, Words

__all__ = ["Arrivals", "Fresh", "Requests"]

_UNKNOWN = "(unknown)"
_U = np.uint64
_LOW, _HIGH = _U((1 << SRV_BITS) - 1), _U(64 - TIME_BITS)
_STEP = 20  # place of the step's number above a code; a second has at most 1000

_Codes = np.ndarray[Any, np.dtype[np.uint32]]
_Edges = np.ndarray[Any, np.dtype[np.int64]]
_Times = np.ndarray[Any, np.dtype[np.uint32]]


class Requests(NamedTuple):
    """User slots and SRV numbers of Service Requests, in some order."""

    users: np.ndarray[Any, np.dtype[np.uint32]]
    srvs: np.ndarray[Any, np.dtype[np.uint16]]

    def part(self, begin: int, end: int) -> Requests:
        """Return those from one place to another."""
        return Requests(self.users[begin:end], self.srvs[begin:end])


class InTime(NamedTuple):
    """Words of one second in the order of time, and where each step of it begins and the last one ends."""

    words: Words
    edges: list[int]


class Fresh:
    """The new Service Requests of some seconds, put in order when they are looked at.

    Parameters
    ----------
    codes : ndarray of uint32, shape (n,)
        User slot << 8 | SRV.
    times : ndarray of uint32, shape (n,)
        Within the second, in units of 2**-`TIME_BITS`.
    bounds : list of int
        Where each second begins, and the end.
    steps : int
        Of a second.
    first : int
        The first second.
    """

    __slots__ = ("_bounds", "_codes", "_edges", "_grouped", "_in_time", "_steps", "_times", "first")

    def __init__(self, codes: _Codes, times: _Times, bounds: list[int], steps: int, first: int) -> None:
        self._codes, self._times, self._bounds, self._steps, self.first = codes, times, bounds, steps, first
        self._edges: _Edges | None = None
        self._grouped: Requests | None = None
        self._in_time: dict[int, InTime] = {}

    @property
    def seconds(self) -> int:
        return len(self._bounds) - 1

    def in_time(self, place: int) -> InTime:
        """Return one second, put in order once for all policies."""
        if place not in self._in_time:
            part = slice(*self._bounds[place : place + 2])
            times = self._times[part]
            order = _by_time(times)
            step = _steps_of(times[order], self._steps)
            edges = np.searchsorted(step, np.arange(self._steps + 1)).tolist()
            words = (step.astype(np.int64) + (self.first + place) * self._steps) << BORN
            words |= self._codes[part][order].astype(np.int64) << SRV
            self._in_time[place] = InTime(words, edges)
        return self._in_time[place]

    @property
    def grouped(self) -> Requests:
        """User slots and SRV numbers of each second in the order of steps, Users and SRVs: faster than that of time."""
        if self._grouped is None:
            self._group()
        assert self._grouped is not None
        return self._grouped

    @property
    def edges(self) -> _Edges:
        """Where each step of each second begins in `grouped`, and where its last one ends; a row for each second."""
        if self._edges is None:
            self._group()
        assert self._edges is not None
        return self._edges

    def _group(self) -> None:
        keys = _steps_of(self._times, self._steps)
        keys <<= _STEP
        keys |= self._codes
        firsts = np.arange(self._steps + 1, dtype=np.uint32) << _STEP
        self._edges = np.empty((self.seconds, firsts.size), dtype=np.int64)
        for place, (begin, end) in enumerate(pairwise(self._bounds)):
            mine = keys[begin:end]
            mine.sort()
            self._edges[place] = mine.searchsorted(firsts)
            self._edges[place] += begin
        srvs = keys.astype(np.uint8).astype(np.uint16)
        keys >>= 8
        keys &= 0xFFF
        self._grouped = Requests(keys, srvs)


class Arrivals:
    """Makes the new Service Requests of a scenario. *Not thread-safe.*

    Parameters
    ----------
    scenario : Scenario
    slot_of, number_of : callable
        `Mechanism.user` and `Mechanism.srv`.

    Raises
    ------
    TMMError
        A file to replay cannot be used.
    """

    def __init__(
        self, scenario: Scenario, slot_of: Callable[[str], int], number_of: Callable[[str], int]
    ) -> None:
        self._steps = scenario.steps_per_s
        self._replayed: list[Replayed] = []
        self._tables: list[_Codes] = []  # of each traffic
        portfolio = {user.name: user.portfolio for user in scenario.users}
        portfolio[_UNKNOWN] = 1.0
        streams: list[Stream] = []
        ends = []
        for place, traffic in enumerate(scenario.traffic):
            if traffic.file is not None:
                self._replayed.append(replayed(traffic, slot_of, number_of))
                continue
            senders = [name for name in portfolio if traffic.is_from(name)]
            total = sum(portfolio[name] for name in senders) or 1.0
            streams += [Stream(name, place, traffic.rate * portfolio[name] / total) for name in senders]
            ends.append(len(streams))
            self._tables.append(srv_table(scenario.mixes[traffic.mix], number_of).astype(np.uint32))
        self._streams = Streams(scenario, streams)
        self._cuts = np.array([0, *ends])  # of the streams, between one traffic and the next
        self._slots = np.array([slot_of(stream.user) for stream in streams], dtype=np.uint32) << 8

    def seconds(self, first: int, number: int = 1) -> Fresh:
        """Make the Service Requests of some seconds; called for one after the other."""
        counts, raw = self._streams.seconds(first, number)
        codes = np.repeat(np.tile(self._slots, number), counts.ravel())  # User slot << 8 | SRV
        times = np.empty(raw.size, dtype=np.uint32)
        sums = np.concatenate(([0], counts.cumsum()))
        cuts = sums[np.add.outer(np.arange(number) * counts.shape[1], self._cuts)]
        for row in cuts.tolist():
            for table, (begin, end) in zip(self._tables, pairwise(row), strict=True):
                mine = raw[begin:end]
                codes[begin:end] |= table.take((mine & _LOW).view(np.int64))
                mine >>= _HIGH
                times[begin:end] = mine
        bounds = [*cuts[:, 0].tolist(), codes.size]
        if self._replayed:
            codes, times, bounds = self._with_replayed(codes, times, bounds, first)
        return Fresh(codes, times, bounds, self._steps, first)

    def _with_replayed(
        self, codes: _Codes, times: _Times, bounds: list[int], first: int
    ) -> tuple[_Codes, _Times, list[int]]:
        """Add past traffic to each of some seconds, after what is drawn."""
        all_codes, all_times, all_bounds = [], [], [0]
        for second, (begin, end) in enumerate(pairwise(bounds), first):
            all_codes.append(codes[begin:end])
            all_times.append(times[begin:end])
            size = end - begin
            for each in self._replayed:
                words, their_times = each.second(second)
                all_codes.append((words >> SRV).astype(np.uint32))
                all_times.append(their_times.astype(np.uint32))
                size += words.size
            all_bounds.append(all_bounds[-1] + size)
        return np.concatenate(all_codes), np.concatenate(all_times), all_bounds

    def close(self) -> None:
        """Close the files that are replayed. Harmless when repeated."""
        for each in self._replayed:
            each.close()


def _steps_of(times: _Times, steps: int) -> _Codes:
    """Return the steps of times within a second."""
    if steps > 1 << 32 - TIME_BITS:
        return ((times.astype(np.uint64) * _U(steps)) >> _U(TIME_BITS)).astype(np.uint32)
    found: _Codes = times * np.uint32(steps)
    found >>= TIME_BITS
    return found


def _by_time(times: _Times) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the order of times, and of their places where they are the same."""
    # Two stable passes over short words: NumPy sorts these by digits, several times faster than whole words.
    order = np.argsort(times.astype(np.uint8), kind="stable")
    return order[np.argsort((times >> 8).astype(np.uint16)[order], kind="stable")]
