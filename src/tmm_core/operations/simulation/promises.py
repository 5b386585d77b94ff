"""What the Mechanism promises, P1 to P7 of docs/guarantees.md, held against a simulation.

While it runs, `Audit` checks the engine's decisions: it knows the allocations, the priority list and the bound of
docs/guarantees.md, in plain floating point, and shares no code with the engine. Then `checks` judges the figures.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tmm_core.mechanism import Decision
from tmm_core.operations.terminal import number, percent
from tmm_core.operations.traffic import Floats, Srvs
from tmm_core.policy.config import Config

if TYPE_CHECKING:
    from tmm_core.operations.simulation.result import PolicyResult

LEAST_USE, LEAST_JAIN = 0.99, 0.99

_THROTTLED, _SPARE, _WITHIN = (
    int(Decision.THROTTLED),
    int(Decision.SPARE_CAPACITY),
    int(Decision.WITHIN_ALLOCATION),
)
_NS = 1e9
_SLACK_S = 1e-5  # floating point; far below any interval that matters


@dataclass(slots=True)
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

    within: int = 0
    within_throttled: int = 0
    priority_throttled: int = 0
    excess: float = 0.0
    bound: float = 0.0


class Audit:
    """An independent check of decisions as they are made: keeps one reference bucket for each User. *Not thread-safe.*

    Parameters
    ----------
    users : int
        Slots.
    costs : ndarray of float64, optional
        Units by SRV number; None: one unit each.
    priority : ndarray of bool
        By SRV number.

    Attributes
    ----------
    found : Audited
        So far.
    """

    def __init__(
        self, config: Config, users: int, costs: Floats | None, priority: np.ndarray[Any, Any]
    ) -> None:
        self._users, self._costs, self._priority = users, costs, priority
        self._tat: Floats = np.zeros(users)
        self.found = Audited()
        self._load = self._at = 0.0
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Put new allocations in force."""
        rates = np.array([config.unknown_allocation, *config.allocations.values()])
        self._known = rates > 0
        self._interval: Floats = 1 / np.where(self._known, rates, 1.0)
        self._burst_s = config.burst_s
        self._threshold = config.operating_threshold
        longest = max(config.costs.values(), default=1)
        bursts = float((rates[rates > 0] * config.burst_s + longest).sum())
        bound = self._threshold * config.activation_s + longest + 15 + bursts
        self.found.bound = max(self.found.bound, bound)

    def steps(self, counts: np.ndarray[Any, Any], units: np.ndarray[Any, Any], at_s: Floats) -> None:
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
        filled = np.maximum(np.maximum.accumulate(at - before, axis=0), self._tat) + before + charged
        self._tat = filled[-1]
        self.found.within += int(counts[:, :, _WITHIN].sum())
        throttled = counts[:, :, _THROTTLED]
        if throttled.any():
            # At one instant a bucket only fills: where it still has room now, it had room at the refusal.
            room = self._known & (filled - at <= self._burst_s - _SLACK_S)
            self.found.within_throttled += int(throttled[room].sum())
        admitted = (within + units[:, :, _SPARE]).sum(axis=1)
        drained = self._threshold * (at_s - self._at)
        loads = admitted.cumsum() - drained
        loads += np.maximum(np.maximum.accumulate(admitted - loads), self._load)
        self._load, self._at = float(loads[-1]), float(at_s[-1])
        self.found.excess = max(self.found.excess, float(loads.max()))

    def second(
        self,
        counts: np.ndarray[Any, Any],
        units: np.ndarray[Any, Any],
        instants: Sequence[int],
        throttled: Srvs,
        changed: Sequence[tuple[int, Config]] = (),
    ) -> None:
        """Check the decisions of some instants in nanoseconds, as `steps` does; what came into force among them counts
        from then on.

        Parameters
        ----------
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

    def throttled(self, srvs: Srvs) -> None:
        """Check what was throttled against the priority list."""
        self.found.priority_throttled += int(np.count_nonzero(self._priority[srvs]))


@dataclass(frozen=True, slots=True)
class Check:
    """One promise.

    Attributes
    ----------
    name : str
        P1 to P7.
    holds : bool or None
        None where the scenario does not put it to the test.
    """

    name: str
    promise: str
    found: str
    holds: bool | None


def checks(result: PolicyResult) -> list[Check]:
    """Check a policy that is the engine's own; nothing for the others."""
    return _of_hosts(result) if result.hosts else _of_one(result)


def _of_hosts(result: PolicyResult) -> list[Check]:
    """Check each of several hosts by its own terms, and the load of all together.

    What one host lets through in any window is at most its part of the threshold's rate and its own bound; so of all
    of them, and of the time in which they decided as one, it is the threshold's rate and the sum of the bounds.
    """
    audit = result.audit
    assert audit is not None
    one, *each = (_of_one(host) for host in result.hosts)
    made = []
    for together, *alone in zip(one, *each, strict=True):
        promise = f"On each host, by its own part: {alone[0].promise[0].lower()}{alone[0].promise[1:]}"
        if len({each.found for each in (together, *alone)}) == 1:
            found = [f"{together.found}, of all as one and of each host"]
        else:
            found = [f"as one {together.found}"]
            found += [f"host {place} {host.found}" for place, host in enumerate(alone, 1)]
        judged = [host.holds for host in (together, *alone) if host.holds is not None]
        if together.name == "P4":
            bounds = [host.audit.bound for host in result.hosts if host.audit is not None]
            found[0] += f", at most {number(round(bounds[0]))}"
            found.append(f"in all {number(round(audit.excess))}, at most {number(round(sum(bounds)))}")
            judged.append(audit.excess <= sum(bounds))
        made.append(Check(together.name, promise, "; ".join(found), all(judged) if judged else None))
    return made


def _of_one(result: PolicyResult) -> list[Check]:
    audit = result.audit
    if audit is None:
        return []
    use, fairness, overloads = result.use, result.fairness, result.scenario.overloads
    activations = len(result.activations)
    made = [
        Check(
            "P1", "Nothing inside an allocation is throttled",
            f"{number(audit.within_throttled)} throttled, {number(audit.within)} admitted",
            audit.within_throttled == 0,
        ),
        Check(
            "P2", "Nothing on the priority list is throttled",
            f"{number(audit.priority_throttled)} throttled", audit.priority_throttled == 0,
        ),
        Check(
            "P3", "While inactive nothing is throttled",
            f"{number(result.throttled_while_inactive)} throttled", result.throttled_while_inactive == 0,
        ),
        Check(
            "P4", f"At most {number(round(audit.bound))} units beyond the threshold's rate, in any window",
            f"{number(round(audit.excess))} in the worst", audit.excess <= audit.bound,
        ),
    ]  # fmt: skip
    if result.name in ("fair", "first-come"):
        made.append(
            Check(
                "P5", f"At least {percent(LEAST_USE, 1)} of the threshold is used while more is offered",
                "no such second" if use is None else percent(use, 1), None if use is None else use >= LEAST_USE,
            )
        )  # fmt: skip
    if result.name == "fair":
        made.append(
            Check(
                "P6", f"Spare capacity is shared by weight: Jain index at least {LEAST_JAIN}",
                result.shares.not_measured or f"{fairness:.4f}",
                None if fairness is None else fairness >= LEAST_JAIN,
            )
        )  # fmt: skip
    made.append(
        Check(
            "P7", "One overload is one activation",
            f"{number(activations)} in {number(overloads)}", activations <= overloads,
        )
    )  # fmt: skip
    return made
