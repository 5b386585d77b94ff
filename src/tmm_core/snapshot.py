"""What the Mechanism tells of itself: a snapshot, an explanation. Loaded when it is first asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from tmm_core.answers import UNKNOWN, Decision

__all__ = ["NO_LIMIT", "Candidate", "Difference", "Explanation", "Snapshot", "reason"]

#: The level where everybody has all it asks for.
NO_LIMIT = 1048577.0
_NOT_SHARED = 2  # sharing = "none", in the core


class Difference(IntEnum):
    """How a candidate allocation would have decided otherwise."""

    OVER = 0  # inside the allocation in force, over the candidate
    OVER_WHILE_ACTIVE = 1  # those of them while the Mechanism was active
    WITHIN = 2  # over the allocation in force, inside the candidate
    ADMITTED = 3  # those of them that were throttled


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """The candidate allocations, tried beside those in force without effect.

    Attributes
    ----------
    version : str
        `Config.candidate_version`.
    units : ndarray of int64, shape (users, 4)
        Units decided otherwise since this candidate is tried; the last axis is indexed by `Difference`.
        `Difference.OVER_WHILE_ACTIVE` is the most it could throttle in addition: spare capacity may be left.
    """

    version: str
    units: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The state of the Mechanism at one moment; out of date at once.

    Attributes
    ----------
    active : bool
    load, offered_load : float
        Units per second admitted, and admitted or throttled; averages over about a second.
    level : float
        A User may use `level` times its allocation in all; 1 where there is no spare capacity, `NO_LIMIT`
        where everybody has all it asks for.
    activations : int
        Traffic management events since the start.
    backlog_s : float
        Seconds of work that a DSP of the operating threshold's capacity would have waiting.
    version : str
        Of the configuration in force.
    users, srvs : list of str
        Names by slot; the first of each is ``"(unknown)"``.
    counts : ndarray of int64, shape (users, srvs, 4)
        Service Requests decided since the start; the last axis is indexed by `Decision`.
    ticks : int
        Control ticks since the start.
    healed : int
        Impossible words met and healed (clocks set back, damaged memory).
    generation : int
        How often terms have been put in force; rises by one each time, in all processes at one moment.
    candidate : Candidate or None
        What candidate allocations would have done; None where there are none.
    """

    active: bool
    load: float
    offered_load: float
    level: float
    activations: int
    backlog_s: float
    version: str
    users: list[str] = field(repr=False)
    srvs: list[str] = field(repr=False)
    counts: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    ticks: int = 0
    healed: int = 0
    generation: int = 0
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided, and why; ``str()`` is one sentence."""

    decision: Decision
    user: str
    srv: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def reason(found: dict[str, int], user: str, srv: str, allocation: float) -> str:
    """Return the grounds of a decision in words.

    Parameters
    ----------
    found : dict of str to int
        From `Engine.peek`.
    user, srv : str
    allocation : float
        Units per second.
    """
    whose = "the pool of unknown Users" if user == UNKNOWN else user
    if found["priority"]:
        return f"{srv} is on the priority list"
    if found["own"]:
        return f"{whose} is inside its allocation of {allocation:g} units per second"
    over = f"{whose} is over its allocation of {allocation:g} units per second"
    if not found["active"]:
        return f"{over}, but the Mechanism is inactive"
    if found["spare"]:
        return f"{over} and the Mechanism is active, but there is spare capacity left for it"
    if found["sharing"] == _NOT_SHARED:
        left = "spare capacity is not shared"
    elif found["brake"]:
        left = "there is no spare capacity left at all"
    else:
        left = "there is no spare capacity left for it"
    wait = (
        f"; its own allocation admits again in {found['own_wait_ns'] / 1e9:.3g} s"
        if found["allocated"]
        else ""
    )
    return f"{over}, the Mechanism is active, and {left}{wait}"
