"""An independent check of the engine's decisions while a simulation runs.

It knows the allocations, the priority list and the bound of docs/guarantees.md, in plain floating point, and
shares no code with the engine.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision
from tmm_core.policy.config import Config

__all__ = ["Audit", "Audited"]

_THROTTLED, _SPARE, _WITHIN = (
    int(Decision.THROTTLED),
    int(Decision.SPARE_CAPACITY),
    int(Decision.WITHIN_ALLOCATION),
)
_NS = 1e9
_SLACK_S = 1e-5  # floating point; far below any interval that matters

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found.

    Attributes
    ----------
    within : int
        Attempts admitted inside the allocation.
    within_throttled : int
        Attempts throttled although the User's bucket conformed: breaches of P1.
    priority_throttled : int
        Breaches of P2.
    excess : float
        Non-priority units admitted beyond the threshold's rate, in the worst of all windows.
    bound : float
        The most that docs/guarantees.md allows.
    """

    within: int
    within_throttled: int
    priority_throttled: int
    excess: float
    bound: float


class Audit:
    """Keeps one reference bucket for each User. *Not thread-safe.*

    Parameters
    ----------
    config : Config
    users : int
        Slots.
    costs : ndarray of float64, optional
        Units by SRV number; None: one unit each.
    priority : ndarray of bool
        By SRV number.
    """

    def __init__(
        self, config: Config, users: int, costs: _Floats | None, priority: np.ndarray[Any, Any]
    ) -> None:
        self._users, self._costs, self._priority = users, costs, priority
        self._tat: _Floats = np.zeros(users)
        self._within = self._within_throttled = self._priority_throttled = 0
        self._load = self._excess = self._bound = self._at = 0.0
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Put new allocations in force."""
        rates = np.array([config.unknown_allocation, *config.allocations.values()])
        self._known = rates > 0
        self._interval: _Floats = 1 / np.where(self._known, rates, 1.0)
        self._burst_s = config.burst_s
        self._threshold = config.operating_threshold
        longest = max(config.costs.values(), default=1)
        bursts = float((rates[rates > 0] * config.burst_s + longest).sum())
        bound = self._threshold * config.activation_s + longest + 15 + bursts
        self._bound = max(self._bound, bound)

    def steps(self, counts: np.ndarray[Any, Any], units: np.ndarray[Any, Any], at_s: _Floats) -> None:
        """Check the decisions of steps by User and `Decision`, but for what is on the priority list.

        Parameters
        ----------
        counts, units : ndarray, shape (steps, users, 4)
        at_s : ndarray of float64, shape (steps,)
            The instants they were made at, rising.
        """
        within = units[:, :, _WITHIN]
        charged = within * self._interval
        before = np.cumsum(charged, axis=0) - charged  # since the first of these steps
        # A bucket at rest holds nothing: its word may be behind.
        at = at_s[:, np.newaxis]
        found = np.maximum(np.maximum.accumulate(at - before, axis=0), self._tat) + before + charged
        self._tat = found[-1]
        self._within += int(counts[:, :, _WITHIN].sum())
        throttled = counts[:, :, _THROTTLED]
        if throttled.any():
            # At one instant a bucket only fills: where it still has room now, it had room at the refusal.
            room = self._known & (found - at <= self._burst_s - _SLACK_S)
            self._within_throttled += int(throttled[room].sum())
        admitted = (within + units[:, :, _SPARE]).sum(axis=1)
        drained = self._threshold * (at_s - self._at)
        loads = admitted.cumsum() - drained
        loads += np.maximum(np.maximum.accumulate(admitted - loads), self._load)
        self._load, self._at = float(loads[-1]), float(at_s[-1])
        self._excess = max(self._excess, float(loads.max()))

    def second(
        self,
        counts: np.ndarray[Any, Any],
        units: np.ndarray[Any, Any],
        instants: Sequence[int],
        throttled: np.ndarray[Any, np.dtype[np.uint16]],
        changed: Sequence[tuple[int, Config]] = (),
    ) -> None:
        """Check the decisions of some instants in nanoseconds; what came into force among them counts from then on.

        Parameters
        ----------
        counts, units : ndarray, shape (instants, users, 4)
        instants : sequence of int
        throttled : ndarray of uint16
            SRV numbers of all that were throttled.
        changed : sequence of (int, Config)
            From which instant on.
        """
        at_s, begin = np.array(instants) / _NS, 0
        for now, config in changed:
            if (end := bisect_left(instants, now)) > begin:
                self.steps(counts[begin:end], units[begin:end], at_s[begin:end])
            self.apply(config)
            begin = end
        self.steps(counts[begin:], units[begin:], at_s[begin:])
        self.throttled(throttled)

    def throttled(self, srvs: np.ndarray[Any, np.dtype[np.uint16]]) -> None:
        """Check what was throttled against the priority list."""
        self._priority_throttled += int(np.count_nonzero(self._priority[srvs]))

    def result(self) -> Audited:
        """Return what was found so far."""
        return Audited(
            self._within, self._within_throttled, self._priority_throttled, self._excess, self._bound
        )
