"""New allocations against those of the month before, User by User."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy.allocation import Allocations
from tmm_core.policy.allocation_files import AllocationTable, dated_files, read_allocations
from tmm_core.policy.tables import LARGEST_TABLE, read_file

__all__ = ["Change", "changes", "file_before", "read_before"]


@dataclass(frozen=True)
class Change:
    """One User's allocation before and after, units per second; None where it has none."""

    user: str
    before: Fraction | None
    after: Fraction | None

    @cached_property
    def relative(self) -> Fraction | None:
        """Change over what was before; None for a User who is new, or had nothing."""
        parts = self._parts
        return None if parts is None else Fraction(*parts)

    @cached_property
    def _parts(self) -> tuple[int, int] | None:
        """Numerator and denominator of `relative`, not in lowest terms: to find them takes longer than all else."""
        if not self.before:
            return None
        before, after = self.before.numerator, (self.after or Fraction(0)).numerator
        scale, after_scale = self.before.denominator, self.after.denominator if self.after else 1
        return after * scale - before * after_scale, before * after_scale

    @property
    def share(self) -> float | None:
        """`relative` as a float, rounded once."""
        parts = self._parts
        return None if parts is None else parts[0] / parts[1]

    def is_above(self, limit: Fraction) -> bool:
        """Tell whether it changes by more than `limit`, up or down: gone is -100 %, from nothing is without end.

        A new User has nothing to change from.
        """
        if self.before is None:
            return False
        if self._parts is None:
            return bool(self.after)
        change, of = self._parts
        return abs(change) * limit.denominator > limit.numerator * of


def file_before(output: Path) -> Path | None:
    """Return the file that is in force on the day before `output`, by the names in its folder; None if none is."""
    try:
        first = date.fromisoformat(output.stem)
        files = dated_files(output.parent, [])
    except (ValueError, OSError):
        return None
    earlier = [path for day, path in files if day < first]
    return earlier[-1] if earlier else None


def read_before(path: Path) -> AllocationTable:
    """Read the allocations file of the month before.

    Raises
    ------
    ConfigError
        All mistakes of it.
    """
    found: list[Mistake] = []
    table = read_allocations(read_file(path, LARGEST_TABLE), str(path), found)
    if found:
        raise ConfigError(found)
    return table


def changes(allocations: Allocations, before: AllocationTable) -> dict[str, Change]:
    """Return the change of every User named in either, in the order of the names."""
    old = {user: Fraction(Decimal(repr(value))) for user, value in before.allocations.items()}
    new = {entry.user: entry.allocation for entry in allocations.users}
    return {user: Change(user, old.get(user), new.get(user)) for user in sorted({*old, *new})}
