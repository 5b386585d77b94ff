"""`admit_many`: batches of several sizes beside bare compare-and-swaps on the same Users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure import MANY, side_by_side

from conftest import config_of, traffic
from tmm_core import Mechanism


def beside_swaps(floors: Any, mechanism: Mechanism, n: int, users: int) -> dict[str, float]:
    """Measure one batch and the same batch as bare compare-and-swaps, ns per decision."""
    drawn, srvs, out = traffic(mechanism, n, users)
    words = np.zeros(8 * (users + 1), dtype=np.int64)
    repeats = max(1, 65_536 // n)

    def ours() -> None:
        for _ in range(repeats):
            mechanism.admit_many(drawn, srvs, out=out)

    def swaps() -> None:
        for _ in range(repeats):
            floors.swaps(words, drawn)

    took = side_by_side({"ours": (ours, n * repeats), "swaps": (swaps, n * repeats)}, rounds=MANY // 4)
    assert (out >= 2).all(), "everybody stayed inside the allocation"
    return took


def say(took: dict[str, float]) -> tuple[float, str, str]:
    """Return the ratio and how it reads."""
    ratio = took["ours"] / took["swaps"]
    return (
        ratio,
        f"{took['ours']:.2f} ns a decision",
        f"{ratio:.2f} compare-and-swaps of {took['swaps']:.1f} ns",
    )


def test_quick_batch_65536(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """65,536 requests of 300 Users in one call; the clock is read once."""
    took = beside_swaps(floors, mechanism, 65_536, 300)
    drawn, srvs, out = traffic(mechanism, 65_536, 300)
    benchmark(mechanism.admit_many, drawn, srvs, out=out)
    judge("batch_65536", "a batch of 65,536 over 300 Users", *say(took))


def test_batch_256(floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """256 requests of 300 Users in one call."""
    took = beside_swaps(floors, mechanism, 256, 300)
    drawn, srvs, out = traffic(mechanism, 256, 300)
    benchmark(mechanism.admit_many, drawn, srvs, out=out)
    judge("batch_256", "a batch of 256 over 300 Users", *say(took))


def test_batch_of_distinct_users(floors: Any, judge: Callable[..., None], benchmark: Any) -> None:
    """2,048 requests of as many Users: nothing to group, one compare-and-swap a request."""
    with Mechanism(config_of(2_048)) as many:
        _, srvs, out = traffic(many, 2_048, 2_048)
        drawn = np.random.default_rng(3).permutation(np.arange(1, 2_049, dtype=np.uint32))
        words = np.zeros(8 * 2_049, dtype=np.int64)

        def ours() -> None:
            for _ in range(32):
                many.admit_many(drawn, srvs, out=out)

        def swaps() -> None:
            for _ in range(32):
                floors.swaps(words, drawn)

        took = side_by_side({"ours": (ours, 65_536), "swaps": (swaps, 65_536)})
        benchmark(many.admit_many, drawn, srvs, out=out)
    judge("batch_one_by_one", "a batch of 2,048 different Users", *say(took))


def test_quick_batch_call(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """One request in a batch: what the call itself costs."""
    users, srvs, out = traffic(mechanism, 1, 300)
    n = 5_000
    empty = floors.Empty().none

    def ours() -> None:
        for _ in range(n):
            mechanism.admit_many(users, srvs, out)

    def nothing() -> None:
        for _ in range(n):
            empty(users, srvs, out)

    took = side_by_side({"ours": (ours, n), "empty": (nothing, n)})
    benchmark(mechanism.admit_many, users, srvs, out)
    ratio = took["ours"] / took["empty"]
    judge(
        "batch_call", "a batch of one request", ratio, f"{took['ours']:.0f} ns",
        f"{ratio:.2f} empty methods of {took['empty']:.0f} ns",
    )  # fmt: skip


def test_quick_dsp_peak_throughput(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """Decisions a second on one core, one call each, from Python: in DSP peak volumes of 20,000 a second."""
    users, srvs, _ = traffic(mechanism, 20_000, 300)
    pairs = list(zip(users.tolist(), srvs.tolist(), strict=True))

    def second() -> None:
        admit = mechanism.admit
        for user, srv in pairs:
            admit(user, srv)

    took = side_by_side({"ours": (second, 1)})["ours"]
    benchmark.pedantic(second, rounds=5, warmup_rounds=1)
    judge(
        "dsp_peak_throughput", "scalar decisions on one core", 1e9 / took,
        f"{20_000 * 1e3 / took:.1f} million a second", f"{1e9 / took:.0f} times DSP peak volume",
    )  # fmt: skip


def test_batch_of_one_user(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """65,536 requests of one User in one call: a single compare-and-swap of the bucket."""
    _, srvs, out = traffic(mechanism, 65_536, 300)
    users, words = np.full(65_536, 7, dtype=np.uint32), np.zeros(64, dtype=np.int64)
    took = side_by_side(
        {
            "ours": (lambda: mechanism.admit_many(users, srvs, out=out), 65_536),
            "swaps": (lambda: floors.swaps(words, users), 65_536),
        }
    )
    benchmark(mechanism.admit_many, users, srvs, out=out)
    judge("batch_one_user", "a batch of 65,536 of one User", *say(took))
