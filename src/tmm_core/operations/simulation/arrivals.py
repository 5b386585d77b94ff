"""The new Service Requests of a scenario, second by second, from seeds of each User's own.

Only random 64-bit words and elementwise arithmetic are used: the same seed gives the same requests on every
machine. A User's traffic does not change when other Users are added or taken away.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tmm_core.operations.simulation.replayed import Replayed, replayed
from tmm_core.operations.simulation.scenario import Scenario, Traffic
from tmm_core.operations.simulation.words import BORN, SRV, TIME_BITS, USER, Words
from tmm_core.operations.traffic.traffic import SRV_BITS, srv_table

__all__ = ["Arrivals", "Fresh"]

_UNKNOWN = "(unknown)"
_U = np.uint64


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """The new Service Requests of one second: words in the order of time, and where each step begins.

    ``edges`` has one entry more than there are steps.
    """

    words: Words
    edges: list[int]


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
        self._cells: list[_Cell] = []
        self._replayed: list[Replayed] = []
        tables = {
            name: srv_table(mix, number_of).astype(np.int64) << SRV for name, mix in scenario.mixes.items()
        }
        portfolio = {user.name: user.portfolio for user in scenario.users}
        portfolio[_UNKNOWN] = 1.0
        for place, traffic in enumerate(scenario.traffic):
            if traffic.file is not None:
                self._replayed.append(replayed(traffic, slot_of, number_of))
                continue
            senders = [name for name in portfolio if traffic.is_from(name)]
            total = sum(portfolio[name] for name in senders) or 1.0
            for name in senders:
                rate = traffic.rate * portfolio[name] / total
                base = tables[traffic.mix] | (slot_of(name) << USER)
                self._cells.append(_Cell(scenario, traffic, place, name, rate, base))

    def second(self, second: int) -> Fresh:
        """Make the Service Requests of one second; called for each in turn."""
        steps, parts, times = self._steps, [], []
        for cell in self._cells:
            raw = cell.second(second)
            if raw.size:
                parts.append(cell.base[(raw & _U((1 << SRV_BITS) - 1)).astype(np.int64)])
                times.append(raw >> _U(64 - TIME_BITS))
        for each in self._replayed:
            words, moments = each.second(second)
            parts.append(words)
            times.append(moments)
        if not parts:
            return Fresh(np.empty(0, dtype=np.int64), [0] * (steps + 1))
        moment = np.concatenate(times).astype(np.int64)
        order = np.argsort(moment, kind="stable")
        step = (moment[order] * steps) >> TIME_BITS
        words = np.concatenate(parts)[order] | ((second * steps + step) << BORN)
        return Fresh(words, [0, *np.cumsum(np.bincount(step, minlength=steps)).tolist()])

    def close(self) -> None:
        """Close the files that are replayed. Harmless when repeated."""
        for each in self._replayed:
            each.close()


class _Cell:
    """One stream of one User."""

    def __init__(
        self, scenario: Scenario, traffic: Traffic, place: int, name: str, rate: float, base: Words
    ) -> None:
        self.base = base
        self._traffic = traffic
        self._rate = rate
        self._scenario = scenario
        self._words = np.random.PCG64([scenario.seed, zlib.crc32(name.encode()), place])
        self._late = traffic.spread_s * self._draw()
        self._state = 0
        if traffic.factors:  # begin anywhere
            self._state = int(self._draw() * len(traffic.factors))

    def second(self, second: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return a random word for each Service Request of a second."""
        rate = self._rate * self._factor(second)
        if rate <= 0:
            return np.empty(0, dtype=np.uint64)
        wander = self._traffic.wander
        rate *= 1 - wander + 2 * wander * self._draw()
        raw: np.ndarray[Any, np.dtype[np.uint64]] = self._words.random_raw(int(rate + self._draw()))
        return raw

    def _draw(self) -> float:
        word: int = self._words.random_raw()
        return float(word >> 11) * 2.0**-53

    def _factor(self, second: int) -> float:
        traffic, kind = self._traffic, self._traffic.kind
        if kind == "diurnal":
            hour = (self._scenario.begins_h + (second + 0.5) * self._scenario.speed / 3600) % 24
            return _along(traffic.knots, hour - self._late * self._scenario.speed / 3600)
        if kind == "burst":
            return _trapezium(second + 0.5 - traffic.at_s - self._late, traffic.lasts_s, traffic.ramp_s)
        within = not traffic.lasts_s or traffic.at_s <= second < traffic.at_s + traffic.lasts_s
        if not within:
            return 0.0
        if kind in ("on-off", "mmpp"):
            if self._draw() * traffic.dwell_s[self._state] < 1:
                # To any of the others, all alike.
                step = 1 + int(self._draw() * (len(traffic.factors) - 1))
                self._state = (self._state + step) % len(traffic.factors)
            return traffic.factors[self._state]
        return 1.0


def _along(knots: tuple[tuple[float, float], ...], x: float) -> float:
    """Return the value at x on straight lines through knots."""
    if x <= knots[0][0]:
        return knots[0][1]
    for (x0, y0), (x1, y1) in pairwise(knots):
        if x <= x1:
            return y0 + (x - x0) * (y1 - y0) / (x1 - x0) if x1 > x0 else y1
    return knots[-1][1]


def _trapezium(t: float, lasts: float, ramp: float) -> float:
    """Rise within `ramp` from 0 to 1 at the beginning, and fall as fast at the end."""
    if not 0 < t < lasts:
        return 0.0
    return min(1.0, t / ramp, (lasts - t) / ramp) if ramp > 0 else 1.0
