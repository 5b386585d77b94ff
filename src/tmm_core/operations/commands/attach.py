"""Look at a host's Mechanism from a process of its own: `tmm watch` and `tmm serve`."""

from __future__ import annotations

from collections.abc import Callable

from tmm_core.mechanism import Mechanism

__all__ = ["is_replaced", "look_when_there"]


def look_when_there(
    shared: str, waiting: Callable[[], object], stopped: Callable[[float], bool], period_s: float = 1.0
) -> Mechanism | None:
    """Look at a shared block, as soon as a gateway has made it.

    Parameters
    ----------
    shared : str
        Name or path of the block.
    waiting : callable
        Called once if there is none yet.
    stopped : callable
        Waits so many seconds and returns whether to give up.

    Returns
    -------
    Mechanism or None
        None if it was given up.
    """
    told = False
    while True:
        try:
            return Mechanism.look(shared)
        except FileNotFoundError:
            if not told:
                told = True
                waiting()
            if stopped(period_s):
                return None


def is_replaced(mechanism: Mechanism, shared: str) -> bool:
    """Tell whether another block is in the place of the one that is looked at: gateways now count there."""
    block = mechanism.block
    try:
        now = Mechanism.look(shared)
    except FileNotFoundError:
        return False  # the old one can still be read
    try:
        return block is None or now.block is None or now.block.header.block_id != block.header.block_id
    finally:
        now.close()
