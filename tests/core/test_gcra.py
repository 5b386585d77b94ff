"""The bucket: the worked vectors, every small case against a reference, and accuracy over 10^9 decisions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block import Block

from tmm_core import Config

S = 1_000_000_000
SECOND = S * 128
VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "test_vectors.json").read_text("utf-8")
)
MEMBER = 1


def hard(interval: int, tolerance: int, costs: dict[str, int] | None = None) -> Block:
    """A Mechanism that is active for good, so that the own bucket alone decides; times in nanoseconds."""
    rate = Fraction(S, interval)
    config = Config(
        2000, 1000, allocations={"Northern Energy": float(rate)}, costs=costs or {}, sharing="none",
        burst_s=tolerance / S, hold_s=3600,
    )  # fmt: skip
    block = Block(config)
    block.set("state", 3)
    return block


@pytest.mark.parametrize("vector", VECTORS["gcra"], ids=lambda vector: vector["name"])
def test_the_worked_vectors_are_reproduced(vector: dict[str, Any]) -> None:
    tick = 1_000_000  # ns: a unit of the vectors
    block = hard(vector["T"] * tick, vector["tau"] * tick)
    admitted, tats = [], []
    for arrival in vector["arrivals"]:
        admitted.append(int(bool(block.engine.admit_at(MEMBER, 0, arrival * tick))))
        tats.append(block.engine.words(MEMBER)[0] / (128 * tick))
    assert admitted == vector["admit"]
    assert tats == vector["tat_after"]


def reference(interval: int, tolerance: int, trace: list[tuple[int, int]]) -> list[bool]:
    """A bucket by its contents: it drains one unit of time a nanosecond, a request is let in while it is low."""
    level, last, found = 0, 0, []
    for now, cost in trace:
        level, last = max(level - (now - last), 0), now
        found.append(level <= tolerance)
        level += cost * interval if found[-1] else 0
    return found


@pytest.mark.parametrize("interval", [1, 2, 3, 5])
@pytest.mark.parametrize("tolerance", [0, 1, 2, 4, 7])
def test_every_small_case_is_what_a_reference_bucket_says(interval: int, tolerance: int) -> None:
    """Lesson 8 as well: every pattern of five gaps of 0 to 4 and two costs, and no extra unit in any."""
    scale = 1_000_000
    block = hard(interval * scale, tolerance * scale, {"4.8.1": 3})
    plain, dear = block.srvs.index("4.1.1"), block.srvs.index("4.8.1")
    start = 0
    for gaps in itertools.product(range(5), repeat=4):
        for costs in [(1, 1, 1, 1, 1), (1, 3, 1, 3, 1), (3, 1, 1, 1, 3)]:
            start += 10**9  # at rest again
            times = [0, *itertools.accumulate(gaps)]
            expected = reference(interval, tolerance, list(zip(times, costs, strict=True)))
            found = [
                bool(block.engine.admit_at(MEMBER, plain if cost == 1 else dear, start + at * scale))
                for at, cost in zip(times, costs, strict=True)
            ]
            assert found == expected, (gaps, costs)


def test_a_request_on_the_priority_list_is_not_charged_to_the_allocation() -> None:
    config = Config(2000, 1000, allocations={"Northern Energy": 10.0}, priority=["7.4"], sharing="none")
    block = Block(config)
    block.set("state", 3)
    before = block.engine.words(MEMBER)
    decisions = {int(block.engine.admit_at(MEMBER, block.srvs.index("7.4"), 0)) for _ in range(100)}
    assert decisions == {3}
    assert block.engine.words(MEMBER) == before
    assert sum(bool(block.engine.admit_at(MEMBER, 0, 0)) for _ in range(20)) == 11


@pytest.mark.parametrize(
    "rate", [1 / 86_400, 0.1, 1.0, 3.0, 7.0, 999.0, 1000.0, 33_333.0, 99_999.0, 100_000.0]
)
def test_a_saturated_bucket_is_within_one_in_a_million_over_a_long_time(rate: float) -> None:
    """What the bucket charges a unit, exactly: over any number of units the error is the interval's."""
    block = Block(Config(4e5, 2e5, allocations={"Northern Energy": rate}, sharing="none"))
    before = block.engine.words(MEMBER)[0]
    assert block.engine.admit_at(MEMBER, 0, 0) == 2
    interval = block.engine.words(MEMBER)[0] - before
    exact = Fraction(SECOND) / Fraction(repr(rate))
    assert 0 <= (exact - interval) / exact <= Fraction(1, 10**6), (
        "rounded in the User's favour, by 1e-6 at most"
    )


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("rate", [1 / 86_400, 1.0, 999.0, 99_999.0, 100_000.0])
def test_over_a_billion_decisions_the_error_is_below_one_in_a_million(
    rate: float, record_property: Callable[[str, Any], None]
) -> None:
    """Lesson 10: 10^9 Service Requests, more than are allowed at every instant, so that the bucket is never at rest.

    Then its word has moved by what was admitted, and by the time and the burst: to within one unit.
    """
    block = Block(
        Config(4e5, 2e5, allocations={"Northern Energy": rate}, sharing="none", hold_s=3600, tick_s=1)
    )
    block.set("state", 3)
    n, batches = 200_000, 5_000
    users, srvs = np.full(n, MEMBER, dtype=np.uint32), np.zeros(n, dtype=np.uint16)
    out = np.empty(n, dtype=np.uint8)
    # Shorter than the burst fills again in; where a unit takes longer than that, its time.
    step = max(S * 9 // 10, int(S / rate) if rate < 1 else 0)
    for index in range(batches):
        block.engine.admit_many(users, srvs, out, index * step)
    units = block.engine.units()[MEMBER]
    assert units.sum() == n * batches == 10**9
    allowed = Fraction(repr(rate)) * (Fraction((batches - 1) * step, S) + 1)
    assert abs(int(units[2]) - allowed) <= allowed / 10**6 + 1, (int(units[2]), float(allowed))
    record_property("decisions", n * batches)
    record_property("error_in_units", float(int(units[2]) - allowed))
