"""Large batches, counted in a table: whatever a caller does to its arrays meanwhile, others are counted exactly."""

from __future__ import annotations

import threading
import time

import numpy as np

from tmm_core import Config, Decision, Mechanism

REQUESTS = 40_000
#: Not a whole number of the cells that are looked at together: some lie beyond the last User.
USERS = 290


def config(users: int) -> Config:
    return Config(
        1e9, 9e8, allocations={f"User {number}": 1e5 for number in range(users)}, priority=["2.2"], burst_s=3600,
        max_users=400,
    )  # fmt: skip


def counted(mechanism: Mechanism) -> np.ndarray:
    return mechanism.engine.counts().copy()


def traffic(users: int, srvs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    return (
        drawn.integers(1, users + 1, REQUESTS).astype(np.uint32),
        drawn.integers(0, srvs, REQUESTS).astype(np.uint16),
    )


def exactly(users: np.ndarray, srvs: np.ndarray, shape: tuple[int, ...], listed: int) -> np.ndarray:
    """What must be counted: everybody is inside its allocation."""
    expected = np.zeros(shape, dtype=np.int64)
    np.add.at(expected, (users, srvs, int(Decision.WITHIN_ALLOCATION)), 1)
    expected[:, listed, Decision.PRIORITY] = expected[:, listed, Decision.WITHIN_ALLOCATION]
    expected[:, listed, Decision.WITHIN_ALLOCATION] = 0
    return expected


def test_odd_sizes_are_counted_exactly() -> None:
    """Four at a time, and what is left; Users up to the last of a run."""
    with Mechanism(config(USERS), start=0) as mechanism:
        listed, srvs = mechanism.srv("2.2"), len(mechanism.snapshot().srvs)
        for n in (*range(REQUESTS - 5, REQUESTS + 1), USERS * srvs // 2 + 1):
            asked, of = (part[:n] for part in traffic(USERS, srvs, n))
            before = counted(mechanism)
            answers = mechanism.admit_many(asked, of, now=0)
            assert (counted(mechanism) - before == exactly(asked, of, before.shape, listed)).all(), n
            assert ((answers == Decision.PRIORITY) == (of == listed)).all(), n


def test_one_by_one_is_counted_in_the_same_places() -> None:
    """Users of more than one tile, every SRV."""
    with Mechanism(config(USERS), start=0) as mechanism:
        listed, srvs = mechanism.srv("2.2"), len(mechanism.snapshot().srvs)
        asked, of = (part[:5_000] for part in traffic(USERS, srvs, 3))
        for user, srv in zip(asked.tolist(), of.tolist(), strict=True):
            mechanism.admit_at(user, srv, 0)
        found = counted(mechanism)
        assert (found == exactly(asked, of, found.shape, listed)).all()


def test_what_a_caller_writes_meanwhile_is_nobody_elses() -> None:
    """It writes a slot that does not exist while its batch is decided; later that slot does exist."""
    stop, absent = threading.Event(), USERS + 5
    with Mechanism(config(USERS), start=0) as mechanism:
        listed, srvs = mechanism.srv("2.2"), len(mechanism.snapshot().srvs)
        asked, of = traffic(USERS, srvs, 1)
        kept, sent, found, late = asked.copy(), 0, 0, time.monotonic() + 60

        def scribble() -> None:
            while not stop.is_set():
                asked[:] = absent
                asked[:] = kept

        writer = threading.Thread(target=scribble)
        writer.start()
        try:
            # Until some request got past the check and was written over before it was counted.
            while found == sent and time.monotonic() < late:
                try:
                    mechanism.admit_many(asked, of, now=0)
                except IndexError:
                    continue
                sent += REQUESTS
                found = int(counted(mechanism).sum())
        finally:
            stop.set()
            writer.join()
        assert found < sent, "no request was written over at the right moment in a minute"
        mechanism.apply(config(400), now=0)
        before = counted(mechanism)
        assert before[absent].sum() == 0, "nobody has asked for it while it was there"
        asked, of = traffic(400, srvs, 2)
        mechanism.admit_many(asked, of, now=0)
        assert (counted(mechanism) - before == exactly(asked, of, before.shape, listed)).all()
