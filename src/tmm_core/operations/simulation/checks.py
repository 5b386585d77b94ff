"""What the Mechanism promises, checked on the figures of a simulation: P1 to P7 of docs/guarantees.md."""

from __future__ import annotations

from dataclasses import dataclass

from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.terminal import number, percent

__all__ = ["Check", "checks"]

LEAST_USE, LEAST_JAIN = 0.99, 0.99


@dataclass(frozen=True, slots=True)
class Check:
    """One promise.

    Attributes
    ----------
    name : str
        P1 to P7.
    promise, found : str
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
