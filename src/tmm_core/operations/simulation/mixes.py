"""What is asked for: SRVs by kind of business, and an illustrative priority list. All invented."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["MIXES", "PRIORITY_SRVS", "SRV_BITS", "srv_table"]

PRIORITY_SRVS = (
    "1.5", "1.6", "2.1", "2.2", "2.3", "2.5", "4.3", "4.4.4", "4.4.5", "4.13", "4.14", "4.18",
    "7.1", "7.2", "7.3", "7.4",
)  # fmt: skip
"""Illustrative: prepayment and supply; no install, commission or decommission. Not the Panel's list."""

MIXES: Mapping[str, Mapping[str, int]] = {
    # Everyday business of a supplier; about a quarter of it prepayment.
    "supplier": {
        "4.1.1": 60, "4.6.1": 80, "4.8.1": 110, "4.17": 30, "2.2": 120, "4.18": 50, "4.3": 30, "4.14": 20,
        "2.3": 10, "1.1.1": 40, "1.2.1": 50, "3.1": 30, "6.13": 60, "8.2": 70, "6.2.4": 40, "6.8": 20,
        "6.11": 30, "7.4": 30, "7.1": 8, "7.2": 8, "8.1.1": 30, "8.4": 20, "6.23": 15, "11.2": 20, "12.2": 18,
        "(unknown)": 1,
    },
    "network": {"4.10": 300, "6.13": 200, "4.8.1": 220, "7.4": 120, "8.2": 100, "6.5": 20, "4.2": 40},
    "other": {"4.8.1": 350, "4.17": 250, "8.2": 250, "6.2.4": 60, "12.1": 60, "9.1": 30},
    "daily reads": {"4.8.1": 450, "4.6.1": 330, "4.17": 100, "4.1.1": 90, "4.14": 30},
    # People without power, and people who look at what they use: reads, messages, top-ups, supply status.
    "supplier in bad weather": {
        "4.1.1": 330, "4.8.1": 180, "8.2": 130, "6.13": 130, "3.1": 100, "2.2": 70, "7.4": 40, "4.18": 20,
    },
    "network in bad weather": {"4.10": 350, "6.13": 250, "4.1.1": 200, "7.4": 200},
    "runaway": {"8.2": 1000},
}  # fmt: skip
"""Weights of SRVs by kind of business; all invented."""

SRV_BITS = 12
"""Of each random word, for the SRV: mixes are exact to 1/4096."""


def srv_table(
    mix: Mapping[str, int], number_of: Callable[[str], int]
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return SRV numbers for each value of the random bits, in proportion to the mix."""
    size, total = 1 << SRV_BITS, sum(mix.values())
    counts = {code: max(1, weight * size // total) for code, weight in mix.items()}
    counts[max(mix, key=lambda code: mix[code])] += size - sum(counts.values())
    return np.repeat(
        np.array([number_of(code) for code in counts], dtype=np.uint16),
        np.array(list(counts.values()), dtype=np.int64),
    )
