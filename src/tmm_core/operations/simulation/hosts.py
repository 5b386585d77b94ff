"""Who is active and when, and each of several hosts judged by its own terms: its part of every allocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.simulation.audit import Audit
from tmm_core.operations.simulation.policies import NS
from tmm_core.operations.simulation.result import Activation, PolicyResult, Second
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.shares import WINDOWS
from tmm_core.policy.config import Config

__all__ = ["Host", "Watch"]

_Counts = np.ndarray[Any, np.dtype[np.int64]]


class Watch:
    """Notes when the first of some Mechanisms becomes active, and when none is any more. *Not thread-safe.*

    Parameters
    ----------
    mechanisms : sequence of Mechanism
    found : list of Activation
        Where they go.
    """

    def __init__(self, mechanisms: Sequence[Mechanism], found: list[Activation]) -> None:
        self._mechanisms, self._found = mechanisms, found
        self._activations = 0
        self._was_active = False

    def look(self, now: int, row: Second) -> None:
        """Note beginnings and ends of activations; of several hosts, from the first to the last."""
        states = []
        for mechanism in self._mechanisms:
            mechanism.tick(now)
            states.append(mechanism.engine.state(now))
        acting = [state["changed_at"] / NS for state in states if state["active"]]
        activations = states[0]["activations"] if len(states) == 1 else 0
        began_again = self._was_active and activations > self._activations
        if began_again or (self._was_active and not acting):
            self._found[-1].ended_s = max(state["changed_at"] for state in states) / NS
        if acting and (began_again or not self._was_active):
            self._found.append(Activation(min(acting)))
        self._activations = activations
        row.active = bool(acting)
        row.active_throughout = row.active and self._was_active and not began_again
        row.inactive_throughout = not row.active and not self._was_active
        self._was_active = row.active


class Host:
    """What one Mechanism of several decides, as a result of its own. *Not thread-safe.*

    It is held to the terms it has: what is promised of one Mechanism is promised of it, with its part of the threshold
    and of every allocation in the place of the whole.

    Parameters
    ----------
    part : callable
        Returns its part of a configuration.
    mechanism : Mechanism
    name : str
        Of the policy.
    scenario : Scenario
        Of all hosts.
    costs : ndarray of float64, optional
        Units by SRV number; None: one unit each.
    priority : ndarray of bool
        By SRV number.
    """

    def __init__(
        self,
        part: Callable[[Config], Config],
        mechanism: Mechanism,
        name: str,
        scenario: Scenario,
        costs: np.ndarray[Any, np.dtype[np.float64]] | None,
        priority: np.ndarray[Any, Any],
    ) -> None:
        self._part = part
        users, config = mechanism.snapshot().users, part(scenario.config)
        self.result = PolicyResult(name, users, replace(scenario, config=config, hosts=1))
        self._audit = Audit(config, len(users), costs, priority)
        self._watch = Watch([mechanism], self.result.activations)

    def second(
        self,
        counts: _Counts,
        units: np.ndarray[Any, Any],
        instants: list[int],
        throttled: np.ndarray[Any, np.dtype[np.uint16]],
        changed: list[tuple[int, Config]],
    ) -> None:
        """Judge a second: what it decided by instant, User and `Decision`, as for `Audit.second`."""
        mine = [(now, self._part(config)) for now, config in changed]
        self._audit.second(counts, units, instants, throttled, mine)
        row = Second(offered=float(units.sum()), attempts=int(counts.sum()), refused=throttled.size)
        row.through = row.offered - float(units[:, :, Decision.THROTTLED].sum())
        self._watch.look(instants[0] // NS * NS + NS - 1, row)
        number = np.arange(len(counts)) * WINDOWS // len(counts)
        windows = np.zeros((WINDOWS, *counts.shape[1:], 2), dtype=np.int64)
        for place in range(WINDOWS):
            windows[place, :, :, 1] = counts[number == place].sum(axis=0)
        windows[:, :, Decision.THROTTLED] = windows[:, :, Decision.THROTTLED, ::-1]
        for _, config in mine:
            self.result.shares.apply(config)
        self.result.add(row, windows)

    def finish(self) -> None:
        """Close the tallies."""
        self.result.audit = self._audit.result()
