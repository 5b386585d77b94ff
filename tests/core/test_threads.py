"""Threads on one bucket: together they get exactly what one would, and every count is there afterwards."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from block import Block

from tmm_core import Config, Decision, Mechanism
from tmm_core._core import engine as native
from tmm_core.mechanism import UNKNOWN
from tmm_core.memory import private_block
from tmm_core.terms import terms_of

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


def together(threads: int, work: Callable[[int], object]) -> None:
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
    n, rounds = 1000, 30  # enough of one User to be granted together
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


def test_batches_of_many_users_charge_every_bucket_for_what_they_admit() -> None:
    """A charge for each of two hundred Users in a batch, one straight after the other: threads do meet."""
    config = Config(4e5, 2e5, allocations={f"User {index}": 1000.0 for index in range(200)}, burst_s=60)
    block = Block(config, slabs=5)
    start = [block.engine.words(user)[0] for user in range(1, 201)]
    users = np.tile(np.arange(1, 201, dtype=np.uint32), 5)
    srvs = np.zeros(len(users), dtype=np.uint16)

    def work(index: int) -> None:
        out = np.empty(len(users), dtype=np.uint8)
        for _ in range(1000):
            block.engine.admit_many(users, srvs, out, 0)
            assert (out == 2).all()

    together(4, work)
    # 4 * 1,000 * 5 units of each of them, of 60,001.
    interval = S * 128 // 1000
    charged = [(block.engine.words(user)[0] - at) / interval for user, at in enumerate(start, 1)]
    assert charged == [20_000] * 200


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_every_decision_is_counted_once_whoever_calls(threads: int) -> None:
    """Scalar calls, batches and control ticks at once, on a moving clock: offered is the sum of the outcomes."""
    block = busy(slabs=5)
    n = 600  # enough to be decided by User
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
    n = 600
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


# ---- lanes: threads that decide at the same moment, without the GIL


@pytest.fixture
def storm(doors: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`storm(lane, user, srv, now, n, step)` decides n times without the GIL; returns how many were admitted."""
    monkeypatch.syspath_prepend(str(doors))
    return importlib.import_module("from_cython").storm


@pytest.mark.timeout(240)
@pytest.mark.parametrize("threads", [2, 4, 8])
def test_lanes_admit_exactly_what_one_thread_would(storm: Callable[..., int], threads: int) -> None:
    """Ten seconds of an allocation of 150,000 from rest, asked for at one instant by all of them."""
    config = Config(
        4e5, 2e5, allocations={"Northern Energy": 150_000.0}, sharing="none", burst_s=10, hold_s=3600
    )
    block = Block(config, slabs=threads + 1)
    block.set("state", 3)
    start = block.engine.words(MEMBER)[0]
    lanes = [block.engine.lane() for _ in range(threads)]
    each, admitted = 2_400_000 // threads, [0] * threads

    def work(index: int) -> None:
        admitted[index] = storm(lanes[index], MEMBER, 0, 0, each)

    together(threads, work)
    interval = S * 128 // 150_000
    room = 10 * S * 128 // interval + 1
    assert sum(admitted) == room
    assert block.engine.words(MEMBER)[0] - start == room * interval
    assert block.engine.units()[MEMBER].tolist() == [each * threads - room, 0, room, 0]
    assert int(block.engine.counts().sum()) == each * threads


class Crowded:
    """A host with the common slab only: every thread of it counts there."""

    owner = 1

    def __init__(self) -> None:
        self.guard = np.zeros(2, dtype=np.int64)

    def claim(self) -> int:
        return -2

    def renew(self, engine: object) -> None:
        raise AssertionError("nobody forks here")


@pytest.mark.timeout(240)
def test_lanes_that_count_in_one_slab_lose_no_count(storm: Callable[..., int]) -> None:
    config = Config(4e5, 2e5, allocations={"Northern Energy": RATE}, priority=["7.4"])
    users, srvs = [UNKNOWN, "Northern Energy"], [UNKNOWN, "7.4"]
    memory = private_block(native.block_nbytes(2, 2, 1))
    engine = native.Engine(memory, 2, 2, 1, tuple(Decision), 0, 1, 0, Crowded())
    engine.apply(*terms_of(config, users, srvs), 0)
    lanes = [engine.lane() for _ in range(4)]
    together(4, lambda index: storm(lanes[index], MEMBER, 1, 0, 500_000))
    assert engine.counts()[MEMBER].tolist() == [[0] * 4, [0, 0, 0, 2_000_000]]
    assert engine.units()[MEMBER].tolist() == [0, 0, 0, 2_000_000]


# Cost times interval is the same in each: whoever takes both from one version charges 5,120,000 stamps, whichever.
CHARGE = 5_120_000
VERSIONS = [
    Config(
        4e5, 2e5, allocations={"Northern Energy": 25_000.0 * factor}, costs={"4.1.1": factor},
        sharing="none", burst_s=3600,
    )
    for factor in (1, 2, 4)
]  # fmt: skip


def whole_versions() -> tuple[Block, int, Callable[[], None]]:
    """A block, the SRV whose cost changes, and what puts three versions in force, one straight after the other."""
    block = Block(VERSIONS[0], slabs=3)
    block.set("state", 3)
    versions = [terms_of(config, block.names, block.srvs) for config in VERSIONS]

    def apply_all() -> None:
        for terms in versions:
            block.engine.apply(*terms, 0)

    return block, block.srvs.index("4.1.1"), apply_all


@pytest.mark.timeout(240)
def test_a_lane_charges_by_one_version_of_the_terms(storm: Callable[..., int]) -> None:
    block, srv, apply_all = whole_versions()
    start, lane, left = block.engine.words(MEMBER)[0], block.engine.lane(), [40]

    def work(index: int) -> None:
        if index:
            while left[0]:
                apply_all()
            return
        while left[0]:
            assert storm(lane, MEMBER, srv, 0, 100_000) == 100_000
            left[0] -= 1

    together(2, work)
    assert block.engine.words(MEMBER)[0] - start == 4_000_000 * CHARGE
    assert block.engine.generation > 100, "there were changes meanwhile"


def test_a_batch_charges_by_one_version_of_the_terms() -> None:
    block, srv, apply_all = whole_versions()
    # Of all batches together the bucket grants 90,000,000.
    start, n, done, ended = block.engine.words(MEMBER)[0], 2_000, [0], [False]
    users, srvs = np.full(n, MEMBER, dtype=np.uint32), np.full(n, srv, dtype=np.uint16)

    def work(index: int) -> None:
        if index:
            while not ended[0]:
                seen = done[0]
                apply_all()
                while (
                    done[0] == seen and not ended[0]
                ):  # a batch that is asked to begin again and again would never end
                    pass
            return
        out = np.empty(n, dtype=np.uint8)
        try:
            while block.engine.generation < 300 and done[0] < 44_000:
                block.engine.admit_many(users, srvs, out, 0)
                assert out.all()
                done[0] += 1
        finally:
            ended[0] = True

    together(2, work)
    assert block.engine.words(MEMBER)[0] - start == n * done[0] * CHARGE
    assert block.engine.generation >= 300, "there were changes meanwhile"


def test_a_tick_and_scalar_calls_charge_the_backlog_for_every_unit_once() -> None:
    """The virtual queue stays ahead of every clock here, so its word moves by exactly what is charged."""
    config = Config(
        4e5, 100_000, allocations={"Northern Energy": 10.0}, priority=["7.4"], activation_s=10, tick_s=0.01
    )
    block = Block(config, spare_slots=200)
    block.set("backlog", 80 * S * 128)
    srv, unit, start = block.srvs.index("7.4"), S * 128 // 100_000, block.word("backlog")
    decisions, ended = 400_000, [False]

    def work(index: int) -> None:
        if index:
            now = 0
            while not ended[0]:
                now = (now + 10_000_000) % (50 * S)
                block.engine.tick(now)
            return
        for _ in range(decisions):
            block.engine.admit_at(MEMBER, srv, 0)
        ended[0] = True

    together(2, work)
    assert block.engine.state()["ticks"] > 100
    assert (block.word("backlog") - start) / unit + block.pending() == decisions


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="without a GIL nobody waits")
def test_no_scalar_call_runs_beside_a_tick() -> None:
    """Both write what the process's slab holds back. Nobody else gets the GIL here unless the tick gives it away."""
    # So many Users that a tick takes longer than waking a thread.
    block = Block(Config(2e5, 1e5, allocations={f"User {index}": 1.0 for index in range(5000)}, tick_s=0.02))
    gate, ran = threading.Lock(), []
    gate.acquire()
    thread = threading.Thread(target=lambda: (gate.acquire(), ran.append(True)))
    thread.start()
    sys.setswitchinterval(100)
    gate.release()
    for turn in range(1, 301):
        block.engine.tick(turn * 20_000_000)
    before = list(ran)
    sys.setswitchinterval(1e-6)
    thread.join()
    assert block.engine.state()["ticks"] == 300
    assert not before


@pytest.mark.timeout(240)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_in_the_middle_of_a_tick_ticks(storm: Callable[..., int]) -> None:
    """A lane ticks without the GIL; the thread that is in there does not exist in the child."""
    config = Config(4e5, 2e5, allocations={f"User {index}": 1.0 for index in range(3000)}, tick_s=0.01)
    mechanism = Mechanism(config, start=0)
    lane, ended = mechanism.lane(), threading.Event()

    # Every decision finds a tick due, and a tick looks at 3,000 Users: nearly all the time is spent in ticks.
    def run() -> None:
        storm(lane, 1, 0, 0, 20_000, S)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    children = stuck = 0
    while not ended.is_set() and children < 25:
        child = os.fork()
        if child == 0:
            os._exit(not mechanism.tick(10**15))
        stuck += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        children += 1
    thread.join()
    assert children >= 10
    assert stuck == 0
