"""One decision at a time: from Python, through a gate, and from C. The loop is part of every figure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from measure import calls, side_by_side

from conftest import config_of
from tmm_core import Config, Mechanism

N = 20_000


def test_quick_scalar_admit(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`mechanism.admit(user, srv)` inside the allocation; clock, bucket, load and counts included."""
    user, srv = mechanism.user("User 7"), mechanism.srv("4.1.1")
    ours, empty = calls(mechanism.admit, user, srv, n=N), calls(floors.Empty().two, user, srv, n=N)
    took = side_by_side({"ours": (ours, N), "empty": (empty, N)})
    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    judge(
        "scalar_admit", "`mechanism.admit(user, srv)`", took["ours"] / took["empty"],
        f"{took['ours']:.0f} ns", f"{took['ours'] / took['empty']:.2f} empty methods of {took['empty']:.0f} ns",
    )  # fmt: skip


def test_quick_gate_admit(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`gate.admit(srv)` inside the allocation; everything included."""
    gate, srv = mechanism.gate("User 7"), mechanism.srv("4.1.1")
    ours, empty = calls(gate.admit, srv, n=N), calls(floors.Empty().one, srv, n=N)
    took = side_by_side({"ours": (ours, N), "empty": (empty, N)})
    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    judge(
        "gate_admit", "`gate.admit(srv)`", took["ours"] / took["empty"],
        f"{took['ours']:.0f} ns", f"{took['ours'] / took['empty']:.2f} empty methods of {took['empty']:.0f} ns",
    )  # fmt: skip


def test_quick_refusal(mechanism: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """A refusal beside an admission; both include the clock, the refusal reads it twice."""
    config = Config(200, 100, allocations={"Flooder": 0.0}, sharing="none", unknown_allocation=1.0)
    with Mechanism(config) as small:
        flooder, srv = small.user("Flooder"), small.srv("4.1.1")
        for _ in range(1000):
            small.admit(flooder, srv)
        assert not small.admit(flooder, srv)
        refusal = calls(small.admit, flooder, srv, n=N)
        admission = calls(mechanism.admit, mechanism.user("User 7"), srv, n=N)
        took = side_by_side({"refusal": (refusal, N), "admission": (admission, N)})
        assert not small.admit(flooder, srv), "it was refused all the time"
        benchmark.pedantic(refusal, rounds=5, warmup_rounds=1)
    judge(
        "refusal", "a refusal", took["refusal"] / took["admission"],
        f"{took['refusal']:.0f} ns",
        f"{took['refusal'] / took['admission']:.2f} admissions of {took['admission']:.0f} ns",
    )  # fmt: skip


def test_quick_lane_now(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`lane.admit` from C without the GIL, beside a single bare bucket with the exact clock."""
    import numpy as np

    lane, user, srv = mechanism.lane(), mechanism.user("User 7"), mechanism.srv("4.1.1")
    words = np.zeros(8, dtype=np.int64)
    took = side_by_side(
        {
            "ours": (lambda: floors.lane_now(lane, user, srv, N), N),
            "bare": (lambda: floors.bare_bucket(words, 128, 1 << 50, N, True), N),
            "clock": (lambda: floors.clocks(N), N),
        }
    )
    benchmark.pedantic(floors.lane_now, args=(lane, user, srv, N), rounds=5, warmup_rounds=1)
    judge(
        "lane_now", "a decision from C by the clock", took["ours"] / took["bare"], f"{took['ours']:.1f} ns",
        f"{took['ours'] / took['bare']:.2f} bare buckets of {took['bare']:.1f} ns (clock {took['clock']:.1f} ns)",
    )  # fmt: skip


def test_quick_lane_given_now(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`lane.admit_at` from C without the GIL; scaled to a machine whose bare bucket takes 12.2 ns."""
    import numpy as np

    from tmm_core._core.engine import clock

    lane, user, srv, now = mechanism.lane(), mechanism.user("User 7"), mechanism.srv("4.1.1"), clock()
    words = np.zeros(8, dtype=np.int64)
    took = side_by_side(
        {
            "ours": (lambda: floors.lane_at(lane, user, srv, now, N), N),
            "bare": (lambda: floors.bare_bucket(words, 128, 1 << 60, N, False), N),
        }
    )
    benchmark.pedantic(floors.lane_at, args=(lane, user, srv, now, N), rounds=5, warmup_rounds=1)
    scaled = took["ours"] / took["bare"] * 12.2
    judge(
        "lane_given_now", "a decision from C at a given time", scaled, f"{took['ours']:.1f} ns",
        f"{scaled:.1f} ns scaled ({took['ours'] / took['bare']:.2f} bare buckets of {took['bare']:.1f} ns)",
    )  # fmt: skip


def test_growth(floors: Any, judge: Callable[..., None], benchmark: Any) -> None:
    """Decisions from C over 1,000 and over 1,000,000 Users drawn evenly: only the caches differ."""
    import numpy as np

    spans = np.empty(100_000, dtype=np.int64)

    def fastest_usual(call: Callable[..., None], *arguments: Any) -> float:
        """The mean of the middle half: a median would be one step of the clock, which on some machines is 10 ns."""
        usual = []
        for _ in range(5):
            call(*arguments, spans)
            usual.append(float(np.sort(spans)[25_000:75_000].mean()))
        return min(usual)

    def decided(config: Config) -> float:
        users = len(config.users)
        with Mechanism(config) as made:
            drawn = np.random.default_rng(2).integers(1, users + 1, spans.size).astype(np.uint32)
            srvs, lane = np.full(drawn.size, made.srv("4.1.1"), dtype=np.uint16), made.lane()
            return fastest_usual(floors.spans, lane, drawn, srvs)

    def read() -> float:
        # As much as a million Users' terms and buckets have.
        words = np.ones(16_000_000, dtype=np.int64)
        apart = np.random.default_rng(2).integers(0, words.size, spans.size).astype(np.uint32)
        return fastest_usual(floors.read_spans, words, apart)

    # Each in new memory three times: how large the pages are that the system gives is luck, and 40 ns.
    few, many, alone = (
        min(each() for _ in range(3))
        for each in (partial(decided, config_of(1_000)), partial(decided, config_of(1_000_000)), read)
    )
    benchmark.pedantic(lambda: None, rounds=1)
    judge(
        "growth", "a decision among 1,000,000 Users", many / few, f"{many:.0f} ns",
        f"{many / few:.2f} times the {few:.0f} ns among 1,000; to read one word of 128 MB takes {alone:.0f} ns "
        "(of all three the middle half, in the fastest round, with two readings of the clock)",
    )  # fmt: skip
