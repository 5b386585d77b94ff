"""Spare capacity shared out by hand, for the measure of it."""

from __future__ import annotations

import numpy as np

from tmm_core import Config, Decision
from tmm_core.operations.simulation.result import Shares

WEIGHTS = Config(30_000, 20_000, allocations={"A": 100.0, "B": 100.0, "C": 200.0})


def shares_of(seconds: int, *windows: dict[str, tuple[int, int]]) -> Shares:
    """Add seconds in which each User had so many let through and so many refused, by quarter of a second."""
    shares = Shares(["(unknown)", *WEIGHTS.users], WEIGHTS)
    table = np.zeros((len(windows), 4, 4, 2), dtype=np.int64)
    for place, window in enumerate(windows):
        for user, (through, refused) in window.items():
            slot = WEIGHTS.users.index(user) + 1
            table[place, slot, Decision.SPARE_CAPACITY, 1] = through
            table[place, slot, Decision.THROTTLED, 0] = refused
    for _ in range(seconds):
        shares.add(table)
    return shares
