"""What became of the Service Requests of a scenario under one policy: by second, by User, in all; and how fairly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tmm_core.mechanism import Decision
from tmm_core.operations.simulation.promises import Audited
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.terminal import number, percent
from tmm_core.operations.traffic import Floats, Ints
from tmm_core.policy.config import Config


@dataclass(slots=True)
class Second:
    """One second. `fresh`, `offered`, `through` and `admitted` in units; `through` is what the policy let through,
    and `admitted` what of it reached a DSP that was there.

    `wait_s` is the most work that waited at the DSP, in seconds of its capacity.
    """

    fresh: float = 0.0
    offered: float = 0.0
    through: float = 0.0
    admitted: float = 0.0
    attempts: int = 0
    again: int = 0
    refused: int = 0
    failed: int = 0
    answered: int = 0
    lost: int = 0
    wait_s: float = 0.0
    waiting: int = 0
    holding: int = 0
    down: bool = False
    active: bool = False
    active_throughout: bool = False
    inactive_throughout: bool = True


@dataclass(slots=True)
class Activation:
    """One traffic management event; seconds since the start. `ended_s` is None while it lasts."""

    began_s: float
    ended_s: float | None = None


class Waits:
    """Steps from the first attempt to the answer, counted exactly."""

    def __init__(self) -> None:
        self._counts: Ints = np.zeros(1024, dtype=np.int64)
        self._parts: list[Ints] = []

    def add(self, steps: Ints) -> None:
        self._parts.append(steps)
        if len(self._parts) >= 256:
            self._fold()

    def _fold(self) -> None:
        if not self._parts:
            return
        found = np.bincount(np.concatenate(self._parts))
        self._parts.clear()
        self.add_counts(found)

    def add_counts(self, found: Ints) -> None:
        """Add how many waited for so many steps; the place is the number of steps."""
        if found.size > self._counts.size:
            self._counts = np.concatenate([self._counts, np.zeros(found.size, dtype=np.int64)])
        self._counts[: found.size] += found

    def quantile(self, share: float) -> int | None:
        """Return the steps within which a share of the answers came; None without answers."""
        self._fold()
        sums = np.cumsum(self._counts)
        if not sums[-1]:
            return None
        return int(np.searchsorted(sums, share * sums[-1], side="left"))


@dataclass(slots=True, eq=False)
class PolicyResult:
    """Everything about one policy.

    Attributes
    ----------
    users : list of str
        By slot; the first stands for the unknown ones.
    table : ndarray of int64, shape (users, 4, 2)
        Attempts by User, `Decision` of an engine, and whether the policy let it through at once.
    fresh, answered : ndarray of int64, shape (users,)
        Service Requests, and those answered in time.
    open : int
        Service Requests neither answered nor given up at the end.
    failures : int
        Times the DSP failed.
    wasted : int
        Service Requests the DSP worked on after their senders had given up waiting.
    audit : Audited or None
        Of a policy that is the engine's own, against the whole threshold and allocations.
    hosts : list of PolicyResult
        Of several Mechanisms, each by its own terms; the first is that of all hosts together.
    """

    name: str
    users: list[str]
    scenario: Scenario
    rows: list[Second] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    waits: Waits = field(default_factory=Waits)
    priority_fresh: int = 0
    priority_answered: int = 0
    open: int = 0
    failures: int = 0
    wasted: int = 0
    throttled_while_inactive: int = 0
    audit: Audited | None = None
    hosts: list[PolicyResult] = field(default_factory=list)
    table: Ints = field(init=False)
    fresh: Ints = field(init=False)
    answered: Ints = field(init=False)
    shares: Shares = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.users)
        self.table = np.zeros((n, 4, 2), dtype=np.int64)
        self.fresh, self.answered = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.shares = Shares(self.users, self.scenario.config)

    def add(self, row: Second, windows: Ints) -> None:
        """Add a second and its attempts by User, decision and answer, in equal parts of the second."""
        self.rows.append(row)
        table = windows.sum(axis=0)
        self.table += table
        if row.inactive_throughout:
            self.throttled_while_inactive += int(table[:, Decision.THROTTLED, 0].sum())
        if row.active_throughout or not self.activations:
            self.shares.add(windows)

    def add_calm(self, rows: Sequence[Second], table: Ints) -> None:
        """Add seconds in which nothing was refused, and all their attempts by User, decision and answer."""
        self.rows += rows
        self.table += table

    # --- in all

    @property
    def requests(self) -> int:
        return int(self.fresh.sum())

    @property
    def answered_total(self) -> int:
        return int(self.answered.sum())

    @property
    def lost_total(self) -> int:
        return sum(row.lost for row in self.rows)

    @property
    def attempts(self) -> int:
        return sum(row.attempts for row in self.rows)

    @property
    def attempts_per_request(self) -> float:
        return self.attempts / self.requests if self.requests else 0.0

    @property
    def pressed(self) -> list[bool]:
        """By second: new Service Requests above the operating threshold, or a fault of the DSP."""
        threshold = self.scenario.config.operating_threshold
        faults = [fault for fault in self.scenario.faults if fault.kind != "store-lost"]
        return [
            row.fresh > threshold or any(fault.covers(second) for fault in faults)
            for second, row in enumerate(self.rows)
        ]

    @property
    def goodput(self) -> float:
        """Service Requests answered in time per second, of the seconds under pressure; of all without any."""
        pressed = self.pressed
        rows = [row for row, under in zip(self.rows, pressed, strict=True) if under] or self.rows
        return sum(row.answered for row in rows) / len(rows)

    @property
    def outage_s(self) -> int:
        """Seconds in which the DSP was down, or had more waiting than it could answer in time."""
        timeout = self.scenario.dsp.timeout_s
        return sum(row.down or row.wait_s > timeout for row in self.rows)

    def refused(self, decision: Decision) -> int:
        """Attempts not let through at once whose decision by an engine was this one."""
        return int(self.table[:, decision, 0].sum())

    @property
    def priority_lost(self) -> int:
        """Priority Service Requests that were never answered in time."""
        return self.priority_fresh - self.priority_answered

    def wait_s(self, share: float) -> float | None:
        """Return seconds from the first attempt to the answer, within which a share of the answers came."""
        steps = self.waits.quantile(share)
        return None if steps is None else steps * self.scenario.step_ms / 1000

    @property
    def fairness(self) -> float | None:
        """Jain index of spare capacity got over its exact weighted max-min share, of Users that wanted more."""
        return self.shares.fairness

    @property
    def active_s(self) -> float:
        """Seconds the Mechanism was active."""
        end = float(len(self.rows))
        return sum(
            (end if each.ended_s is None else each.ended_s) - each.began_s for each in self.activations
        )

    @property
    def highest(self) -> float:
        """Units that reached the DSP in the highest second."""
        return max((row.admitted for row in self.rows), default=0.0)

    @property
    def use(self) -> float | None:
        """Load let through over the operating threshold while active, where more than it was offered; None without."""
        threshold = self.scenario.config.operating_threshold
        full = [
            row.through / threshold
            for row in self.rows
            if row.active_throughout and row.refused + row.holding and row.offered >= 1.02 * threshold
        ]
        return sum(full) / len(full) if full else None

    @property
    def recovery_s(self) -> int | None:
        """Seconds from the end of the pressure until all is as ever; None if that was not seen."""
        pressed = self.pressed
        if True not in pressed:
            return 0
        end = len(pressed) - 1 - pressed[::-1].index(True)
        late = [second for second in range(end + 1, len(self.rows)) if _is_unusual(self.rows[second])]
        if (late and late[-1] == len(self.rows) - 1) or end == len(self.rows) - 1:
            return None
        return late[-1] - end if late else 0


def _is_unusual(row: Second) -> bool:
    return bool(row.refused or row.failed or row.active or row.down or row.holding or row.wait_s > 1)


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


def jain(values: Floats) -> float:
    """Return Jain's index of fairness: 1 if all are alike, 1/n if one has everything.

    Examples
    --------
    >>> jain(np.array([2.0, 2.0])), jain(np.array([1.0, 0.0]))
    (1.0, 0.5)
    """
    return float(values.sum() ** 2 / (values.size * (values**2).sum())) if values.any() else 1.0


def max_min(demands: Floats, weights: Floats, total: float) -> Floats:
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
    """

    def __init__(self, users: list[str], config: Config) -> None:
        self._users = users
        self._got: Floats = np.zeros(len(users))
        self._fair: Floats = np.zeros(len(users))
        self._refused: Ints = np.zeros(len(users), dtype=np.int64)
        self._short_s = self._shared_s = 0.0
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Share by new allocations from now on."""
        weights = [config.spare_weight]
        weights += [config.allocations[user] or config.spare_weight for user in self._users[1:]]
        self._weights: Floats = np.array(weights)
        self._threshold = config.operating_threshold

    def add(self, windows: Ints) -> None:
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
