"""How fairly a policy shared spare capacity among Users that wanted more of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tmm_core.mechanism import Decision
from tmm_core.operations.terminal import number, percent
from tmm_core.policy.config import Config

__all__ = ["WINDOWS", "Shares", "jain", "max_min"]

_Counts = np.ndarray[Any, np.dtype[np.int64]]
_Floats = np.ndarray[Any, np.dtype[np.float64]]

WINDOWS = 4
"""Into which a second is divided where anything was refused.

A share is a rate: what was spare in a moment that has passed cannot be given to somebody who asks later. A User whose
demand of a second comes in its last tenth is refused some of it by every fair allocator that does not know the
future; measured by the second that would look like unfairness. A quarter of a second is what a User may save up
(the burst of its spare bucket, decision 0002), so within it the moment does not matter.
"""

_LEAST_SHARE = 50  # Service Requests of spare capacity below which a share is all rounding
_LEAST_SPARE = 0.01  # of the operating threshold, below which there is no spare capacity to share
_LEAST_S = 10


def jain(values: _Floats) -> float:
    """Return Jain's index of fairness: 1 if all are alike, 1/n if one has everything.

    Examples
    --------
    >>> jain(np.array([2.0, 2.0])), jain(np.array([1.0, 0.0]))
    (1.0, 0.5)
    """
    return float(values.sum() ** 2 / (values.size * (values**2).sum())) if values.any() else 1.0


def max_min(demands: _Floats, weights: _Floats, total: float) -> _Floats:
    """Return the weighted max-min fair shares of a total, none above its demand.

    Examples
    --------
    >>> max_min(np.array([1.0, 9.0, 9.0]), np.array([1.0, 1.0, 2.0]), 10.0).tolist()
    [1.0, 3.0, 6.0]
    """
    if demands.sum() <= total:
        return demands.copy()
    order = np.argsort(demands / weights, kind="stable")
    left, weight, level = total, float(weights.sum()), 0.0
    for place in order.tolist():
        level = left / weight
        if demands[place] / weights[place] > level:
            break
        left -= float(demands[place])
        weight -= float(weights[place])
    return np.minimum(demands, level * weights)


class Shares:
    """Compares what Users got with their exact weighted max-min shares, window by window. *Not thread-safe.*

    Parameters
    ----------
    users : list of str
        By slot; the first stands for the unknown ones.
    config : Config
    """

    def __init__(self, users: list[str], config: Config) -> None:
        self._users = users
        self._got: _Floats = np.zeros(len(users))
        self._fair: _Floats = np.zeros(len(users))
        self._refused: _Counts = np.zeros(len(users), dtype=np.int64)
        self._short_s = self._shared_s = 0.0
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Share by new allocations from now on."""
        weights = [config.spare_weight]
        weights += [config.allocations[user] or config.spare_weight for user in self._users[1:]]
        self._weights: _Floats = np.array(weights)
        self._threshold = config.operating_threshold

    def add(self, windows: _Counts) -> None:
        """Add a second.

        Parameters
        ----------
        windows : ndarray of int64, shape (windows, users, 4, 2)
            Attempts by User, `Decision` and whether they were let through, in equal parts of the second.
        """
        part_s = 1 / len(windows)
        above = windows[:, :, Decision.SPARE_CAPACITY] + windows[:, :, Decision.THROTTLED]
        for refused, through in above.transpose(0, 2, 1):
            if not refused.any():
                continue
            self._short_s += part_s
            self._refused += refused
            spare = float(through.sum())
            if spare < _LEAST_SPARE * self._threshold * part_s:
                continue
            self._shared_s += part_s
            limited = refused > 0
            fair = max_min((refused + through).astype(np.float64), self._weights, spare)
            self._got[limited] += through[limited]
            self._fair[limited] += fair[limited]

    @property
    def fairness(self) -> float | None:
        """Jain index of what limited Users got over what was fair; None where that is `not_measured`."""
        if self.not_measured:
            return None
        known = self._fair >= _LEAST_SHARE
        return jain(self._got[known] / self._fair[known])

    @property
    def got_of_fair(self) -> dict[str, float]:
        """What each User got over what was fair, in the windows in which it was limited."""
        known = np.flatnonzero(self._fair >= _LEAST_SHARE)
        return {self._users[user]: float(self._got[user] / self._fair[user]) for user in known}

    @property
    def not_measured(self) -> str:
        """Why there is no sharing to judge; empty where there is."""
        refused = np.flatnonzero(self._refused)
        if not refused.size:
            return "nobody was refused spare capacity"
        if refused.size == 1:
            return f"{self._users[refused[0]]} alone was refused spare capacity"
        if self._shared_s < _LEAST_S:
            seconds = f"{number(round(self._shared_s))} s of {number(round(self._short_s))} s"
            return (
                f"more than {percent(_LEAST_SPARE, 1)} of the threshold was spare in {seconds} with refusals"
            )
        if np.count_nonzero(self._fair >= _LEAST_SHARE) < 2:
            return f"fewer than two of the refused had {_LEAST_SHARE} Service Requests to share"
        return ""
