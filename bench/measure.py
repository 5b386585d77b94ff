"""Side by side: what is compared is measured in one run, in turn, so that a busy machine is busy for all."""

from __future__ import annotations

import gc
import tomllib
from collections.abc import Callable, Mapping
from itertools import repeat
from pathlib import Path
from time import perf_counter_ns
from typing import Any

__all__ = ["FLOORS", "MANY", "calls", "side_by_side"]

#: The limits that are asserted, with their reasons.
FLOORS: dict[str, Any] = tomllib.loads((Path(__file__).parent / "floors.toml").read_text(encoding="utf-8"))
#: Rounds for large batches. A histogram takes 2.4 ns a request on some processors and 6.9 while a neighbour has
#: speculative stores switched off for the core (`np.bincount` the same), by turns of milliseconds to seconds: short
#: rounds, and half a second of them, let both sides see the same.
MANY = 1000


def calls(f: Callable[..., object], *args: object, n: int) -> Callable[[], None]:
    """Return a function that calls f(*args) n times; the loop is part of what is measured, on every side."""
    if len(args) == 1:
        (one,) = args

        def run() -> None:
            for _ in repeat(None, n):
                f(one)
    elif len(args) == 2:
        first, second = args

        def run() -> None:
            for _ in repeat(None, n):
                f(first, second)
    else:

        def run() -> None:
            for _ in repeat(None, n):
                f(*args)

    return run


def side_by_side(
    sides: Mapping[str, tuple[Callable[[], object], int]], *, rounds: int = 15, collect: bool = False
) -> dict[str, float]:
    """Run all sides in turn and return nanoseconds per operation: of each its fastest round.

    Parameters
    ----------
    sides : mapping of str to (callable, int)
        What to run, and how many operations one run is. Runs of about 1 to 20 ms are best.
    rounds : int
        After one that is not counted.
    collect : bool
        Leave the garbage collector on, for what leaves cycles behind and grows slow without it.

    Notes
    -----
    The fastest round is the one that was disturbed least: other work on the machine only ever adds.
    """
    best = dict.fromkeys(sides, float("inf"))
    enabled = gc.isenabled()
    if not collect:
        gc.disable()
    try:
        for number in range(rounds + 1):
            for name, (run, operations) in sides.items():
                began = perf_counter_ns()
                run()
                took = (perf_counter_ns() - began) / operations
                if number:
                    best[name] = min(best[name], took)
    finally:
        if enabled:
            gc.enable()
    return best
