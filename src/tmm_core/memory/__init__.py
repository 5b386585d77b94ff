"""Where the block lives: memory of this process, or a mapped file that all processes of a host share."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from tmm_core.errors import MemoryLayoutError

if TYPE_CHECKING:
    from tmm_core.memory.header import Header, Layout
    from tmm_core.memory.place import path_of
    from tmm_core.memory.shared import SharedBlock
    from tmm_core.memory.succession import larger, succeed

__all__ = ["ALIGNMENT", "Header", "Layout", "SharedBlock", "larger", "path_of", "private_block", "succeed"]

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


# Of shared blocks: hashes, temporary folders, locks and maps, which a gateway of one process does without.
_LATER = {
    "Header": "header", "Layout": "header", "SharedBlock": "shared", "larger": "succession", "path_of": "place",
    "succeed": "succession",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
