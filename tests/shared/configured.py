"""The files of a gateway whose Users become too many for its block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def configured(folder: Path) -> Callable[[int], None]:
    """Write a `tmm.toml` of a shared block there; returns what writes its allocations, of so many Users."""
    (folder / "tmm.toml").write_text(
        "[capacity]\nsystem_capacity = 200000\noperating_threshold = 100000\n"
        '[files]\nallocations = "allocations.csv"\n[state]\nshared = "./block"\n',
        encoding="utf-8",
    )

    def allocate(users: int) -> None:
        rows = "".join(f"User {number},other,,1\n" for number in range(users))
        (folder / "allocations.csv").write_text(f"user,category,user_ids,allocation\n{rows}", "utf-8")

    return allocate
