"""Simulations: policies side by side on the same new Service Requests, with the real engine on a simulated clock.

The new Service Requests are the same for every policy; what is sent again depends on the answers, and so on
the policy. The same scenario and seed give the same result, to the last byte of its files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.simulation.arrivals import Arrivals, Fresh
from tmm_core.operations.simulation.open_run import OpenRun, run_of
from tmm_core.operations.simulation.policies import NS
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.words import srvs_of, users_of

__all__ = ["Simulation", "simulate"]

_KEPT = 8 << 20  # bytes
_TOGETHER_S = 20  # seconds that are drawn and run at once where nothing is sent again


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A finished simulation.

    Attributes
    ----------
    scenario : Scenario
    results : tuple of PolicyResult
        In the order asked for.
    inside : list of str
        Users whose new Service Requests never went above their allocation.
    took_s : float
        Seconds of this machine's time; not reproducible, never in a file.
    """

    scenario: Scenario
    results: tuple[PolicyResult, ...]
    inside: list[str]
    took_s: float

    def of(self, policy: str) -> PolicyResult | None:
        """Return the result of a policy, if it was asked for."""
        return next((each for each in self.results if each.name == policy), None)


def simulate(
    scenario: Scenario,
    policies: Sequence[str] | None = None,
    *,
    progress: Callable[[float], None] = lambda second: None,
) -> Simulation:
    """Run a scenario under each policy.

    Parameters
    ----------
    scenario : Scenario
    policies : sequence of str, optional
        Names in `POLICIES`; those of the scenario by default.
    progress : callable
        Told the number of simulated seconds done.

    Raises
    ------
    TMMError
        A file to replay cannot be used.
    """
    began = perf_counter()
    _keep_memory()
    runs = [run_of(name, scenario) for name in (policies or scenario.policies)]
    # Told by the User's own bucket alone, fed with new Service Requests only.
    demand = Mechanism(scenario.config, start=0)
    above = np.zeros(len(scenario.users) + 1, dtype=np.int64)
    # Where nothing is sent again and allocations stay, an open run asks the same of the same buckets.
    told = next((run for run in runs if isinstance(run, OpenRun) and not scenario.changes), None)
    with demand, closing(Arrivals(scenario, demand.user, demand.srv)) as arrivals:
        together = _TOGETHER_S if scenario.is_open else 1
        for first in range(0, scenario.seconds, together):
            fresh = arrivals.seconds(first, min(together, scenario.seconds - first))
            if told is None:
                above += _above(demand, fresh, scenario)
            for run in runs:
                run.seconds(fresh)
            progress(first + fresh.seconds)
    if told is not None:
        above = told.result.table[:, : Decision.WITHIN_ALLOCATION].sum(axis=(1, 2))
    inside = [user.name for place, user in enumerate(scenario.users, 1) if not above[place]]
    return Simulation(scenario, tuple(run.finish() for run in runs), inside, perf_counter() - began)


@cache
def _keep_memory() -> None:
    """Let the C library keep the memory of arrays that are gone for those that come.

    glibc keeps up to twice the largest block that was ever given back. Without one of this size the system takes
    some MB back, clears them and hands them out again in every twenty seconds that are simulated.
    """
    np.empty(_KEPT, dtype=np.uint8)  # never touched, so never there


def _above(demand: Mechanism, fresh: Fresh, scenario: Scenario) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return how many of some new Service Requests are above the allocation, by User."""
    step_ns = scenario.step_ms * 1_000_000
    above = np.zeros(len(scenario.users) + 1, dtype=np.int64)
    for place in range(fresh.seconds):
        words, edges = fresh.in_time(place)
        users, srvs = users_of(words), srvs_of(words)
        decided = np.empty(users.size, dtype=np.uint8)
        for step, (begin, end) in enumerate(pairwise(edges)):
            if end > begin:
                now = (fresh.first + place) * NS + step * step_ns
                demand.admit_many(users[begin:end], srvs[begin:end], out=decided[begin:end], now=now)
        above += np.bincount(users[decided < Decision.WITHIN_ALLOCATION], minlength=above.size)
    return above
