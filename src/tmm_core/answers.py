"""What the Mechanism answers to a Service Request."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["UNKNOWN", "Decision"]

#: Name of the slot that all unknown Users share, and of the number all unknown SRVs share.
UNKNOWN = "(unknown)"


class Decision(IntEnum):
    """What the Mechanism answers to a Service Request; false only for THROTTLED."""

    THROTTLED = 0
    SPARE_CAPACITY = 1
    WITHIN_ALLOCATION = 2
    PRIORITY = 3
