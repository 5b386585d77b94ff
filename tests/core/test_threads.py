"""Threads on one bucket: together they get exactly what one would, and every count is there afterwards."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from block import Block

from tmm_core import Config

S = 1_000_000_000
MEMBER = 1
RATE = 50_000.0
INTERVAL = int(S * 128 / RATE)


@pytest.fixture(autouse=True)
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(threads: int, work: Callable[[int], None]) -> None:
    """Run `work(index)` in so many threads, all let go at one moment; what one raises is raised."""
    barrier, failed = threading.Barrier(threads), []

    def run(index: int) -> None:
        barrier.wait()
        try:
            work(index)
        except BaseException as error:
            failed.append(error)

    crowd = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    if failed:
        raise failed[0]


def busy(slabs: int = 9) -> Block:
    """Active for good and nothing shared: the own bucket alone decides, 50,001 units from rest."""
    config = Config(
        4e5, 2e5, allocations={"Northern Energy": RATE}, priority=["7.4"], sharing="none", hold_s=3600
    )
    block = Block(config, slabs=slabs)
    block.set("state", 3)
    return block


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_scalar_threads_on_a_frozen_clock_admit_exactly_what_one_would(threads: int) -> None:
    block = busy()
    start = block.engine.words(MEMBER)[0]
    each = 120_000 // threads
    admitted = [0] * threads

    def work(index: int) -> None:
        admit = block.engine.admit_at
        admitted[index] = sum(bool(admit(MEMBER, 0, 0)) for _ in range(each))

    together(threads, work)
    room = S * 128 // INTERVAL + 1
    assert sum(admitted) == room
    assert block.engine.words(MEMBER)[0] - start == room * INTERVAL
    assert block.engine.units()[MEMBER].tolist() == [each * threads - room, 0, room, 0]


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_batches_of_several_threads_admit_exactly_what_one_would(threads: int) -> None:
    """Without the GIL, more threads than slabs of counters: nothing is lost, nothing given twice."""
    block = busy(slabs=5)
    start = block.engine.words(MEMBER)[0]
    n, rounds = 500, 60
    users, srvs = np.full(n, MEMBER, dtype=np.uint32), np.zeros(n, dtype=np.uint16)
    admitted = [0] * threads

    def work(index: int) -> None:
        out = np.empty(n, dtype=np.uint8)
        for _ in range(rounds * 8 // threads):
            block.engine.admit_many(users, srvs, out, 0)
            admitted[index] += int(np.count_nonzero(out))

    together(threads, work)
    room = S * 128 // INTERVAL + 1
    assert sum(admitted) == room
    assert block.engine.words(MEMBER)[0] - start == room * INTERVAL
    assert int(block.engine.counts().sum()) == n * rounds * 8
    assert block.engine.units()[MEMBER].tolist() == [n * rounds * 8 - room, 0, room, 0]


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_every_decision_is_counted_once_whoever_calls(threads: int) -> None:
    """Scalar calls, batches and control ticks at once, on a moving clock: offered is the sum of the outcomes."""
    block = busy(slabs=5)
    n = 400
    decided = [np.zeros(4, dtype=np.int64) for _ in range(threads)]

    def work(index: int) -> None:
        chance = np.random.default_rng(index)
        users = chance.integers(0, 2, n).astype(np.uint32)
        srvs = chance.integers(0, 130, n).astype(np.uint16)
        for turn in range(40):
            now = turn * 3_000_000
            if index % 2:
                decided[index] += np.bincount(block.engine.admit_many(users, srvs, None, now), minlength=4)
            else:
                for user, srv in zip(users.tolist(), srvs.tolist(), strict=True):
                    decided[index][int(block.engine.admit_at(user, srv, now))] += 1
            block.engine.tick(now)

    together(threads, work)
    total = np.sum(decided, axis=0)
    assert block.engine.counts().sum(axis=(0, 1)).tolist() == total.tolist()
    assert block.engine.units().sum(axis=0).tolist() == total.tolist(), "every cost is 1"
    assert total.sum() == threads * 40 * n


@pytest.mark.parametrize("threads", [2, 8])
def test_retry_slots_are_handed_out_once_each(threads: int) -> None:
    block = busy()
    for _ in range(60_000):
        block.engine.admit_at(MEMBER, 0, 0)
    slots: list[list[float]] = [[] for _ in range(threads)]

    def work(index: int) -> None:
        slots[index] = [block.engine.retry_after(MEMBER, 0) for _ in range(4000 // threads)]

    together(threads, work)
    every = sorted(seconds for part in slots for seconds in part)
    assert len(set(every)) == len(every), "no two callers have the same slot"
    assert np.allclose(np.diff(every), 1 / RATE, rtol=1e-6)


def test_one_overload_met_by_many_threads_is_one_activation() -> None:
    config = Config(200, 100, allocations={"Northern Energy": 10.0})
    block = Block(config, slabs=9)
    n = 500
    users, srvs = np.zeros(n, dtype=np.uint32), np.zeros(n, dtype=np.uint16)
    together(8, lambda _: [block.engine.admit_many(users, srvs, None, 1) for _ in range(20)] and None)
    state = block.engine.state(1)
    assert (state["active"], state["activations"]) == (1, 1)


def test_terms_change_while_threads_decide_and_no_decision_mixes_them() -> None:
    """Two configurations that differ in everything: an SRV is on the list or refused, never anything between."""
    listed = Config(200, 100, allocations={"Northern Energy": 1.0}, priority=["4.1.1"], costs={"7.4": 7})
    dear = Config(200, 100, allocations={"Northern Energy": 1.0}, costs={"4.1.1": 5}, sharing="none")
    block = Block(listed, slabs=5)
    srv = block.srvs.index("4.1.1")
    n = 300
    users, srvs = np.full(n, MEMBER, dtype=np.uint32), np.full(n, srv, dtype=np.uint16)

    def work(index: int) -> None:
        for turn in range(150):
            if index == 0:
                block.apply(dear if turn % 2 == 0 else listed, 0)
            elif index == 1:
                out = block.engine.admit_many(users, srvs, None, 0)
                kinds = set(out.tolist())
                assert kinds <= {0, 1, 2, 3}
            else:
                block.engine.admit_at(MEMBER, srv, 0)

    together(4, work)
    counts, units = block.engine.counts()[MEMBER].sum(axis=0), block.engine.units()[MEMBER]
    # On the list a request costs one unit, otherwise five: units and requests tell any mixture.
    assert units[3] == counts[3]
    assert units[:3].tolist() == (counts[:3] * 5).tolist()
