"""What the Mechanism answers to a Service Request, and how a candidate allocation would have answered otherwise."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["UNKNOWN", "Decision", "Difference"]

#: Name of the slot that all unknown Users share, and of the number all unknown SRVs share.
UNKNOWN = "(unknown)"


class Decision(IntEnum):
    """What the Mechanism answers to a Service Request; false only for THROTTLED."""

    THROTTLED = 0
    SPARE_CAPACITY = 1
    WITHIN_ALLOCATION = 2
    PRIORITY = 3


class Difference(IntEnum):
    """How a candidate allocation would have decided otherwise."""

    OVER = 0  # inside the allocation in force, over the candidate
    OVER_WHILE_ACTIVE = 1  # those of them while the Mechanism was active
    WITHIN = 2  # over the allocation in force, inside the candidate
    ADMITTED = 3  # those of them that were throttled
