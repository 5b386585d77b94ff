"""Other rate limiters in the same run, each as its users call it: one key, far below its limit.

None of them decides on a global threshold, shares spare capacity or counts by User, SRV and outcome: they do
less. governor (Rust), folly and Guava are not on PyPI and are not here; the bare bucket of test_scalar.py is
the floor they share with us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from measure import calls, side_by_side

from tmm_core import Mechanism

N = 2_000


def beside(
    mechanism: Mechanism,
    judge: Callable[..., None],
    floor: str,
    name: str,
    peer: Callable[[], object],
    n: int,
) -> None:
    """Measure a peer beside `mechanism.admit`."""
    ours = calls(mechanism.admit, mechanism.user("User 7"), mechanism.srv("4.1.1"), n=20_000)
    took = side_by_side({"ours": (ours, 20_000), "peer": (peer, n)}, rounds=8)
    times = took["peer"] / took["ours"]
    judge(
        floor,
        name,
        times,
        f"{took['peer']:.0f} ns",
        f"{times:.0f} times `mechanism.admit` ({took['ours']:.0f} ns)",
    )


def test_quick_limits(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """limits: fixed window in memory."""
    limits = pytest.importorskip("limits")
    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    rate = limits.parse("1000000000/minute")
    peer = calls(limiter.hit, rate, "Northern Energy", n=N)
    benchmark.pedantic(peer, rounds=3)
    beside(mechanism, judge, "faster_than_limits", "limits, fixed window", peer, N)


def test_throttled_py(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """throttled-py: GCRA in memory."""
    throttled = pytest.importorskip("throttled")
    limiter = throttled.Throttled(
        using=throttled.RateLimiterType.GCRA.value, quota=throttled.per_sec(1_000_000, burst=1_000_000),
        store=throttled.MemoryStore(),
    )  # fmt: skip
    peer = calls(limiter.limit, "Northern Energy", n=N)
    benchmark.pedantic(peer, rounds=3)
    beside(mechanism, judge, "faster_than_throttled", "throttled-py, GCRA", peer, N)


def test_quick_rust_py_rate_limit(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """rust-py-rate-limit: fixed window, Rust under Python."""
    rust = pytest.importorskip("rust_py_rate_limit")
    limiter = rust.RateLimiter(limit=1_000_000_000, window_seconds=60)
    peer = calls(limiter.allow, "Northern Energy", n=20_000)
    benchmark.pedantic(peer, rounds=3)
    beside(mechanism, judge, "faster_than_rust", "rust-py-rate-limit, fixed window", peer, 20_000)


def test_token_bucket(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """token-bucket: pure Python."""
    token_bucket = pytest.importorskip("token_bucket")
    limiter = token_bucket.Limiter(1e6, 1_000_000, token_bucket.MemoryStorage())
    peer = calls(limiter.consume, "Northern Energy", n=N)
    benchmark.pedantic(peer, rounds=3)
    beside(mechanism, judge, "faster_than_python", "token-bucket", peer, N)


def test_aiolimiter(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """aiolimiter: a leaky bucket for asyncio, awaited inside one event loop."""
    aiolimiter = pytest.importorskip("aiolimiter")

    def peer() -> None:
        async def drive() -> None:
            limiter = aiolimiter.AsyncLimiter(1e9, 60)
            for _ in range(N):
                await limiter.acquire()

        asyncio.run(drive())

    benchmark.pedantic(peer, rounds=3)
    beside(mechanism, judge, "faster_than_python", "aiolimiter", peer, N)


def test_pyrate_limiter(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """pyrate-limiter: its default algorithm in memory."""
    pyrate = pytest.importorskip("pyrate_limiter")
    limiter = pyrate.Limiter(pyrate.Rate(1_000_000, pyrate.Duration.SECOND))
    peer = calls(limiter.try_acquire, "Northern Energy", n=500)
    benchmark.pedantic(peer, rounds=2)
    beside(mechanism, judge, "faster_than_python", "pyrate-limiter", peer, 500)
    close = getattr(limiter, "close", None)
    if close is not None:
        close()
