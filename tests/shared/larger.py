"""A block with a small reserve and a history, and what is in every word of it: for the tests of larger blocks."""

from __future__ import annotations

import os
import random
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import HELD_BACK

from tmm_core import Config, Decision, Mechanism
from tmm_core.memory import SharedBlock

#: The clock of all processes stands still here, unless a test moves it.
FROZEN = 10**12
SECOND = 10**9
RESERVE = 300
FEW, MANY = 4, RESERVE + 50
#: Words that say how large the block is.
SIZES = ("user_slots", "srv_slots", "slab_slots", "nbytes")
#: For tests that close a Mechanism and go on in the same process as if its worker had ended.
lets_go = pytest.mark.skipif(
    not HELD_BACK, reason="without a GIL a closed Mechanism keeps its slab: a thread may still count in it"
)
#: Where, in a User's two lines, there is something for each of two generations.
PAIRS = {"Words": (2, 4, 6), "Aside": (3, 6)}


def config(path: Path, users: int = FEW, **changes: Any) -> Config:
    """Users "User 0" to "User 3" with 5, 6, 7, 8 units per second, then 0.01; by the candidate half, and none."""
    many = {f"User {number}": 5.0 + number if number < FEW else 0.01 for number in range(users)}
    half = {
        name: rate / 2 for name, rate in list(many.items())[:FEW]
    }  # with more Users it is the same candidate
    values: dict[str, Any] = {
        "allocations": many, "candidate_allocations": half, "priority": ["7.4"], "costs": {"4.8.1": 4},
        "activation_s": 0.8, "shared": str(path / "block"),
    }  # fmt: skip
    return Config(200_000, 200, **{**values, **changes})


def decide(
    mechanism: Mechanism, source: random.Random, now: int, requests: int = 2000
) -> tuple[list[Any], int]:
    """Decide at random for seconds, in and over the allocation, one by one and in batches, with retry slots taken."""
    users = [mechanism.user(f"User {number}") for number in range(FEW)] + [0]
    srvs = [mechanism.srv(code) for code in ("4.1.1", "4.8.1", "7.4", "2.2")] + [0]
    told: list[Any] = []
    for _ in range(requests):
        now += source.randrange(2_000_000)
        user, srv = source.choice(users), source.choice(srvs)
        decision = mechanism.admit_at(user, srv, now)
        told.append(decision)
        if decision is Decision.THROTTLED:
            told.append(mechanism.retry_after(user, now))
        if source.random() < 0.02:
            n = source.randrange(1, 100)
            batch = mechanism.admit_many(
                np.array(source.choices(users, k=n), np.uint32), np.array(source.choices(srvs, k=n), np.uint16),
                now=now,
            )  # fmt: skip
            told.append(batch.tolist())
    return told, now


def forked(act: Callable[[], object]) -> int:
    """Let a child of this process act, and be killed at the end of it."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(70)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return child


def lived(path: Path, seed: int, **changes: Any) -> int:
    """Make a block with a history of three workers that were killed; returns the time at its end."""
    source = random.Random(seed)
    ends = [FROZEN + k * 8 * SECOND for k in range(4)]

    def worker(k: int) -> None:
        others = [
            Mechanism.open(config(path, **changes), start=ends[k]) for _ in range(k)
        ]  # they have slabs 1 to k
        with Mechanism.open(config(path, **changes), start=ends[k]) as mechanism:
            assert mechanism.block is not None
            assert mechanism.block.slabs == {k + 1}
            _, now = decide(mechanism, source, ends[k])
            while HELD_BACK and not words_of(mechanism.block)[f"slab {k + 1} head"][1]:
                mechanism.admit_at(
                    1, mechanism.srv("7.4"), now
                )  # it dies with units that it has not charged yet
            os.kill(os.getpid(), signal.SIGKILL)
        del others

    for k in range(3):
        forked(lambda k=k: worker(k))  # type: ignore[misc]
    return ends[3]


def words_of(block: SharedBlock) -> dict[str, Any]:
    """Every word that has memory, by its name and not by its place."""
    layout, header, (users, slabs) = block.layout, block.header, block.ready
    size, srvs = layout.words, header.srv_slots
    control = block.memory[: size["Control"]].view(np.int64).copy()
    found: dict[str, Any] = {
        name: control[offset // 8 : _end(size, offset) // 8].tolist()
        for name, offset in size.items()
        if name.startswith("Control.")
    }
    services = block.memory[size["Control"] : size["Control"] + 8 * srvs].view(np.uint32).reshape(2, srvs)
    found["services"] = services.tolist()
    (_, words), (aside, _) = layout.base_ranges(header.user_slots, srvs, 0)
    for name, begin in (("Words", words), ("Aside", aside)):
        rows = block.memory[begin : begin + users * size[name]].view(np.int64).reshape(users, -1)
        found[name] = rows.tolist()
    for slab in range(slabs):
        head, *counts = layout.slab_ranges(header.user_slots, srvs, slab, users)
        begin, nbytes = head
        found[f"slab {slab} head"] = block.memory[begin : begin + nbytes].view(np.int64).tolist()
        for outcome, (begin, nbytes) in enumerate(counts):
            width = layout.tile_users(header.user_slots)
            cells = block.memory[begin : begin + nbytes].view(np.int64)
            tiles = cells.reshape(-1, 1 + srvs, width + size["LINE"] // 8)
            rows = [tiles[user // width, :, user % width].tolist() for user in range(users)]
            found[f"slab {slab} counters {outcome}"] = rows
    return found


def digest_of(block: SharedBlock) -> int:
    """A number that changes with any byte that has memory."""
    layout, header, (users, slabs) = block.layout, block.header, block.ready
    ranges = layout.base_ranges(header.user_slots, header.srv_slots, users)
    for slab in range(slabs):
        ranges += layout.slab_ranges(header.user_slots, header.srv_slots, slab, users)
    digest = zlib.crc32(block._words.tobytes())
    for begin, nbytes in ranges:
        digest = zlib.crc32(block.memory[begin : begin + nbytes], digest)
    return digest


def _end(size: Any, offset: int) -> int:
    ends = sorted([*(at for name, at in size.items() if name.startswith("Control.")), size["Control"]])
    return int(next(at for at in ends if at > offset))


def seen(mechanism: Mechanism, now: int) -> dict[str, Any]:
    """What a block tells that does not change by being made larger, of the first Users and SRVs."""
    snapshot, engine = mechanism.snapshot(now), mechanism.engine
    state = engine.state(now)
    users = [user for user in snapshot.users if snapshot.counts[snapshot.users.index(user)].any()]
    slots = [snapshot.users.index(user) for user in users]
    return {
        "state": {name: value for name, value in state.items() if name != "generation"},
        "counts": {
            (user, srv): snapshot.counts[slot, number].tolist()
            for slot, user in zip(slots, users, strict=True)
            for number, srv in enumerate(snapshot.srvs)
            if snapshot.counts[slot, number].any()
        },
        "units": engine.units()[slots].tolist(),
        "differences": engine.differences()[slots].tolist(),
        "candidate": None if snapshot.candidate is None else snapshot.candidate.units[slots].tolist(),
        "words": [engine.words(slot) for slot in slots],
        "excess": engine.excess()[slots].tolist(),
    }  # fmt: skip
