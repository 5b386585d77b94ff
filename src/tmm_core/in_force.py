"""Terms are put in force: in the block there is, or in a larger one that succeeds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tmm_core.engines import larger_block, watching_engine
from tmm_core.errors import ConfigError, MemoryLayoutError, Mistake
from tmm_core.policy.config import Config
from tmm_core.policy.service_requests import srv_codes
from tmm_core.terms import View, terms_of, text_of

if TYPE_CHECKING:
    from tmm_core.engines import Engine
    from tmm_core.memory import SharedBlock

__all__ = ["enlarge", "put_in_force"]


def put_in_force(
    engine: Engine, block: SharedBlock | None, view: View, srvs: Sequence[str], config: Config, now: int
) -> View:
    """Put a configuration in force, in a shared block while it is `changing`; returns what is in force then.

    Raises
    ------
    ConfigError
        There are more new Users than slots, or SRVs that the block does not know; nothing has changed.
    MemoryLayoutError
        A shared block has no room or no slots for the new Users; nothing has changed.
    """
    users = list(dict.fromkeys((*view.slots, *config.users)))
    if block is None and len(users) > engine.user_slots:
        raise ConfigError(
            Mistake(
                f"{len(users) - 1} Users have been named since the start, but there are slots for "
                f"{engine.user_slots - 1}: start again, or configure max_users",
                field="allocations",
            )
        )
    unheard = sorted(config.priority_srvs.union(config.costs).difference(srvs))
    if unheard:
        fault = (
            f"SRVs {', '.join(unheard)} are not known to the processes that share the block: stop them all at one "
            "time, and start them again"
        )
        raise ConfigError(Mistake(fault, field="priority"))
    if block is not None:
        block.make_room(len(users))
    settings, rules, services = terms_of(config, users, srvs)
    generation = engine.generation + 1
    differences = view.differences
    if config.candidate_version != view.config.candidate_version:
        # Counts are never set back: a new candidate's begin where they stand now.
        differences = engine.differences().tolist() if config.candidate_version else []
    if block is not None:
        block.terms.write(generation, text_of(config, users, srvs, block.header.block_id, differences))
    engine.apply(settings, rules, services, now)
    return View(config, users, engine.generation, differences)


def enlarge(
    block: SharedBlock, current: Callable[[], View], srvs: Sequence[str], config: Config, now: int
) -> bool:
    """Let a larger block succeed where a configuration or this package needs one, if nobody counts in this one.

    All that is in it is carried over, and the configuration is in force in the larger one when that takes the name.

    Parameters
    ----------
    block : SharedBlock
        Mapped to be changed; this process does not count in it.
    current : callable
        Reads the terms in force.
    srvs : sequence of str
        That the block knows, by number.
    config : Config
    now : int
        Nanoseconds, monotonic.

    Returns
    -------
    bool
        Whether the name leads to another block now, made here or by others.

    Raises
    ------
    MemoryLayoutError
        The Users do not fit, and others count here, or there is no room for a larger block; nothing has changed.
    """
    from tmm_core import __version__
    from tmm_core.memory import succeed

    more = [code for code in srv_codes() if code not in set(srvs)]
    if not more and _slots(current(), config) <= block.header.user_slots:
        return block.succeeded
    with block.alone() as alone:
        if block.succeeded:
            return True
        view = current()
        slots = _slots(view, config)
        try:
            if not alone:
                raise block.used_up(slots)
            larger = larger_block(block, config.max_users, slots - 1, len(srvs) + len(more), __version__)
            try:
                put_in_force(watching_engine(larger), larger, view, [*srvs, *more], config, now)
                succeed(larger, block)
            finally:
                larger.discard()
        except MemoryLayoutError as error:
            if slots > block.header.user_slots:
                raise
            _warn_of_srvs(block.path, len(more), error if alone else None)
            return False
    return True


def _slots(view: View, config: Config) -> int:
    return len({*view.slots, *config.users})


def _warn_of_srvs(path: str, srvs: int, error: MemoryLayoutError | None) -> None:
    """Say that the block goes on without some SRVs: better than not to start."""
    import logging

    until = "all workers have been stopped once" if error is None else f"it can be made larger: {error}"
    logging.getLogger("tmm_core").warning(
        "%s: %d SRVs of this package are unknown to the block, and count as unknown ones, until %s",
        path,
        srvs,
        until,
    )
