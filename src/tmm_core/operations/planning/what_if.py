"""A configuration with some of its values changed, to see what would have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, Mistake
from tmm_core.operations.planning.allocation_changes import read_before
from tmm_core.policy.allocation_files import AllocationTable
from tmm_core.policy.config import Config

__all__ = ["what_if"]


def what_if(config: Config, *, threshold: float | None = None, allocations: Path | None = None) -> Config:
    """Return a configuration with another operating threshold, other allocations, or both.

    The release threshold keeps its share of the operating threshold. Users of the file have the identifiers it
    gives, or, where it gives them none, those they have now.

    Parameters
    ----------
    config : Config
    threshold : float, optional
        Units per second.
    allocations : Path, optional
        An allocations file.

    Raises
    ------
    ConfigError
        All mistakes of the file, or of what both together make, with file, line and column.
    """
    values: dict[str, Any] = {"candidate_allocations": None, "candidate_file": None}
    if threshold is not None:
        release = (config.release_threshold or 0.0) / config.operating_threshold
        values |= {"operating_threshold": threshold, "release_threshold": threshold * release}
    table = None if allocations is None else read_before(allocations)
    if table is not None:
        named = set(table.user_ids.values())
        kept = {
            user_id: user
            for user_id, user in config.user_ids.items()
            if user in table.allocations and user not in named
        }
        values |= {
            "allocations": table.allocations,
            "user_ids": {**kept, **table.user_ids},
            "categories": table.categories,
            "allocations_file": str(allocations),
            "allocations_digest": None,
            "effective_from": None,
        }
    try:
        return replace(config, **values)
    except ConfigError as error:
        raise ConfigError([_placed(each, table, values, config) for each in error.mistakes]) from None


def _placed(
    mistake: Mistake, table: AllocationTable | None, values: dict[str, Any], config: Config
) -> Mistake:
    """Put to a mistake the place in the allocations file, or the option, that made it."""
    if table is None or mistake.field == "operating_threshold":
        return Mistake(f"--threshold: {mistake.message}", field=mistake.field)
    threshold = values.get("operating_threshold", config.operating_threshold)
    line, column = table.place_above(threshold - config.unknown_allocation)
    return Mistake(mistake.message, file=table.file, line=line, column=column, field=mistake.field)
