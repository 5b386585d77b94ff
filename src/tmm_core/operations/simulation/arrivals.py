"""The new Service Requests of a scenario, second by second, from seeds of each User's own.

Only random 64-bit words and elementwise arithmetic are used: the same seed gives the same requests on every
machine. A User's traffic does not change when other Users are added or taken away.
"""

from __future__ import annotations

from collections.abc import Callable
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
_STEP = 20  # place of the step's number above a code; a second has at most 1000

_Codes = np.ndarray[Any, np.dtype[np.uint32]]
_Times = np.ndarray[Any, np.dtype[np.uint32]]


class Requests(NamedTuple):
    """User slots and SRV numbers of Service Requests, in some order."""

    users: np.ndarray[Any, np.dtype[np.uint32]]
    srvs: np.ndarray[Any, np.dtype[np.uint16]]


class Fresh:
    """The new Service Requests of one second, put in order when they are looked at.

    Parameters
    ----------
    codes : ndarray of uint32, shape (n,)
        User slot << 8 | SRV.
    times : ndarray of uint32, shape (n,)
        Within the second, in units of 2**-`TIME_BITS`.
    steps : int
        Of a second.
    first_step : int
    """

    __slots__ = ("_codes", "_edges", "_first", "_grouped", "_steps", "_times", "_words")

    def __init__(self, codes: _Codes, times: _Times, steps: int, first_step: int) -> None:
        self._codes, self._times, self._steps, self._first = codes, times, steps, first_step
        self._edges: list[int] | None = None
        self._grouped: Requests | None = None
        self._words: Words | None = None

    @property
    def words(self) -> Words:
        """The words of all, in the order of time."""
        if self._words is None:
            order = _by_time(self._times)
            step = _steps_of(self._times[order], self._steps)
            if self._edges is None:
                self._edges = np.searchsorted(step, np.arange(self._steps + 1)).tolist()
            self._words = (step.astype(np.int64) + self._first) << BORN
            self._words |= self._codes[order].astype(np.int64) << SRV
        return self._words

    @property
    def grouped(self) -> Requests:
        """User slots and SRV numbers in the order of steps, Users and SRVs: several times faster than that of time."""
        if self._grouped is None:
            keys = _steps_of(self._times, self._steps)
            keys <<= _STEP
            keys |= self._codes
            keys.sort()
            if self._edges is None:
                firsts = np.arange(self._steps + 1, dtype=np.uint32) << _STEP
                self._edges = np.searchsorted(keys, firsts).tolist()
            users = ((keys >> 8) & 0xFFF).astype(np.uint32, copy=False)
            self._grouped = Requests(users, keys.astype(np.uint8).astype(np.uint16))
        return self._grouped

    @property
    def edges(self) -> list[int]:
        """Where each step begins, in either order, and how many there are in all."""
        if self._edges is None:
            _ = self.grouped
        assert self._edges is not None
        return self._edges


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
        self._tables: list[np.ndarray[Any, np.dtype[np.uint16]]] = []  # of each traffic
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
            self._tables.append(srv_table(scenario.mixes[traffic.mix], number_of))
        self._streams = Streams(scenario, streams)
        self._ends = np.array(ends, dtype=np.int64)  # of the streams of each traffic
        self._slots = np.array([slot_of(stream.user) for stream in streams], dtype=np.uint32) << 8

    def second(self, second: int) -> Fresh:
        """Make the Service Requests of one second; called for each in turn."""
        which, counts, raw = self._streams.second(second)
        codes = np.repeat(self._slots[which], counts)  # User slot << 8 | SRV
        draws = (raw & _U((1 << SRV_BITS) - 1)).view(np.int64)
        sums = np.concatenate(([0], np.cumsum(counts)))
        ends = sums[np.searchsorted(which, self._ends)].tolist()
        for table, begin, end in zip(self._tables, [0, *ends], ends, strict=False):
            codes[begin:end] |= table.take(draws[begin:end])
        times = (raw >> _U(64 - TIME_BITS)).astype(np.uint32)
        for each in self._replayed:
            words, their_times = each.second(second)
            codes = np.concatenate([codes, (words >> SRV).astype(np.uint32)])
            times = np.concatenate([times, their_times.astype(np.uint32)])
        return Fresh(codes, times, self._steps, second * self._steps)

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
