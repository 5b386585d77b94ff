"""Look at a host's Mechanism from a process of its own: `tmm watch` and `tmm serve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tmm_core.errors import ConfigError, Mistake
from tmm_core.mechanism import Mechanism
from tmm_core.policy.config import Config

__all__ = ["is_replaced", "look_when_there", "shared_of"]


def shared_of(path: Path) -> Config:
    """Read a ``tmm.toml`` whose processes share a block.

    Raises
    ------
    ConfigError
        The files are wrong, or there is no ``[state] shared``.
    """
    config = Config.load(path)
    if config.shared is None:
        raise ConfigError(
            Mistake(
                'there is no block to look at: set [state] shared, for example "tmm"; or run it inside the gateway '
                "(tmm_core.operations.watch.start, tmm_core.operations.serve.start)",
                file=str(path),
                field="shared",
            )
        )
    return config


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
