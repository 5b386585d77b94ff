"""SIGKILL at random moments: no count is lost but of requests under way, nothing is admitted twice, nothing hangs."""

from __future__ import annotations

import gc
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmm_core import Config, Decision, Mechanism

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked here")

FROZEN = 10**12
WORKERS = 8
CELLS = 8  # words a worker writes: begun, answered by decision, under way


class Tally:
    """What each life of a worker has begun and been answered, in memory that outlives it."""

    def __init__(self, lives: int) -> None:
        self.words = np.frombuffer(mmap.mmap(-1, lives * CELLS * 8), dtype=np.int64).reshape(lives, CELLS)

    @property
    def begun(self) -> int:
        return int(self.words[:, 0].sum())

    @property
    def lives_begun(self) -> int:
        return int(np.count_nonzero(self.words[:, 0]))

    @property
    def answered(self) -> np.ndarray:
        return np.asarray(self.words[:, 1:5].sum(axis=0))


def work(mechanism: Mechanism, row: np.ndarray, seed: int, now: int | None) -> None:
    """Decide for ever: one by one and in batches, inside the allocation, over it and on the priority list."""
    source = random.Random(seed)
    users = [mechanism.user(name) for name in ("Deep Ltd", "Shallow Ltd")]
    srvs = [mechanism.srv("4.1.1"), mechanism.srv("7.4")]
    admit, admit_at, admit_many = mechanism.admit, mechanism.admit_at, mechanism.admit_many
    while True:
        user, srv = users[source.random() < 0.5], srvs[source.random() < 0.1]
        if source.random() < 0.02:
            n = row[5] = 100
            row[0] += n
            got = admit_many(np.full(n, user, np.uint32), np.full(n, srv, np.uint16), now=now)
            row[1:5] += np.bincount(got, minlength=4)
            row[5] = 0
        else:
            row[5] = 1
            row[0] += 1
            decision = admit(user, srv) if now is None else admit_at(user, srv, now)
            row[1 + decision] += 1
            row[5] = 0


@dataclass(frozen=True, slots=True)
class Storm:
    """What is left when all workers are dead."""

    mechanism: Mechanism
    tally: Tally
    at_work: int  # killed after the first request
    starting: int  # killed before it: while it opened the block or took over a slab


def storm(path: Path, kills: int, seed: int, now: int | None) -> Storm:
    """Start handfuls of workers and kill all of each, until so many were killed at work."""
    config = Config(
        2_000_000, 1_500_000,
        allocations={"Deep Ltd": 1_000_000.0, "Shallow Ltd": 100.0}, priority=["7.4"], burst_s=3600.0,
        activation_s=0.01, shared=str(path / "block"),
    )  # fmt: skip
    mechanism = Mechanism.open(config, start=now)
    most = 4 * kills + WORKERS
    tally, source, lives = Tally(most), random.Random(seed), 0

    def start(life: int) -> int:
        child = os.fork()
        if child:
            return child
        try:
            os.nice(5)  # whoever kills them goes first
            # Most take over what the parent has opened, some open it anew.
            own = mechanism if life % 8 else Mechanism.open(config, start=now)
            work(own, tally.words[life], seed + life, now)
        finally:
            os._exit(70)

    gc.collect()
    gc.freeze()  # or each child copies what its collector looks at
    try:
        while tally.lives_begun < kills:
            assert lives + WORKERS <= most, "nearly all were killed before they began"
            running = [start(lives + place) for place in range(WORKERS)]
            lives += WORKERS
            time.sleep(source.random() * 0.006)
            source.shuffle(running)
            for child in running:
                os.kill(child, signal.SIGKILL)
            for child in running:
                assert os.waitpid(child, 0)[1] == signal.SIGKILL, "a worker ended by itself"
    finally:
        gc.unfreeze()
    return Storm(mechanism, tally, tally.lives_begun, lives - tally.lives_begun)


LONG = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("kills", "now"),
    [
        pytest.param(500, FROZEN, id="500-frozen"),
        pytest.param(100, None, id="100-running"),
        pytest.param(20_000, FROZEN, id="20000-frozen", marks=LONG),
        pytest.param(20_000, None, id="20000-running", marks=LONG),
    ],
)
def test_killed_workers_lose_at_most_what_was_under_way(
    tmp_path: Path, kills: int, now: int | None, seed: int, record_property: Callable[[str, Any], None]
) -> None:
    end = storm(tmp_path, kills, seed, now)
    tally = end.tally
    with end.mechanism as mechanism:
        counts = mechanism.snapshot(now).counts.sum(axis=(0, 1))
        answered = tally.answered
        # A killed thread has one call under way: one request, or the 100 of a batch.
        under_way = int(tally.words[:, 5].sum())
        figures = {
            "kills": end.at_work, "kills_while_starting": end.starting, "decisions": tally.begun,
            "requests_answered": int(answered.sum()), "requests_counted": int(counts.sum()),
            "unanswered": tally.begun - int(answered.sum()),
            "requests_not_counted": tally.begun - int(counts.sum()), "requests_under_way": under_way,
        }  # fmt: skip
        for name, figure in figures.items():
            record_property(name, figure)
        print(figures)
        assert end.at_work >= kills
        assert int(answered.sum()) > 10 * kills, "the workers did work"
        assert (counts >= answered).all(), "an answered request is not counted"
        assert tally.begun - int(answered.sum()) <= under_way
        assert counts.sum() >= tally.begun - under_way, "more is lost than was under way"
        assert counts.sum() <= tally.begun, "a request is counted twice"
        assert len(mechanism.engine.owners()) <= 2 + 2 * (WORKERS + 1), "slabs are adopted, not used up"
        if now is None:
            return
        # The clock stood still: every unit charged is still in the bucket's one word.
        slot = mechanism.user("Deep Ltd")
        interval = 128 * 1_000_000_000 // 1_000_000
        charged = (mechanism.engine.words(slot)[0] - FROZEN * 128) // interval
        within = int(mechanism.snapshot(now).counts[slot, :, Decision.WITHIN_ALLOCATION].sum())
        record_property("units_charged_and_not_counted", charged - within)
        assert within <= charged, "admitted without a charge: over the allocation"
        assert charged - within <= under_way
        shallow = (
            mechanism.snapshot(now).counts[mechanism.user("Shallow Ltd"), :, Decision.WITHIN_ALLOCATION].sum()
        )
        assert shallow <= 360_001, "100 units per second and a burst of an hour"


def test_a_worker_stopped_at_random_stops_nobody_else(tmp_path: Path, seed: int) -> None:
    mechanism = storm(tmp_path, 1, seed, None).mechanism
    source = random.Random(seed)
    tally = Tally(1)
    child = os.fork()
    if child == 0:
        try:
            work(mechanism, tally.words[0], seed, None)
        finally:
            os._exit(70)
    try:
        user, srv = mechanism.user("Deep Ltd"), mechanism.srv("4.1.1")
        for _ in range(50):
            time.sleep(source.random() * 0.002)
            os.kill(child, signal.SIGSTOP)
            os.waitpid(child, os.WUNTRACED)
            for _ in range(100):
                assert mechanism.admit(user, srv)
            mechanism.tick()
            mechanism.retry_after(user)
            os.kill(child, signal.SIGCONT)
        assert tally.begun > 1000
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        mechanism.close()
