"""A block in the memory of this process alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from tmm_core.errors import MemoryLayoutError

__all__ = ["ALIGNMENT", "private_block"]

#: Bytes a block is aligned to: a cache line.
ALIGNMENT = 64


def private_block(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return zeroed memory for a block of this process alone.

    Pages that are never written to are never committed: slots kept for later Users cost address space only.

    Parameters
    ----------
    nbytes : int

    Returns
    -------
    ndarray of uint8, shape (nbytes,)
        Aligned to a cache line.

    Raises
    ------
    MemoryLayoutError
        There is not so much memory.
    """
    try:
        raw = np.zeros(nbytes + ALIGNMENT, dtype=np.uint8)
    except MemoryError:
        raise MemoryLayoutError(
            f"no memory for a block of {nbytes:,} bytes: configure fewer slots (max_users)"
        ) from None
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
