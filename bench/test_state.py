"""What is not a decision: control ticks, a new configuration, memory, import, and the share of a core in all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import calls, side_by_side

from conftest import config_of, traffic
from tmm_core import Mechanism
from tmm_core._core.engine import block_nbytes, clock, layout_words
from tmm_core.mechanism import terms_of

#: What both imports take, nanoseconds.
IMPORTS = """
from time import perf_counter_ns
start = perf_counter_ns()
import numpy
between = perf_counter_ns()
from tmm_core import Mechanism  # the package alone loads nothing
print(between - start, perf_counter_ns() - between)
"""


def tick_share(users: int, benchmark: Any) -> tuple[float, float, float]:
    """Return a tick's time (us), the period (ms) and the share of a core, with every tenth User in excess."""
    config = config_of(users)
    settings, _, _ = terms_of(config, ["(unknown)", *config.users], ["(unknown)"])
    with Mechanism(config, start=0) as made:
        srv, now, period = made.srv("4.1.1"), 0, settings["tick_ns"]
        drawn = np.arange(1, users + 1, 10, dtype=np.uint32)
        few = np.full(drawn.size, srv, dtype=np.uint16)
        times = []
        for _ in range(30):
            # 4,000 s of allocation at once: more than the burst, so they are in excess.
            for _ in range(3):
                made.admit_many(drawn, few, now=now)
            now += period
            began = clock()
            assert made.tick(now)
            times.append(clock() - began)
        benchmark.pedantic(lambda: None, rounds=1)
    took = min(times)
    return took / 1e3, period / 1e6, took / period


def test_quick_tick_300(judge: Callable[..., None], benchmark: Any) -> None:
    """A control tick over 300 Users, as a share of one core."""
    took, period, share = tick_share(300, benchmark)
    judge(
        "tick_300",
        "a control tick over 300 Users",
        share,
        f"{took:.1f} us",
        f"{100 * share:.3f} % of a core, every {period:g} ms",
    )


def test_tick_10000(judge: Callable[..., None], benchmark: Any) -> None:
    """A control tick over 10,000 Users, as a share of one core."""
    took, period, share = tick_share(10_000, benchmark)
    judge(
        "tick_10000",
        "a control tick over 10,000 Users",
        share,
        f"{took:.0f} us",
        f"{100 * share:.2f} % of a core, every {period:g} ms",
    )


def test_tick_100000(judge: Callable[..., None], benchmark: Any) -> None:
    """A control tick over 100,000 Users, as a share of one core."""
    took, period, share = tick_share(100_000, benchmark)
    judge(
        "tick_100000",
        "a control tick over 100,000 Users",
        share,
        f"{took:.0f} us",
        f"{100 * share:.2f} % of a core, every {period:g} ms",
    )


def test_quick_share_of_a_core_at_dsp_peak(
    mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """20,000 scalar decisions a second from Python and the ticks of 300 Users, as a share of one core."""
    user, srv, n = mechanism.user("User 7"), mechanism.srv("4.1.1"), 20_000
    second = calls(mechanism.admit, user, srv, n=n)
    took = side_by_side({"ours": (second, 1)})["ours"]
    _, _, ticks = tick_share(300, benchmark)
    share = took / 1e9 + ticks
    judge(
        "dsp_peak_share", "at 20,000 Service Requests a second", share, f"{100 * share:.2f} % of a core",
        f"{took / n:.0f} ns a decision from Python, {100 * ticks:.3f} % for the ticks",
    )  # fmt: skip


def test_tail_at_dsp_peak(
    floors: Any, mechanism: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """The slowest one in a thousand of single decisions from C, beside two readings of the clock alone."""
    users, srvs, _ = traffic(mechanism, 100_000, 300)
    lane, spans = mechanism.lane(), np.empty(100_000, dtype=np.int64)
    best = np.inf
    for _ in range(10):
        floors.spans(lane, users, srvs, spans)
        best = min(best, float(np.percentile(spans, 99.9)))
    floors.empty_spans(spans)
    empty = float(np.percentile(spans, 99.9))
    benchmark.pedantic(lambda: None, rounds=1)
    judge(
        "tail", "one decision in a thousand takes longer than", best - empty, f"{best:.0f} ns",
        f"{empty:.0f} ns for two readings of the clock with nothing in between",
    )  # fmt: skip


def test_apply_10000(judge: Callable[..., None], benchmark: Any) -> None:
    """Put a configuration of 10,000 Users in force; the configuration is already read and checked."""
    config = config_of(10_000)
    with Mechanism(config) as made:
        took = side_by_side({"ours": (lambda: made.apply(config), 1)}, rounds=8)["ours"] / 1e6
        benchmark.pedantic(made.apply, args=(config,), rounds=3)
    judge("apply_10000", "`apply` of 10,000 Users", took, f"{took:.0f} ms", "decisions go on meanwhile")


def test_quick_memory_per_user(judge: Callable[..., None], benchmark: Any) -> None:
    """Bytes of the block per User beyond the counters, and a worker's own workspace."""
    slabs, srvs, words = 2, 130, layout_words()
    # By outcome its units and the counters of every SRV: a column of a tile is a line longer than its Users.
    column = 1 + words["LINE"] / 8 / (1 << words["TILE_BITS"])
    counters = 4 * 8 * (1 + srvs) * column
    grown = block_nbytes(16_384, srvs, slabs) - block_nbytes(8_192, srvs, slabs)
    # 32: what a candidate allocation would have done, four counters a User and slab.
    beyond = grown / 8_192 - slabs * (counters + 32)
    worker = 32 + 4 + 24 + 24  # tally, touched, rule; excess, weight, satisfied of the tick
    benchmark.pedantic(lambda: None, rounds=1)
    judge(
        "memory_per_user", "memory of a User", beyond + worker, f"{beyond + worker:.0f} bytes",
        f"{beyond:.0f} in the block and {worker} in each worker; counters: {counters:,.0f} a User and slab "
        "of address space, committed as SRVs are used",
    )  # fmt: skip


def test_import_time(judge: Callable[..., None], benchmark: Any) -> None:
    """Import in a fresh interpreter that has imported NumPy: the whole takes ten times as long, and moves by more."""
    # As installed: with compiled Python files, whatever this process was told about them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def fresh() -> tuple[float, float]:
        told = subprocess.run(
            [sys.executable, "-c", IMPORTS], check=True, env=environment, capture_output=True, text=True
        ).stdout
        numpy, ours = map(float, told.split())
        return numpy, ours

    took = [fresh() for _ in range(26)][1:]
    benchmark.pedantic(fresh, rounds=3)
    numpy, more = (min(side) / 1e6 for side in zip(*took, strict=True))
    judge(
        "import_time",
        "`from tmm_core import Mechanism`",
        more,
        f"{more:.1f} ms",
        f"after NumPy, which takes {numpy:.0f} ms before it in the same process",
    )
