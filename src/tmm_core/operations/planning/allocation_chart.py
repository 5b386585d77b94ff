"""The chart of `tmm allocate` as SVG: what of the operating threshold goes where."""

from __future__ import annotations

from tmm_core.operations.figures import bar_chart
from tmm_core.operations.planning.allocation_words import shares_of
from tmm_core.operations.terminal import percent
from tmm_core.policy.allocation import NOTICE, Allocations

__all__ = ["allocation_chart"]


def allocation_chart(allocations: Allocations) -> str:
    """Draw what each category of Users has, what is kept, and the limits; the figures are those of the terminal."""
    parts, totals = shares_of(allocations)
    threshold = float(allocations.parameters.operating_threshold)
    given = percent(float(allocations.total), threshold)
    title = f"{given} of the operating threshold is allocated to {len(allocations.users)} Users"
    rows = [
        (name, float(value), f"{float(value):,.10g} ({percent(float(value), threshold)})")
        for name, value in [*parts, *totals]
    ]
    return bar_chart(
        title,
        "; ".join(f"{name}: {text}" for name, _, text in rows) + " units per second. " + NOTICE,
        rows,
        limits=len(totals),
        subtitle=f"Allocations for {allocations.month}, digest {allocations.digest}. {NOTICE}",
        unit="Units per second, and share of the operating threshold",
    )
