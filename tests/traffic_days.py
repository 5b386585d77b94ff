"""Drives a Mechanism with steady or changing load, a millisecond at a time, and keeps what was decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tmm_core import Mechanism

MS, S = 1_000_000, 1_000_000_000
Counts = np.ndarray[Any, np.dtype[np.int64]]


def drive(
    mechanism: Mechanism,
    seconds: float,
    rates: Mapping[str, float | Callable[[float], float]],
    *,
    srv: str = "4.1.1",
    begin: int = 0,
    step: int = MS,
    seed: int | None = None,
) -> Counts:
    """Offer each User's rate (per second, or a function of the time) from `begin` on.

    Returns what was decided: shape (steps, users, 4). Evenly spaced, or Poisson where there is a seed.
    """
    chance = None if seed is None else np.random.default_rng(seed)
    slots = [mechanism.user(name) for name in rates]
    number = mechanism.srv(srv)
    steps = round(seconds * S / step)
    found = np.zeros((steps, max(slots) + 1, 4), dtype=np.int64)
    owed = np.zeros(len(slots))
    for index in range(steps):
        at = index * step / S
        each = np.array([rate(at) if callable(rate) else rate for rate in rates.values()]) * step / S
        if chance is not None:
            many = chance.poisson(each)
        else:
            owed += each
            many = owed.astype(np.int64)
            owed -= many
        users = np.repeat(np.array(slots, dtype=np.uint32), many)
        if chance is not None:
            chance.shuffle(users)
        decisions = mechanism.admit_many(
            users, np.full(len(users), number, dtype=np.uint16), now=begin + index * step
        )
        np.add.at(found, (index, users, decisions), 1)
    return found


def worst_window(admitted: Counts, rate: float, step: int = MS) -> float:
    """Over all windows of the trace: the most that was admitted above `rate` times the window's length.

    Every pair of a first and a last step, a closed window: it is as long as the time between the two.
    """
    total = np.concatenate([[0.0], np.cumsum(admitted)])
    drained = rate * step / S * np.arange(len(admitted))
    after, before = total[1:] - drained, total[:-1] - drained
    return float(max(np.max(after[first:]) - before[first] for first in range(len(admitted))))


def jain(shares: Counts) -> float:
    """Jain's index of fairness: 1 where all have the same, 1/n where one has all."""
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum()))
