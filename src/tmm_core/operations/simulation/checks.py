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
    """Check a policy that is the engine's own; nothing for the others, and for a model of several hosts."""
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
