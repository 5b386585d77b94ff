"""Two processes on one block: how much more they decide together than one alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure import FLOORS, calls

from tmm_core import Config, Mechanism

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a shared block and fork")

DECISIONS = 200_000
BARE = 1_500_000
ROUNDS = 40
#: From the call to the start of a round: time for both workers to be there, spinning.
AHEAD_NS = 2_000_000
OWN, SAME, APART, BARE_LOOP = "a User of its own", "one User", "a block of its own", "a bare bucket"
#: The rounds, in turn: who runs, and what each decides for.
SIDES = {
    "first": ((0,), OWN), "both": ((0, 1), OWN), "second": ((1,), OWN), "same": ((0, 1), SAME),
    "apart first": ((0,), APART), "apart both": ((0, 1), APART), "apart second": ((1,), APART),
    "bare first": ((0,), BARE_LOOP), "bare both": ((0, 1), BARE_LOOP), "bare second": ((1,), BARE_LOOP),
}  # fmt: skip


def config(path: Path) -> Config:
    """Two Users who stay inside their allocations."""
    return Config(
        2e8,
        1e8,
        allocations={"Northern Energy": 1e6, "Hydra Ltd": 1e6},
        burst_s=3600,
        shared=str(path / "block"),
    )


def work(path: Path, own: str, bare: Callable[..., object], commands: Connection) -> None:
    """Be a worker: run what is asked for at the time that is named; answer with both times it took."""
    (path / own).mkdir()
    with Mechanism.open(config(path)) as mechanism, Mechanism.open(config(path / own)) as apart:
        srv, words = mechanism.srv("4.1.1"), np.zeros(64, dtype=np.int64)
        runs = {
            OWN: calls(mechanism.admit, mechanism.user(own), srv, n=DECISIONS),
            SAME: calls(mechanism.admit, mechanism.user("Northern Energy"), srv, n=DECISIONS),
            APART: calls(apart.admit, apart.user(own), srv, n=DECISIONS),
            BARE_LOOP: calls(bare, words, 128, 1 << 60, BARE, False, n=1),
        }
        gc.disable()
        commands.send(True)
        while True:
            what, start = commands.recv()
            while time.monotonic_ns() < start:
                pass
            began = time.process_time_ns()
            runs[what]()
            used = time.process_time_ns() - began
            # From the start that was named: who comes late, or is not let run, has taken longer.
            commands.send((time.monotonic_ns() - start, used))


@contextmanager
def working(path: Path, bare: Callable[..., object]) -> Iterator[list[Connection]]:
    """Two workers, ready."""
    context = multiprocessing.get_context("fork")
    ends, processes = [], []
    try:
        for own in ("Northern Energy", "Hydra Ltd"):
            here, there = context.Pipe()
            processes.append(context.Process(target=work, args=(path, own, bare, there), daemon=True))
            processes[-1].start()
            ends.append(here)
            assert answer(here)
        yield ends
    finally:
        for process in processes:
            process.kill()
            process.join(30)


def answer(worker: Connection) -> Any:
    """Wait for a worker, not for ever."""
    assert worker.poll(60), "a worker has not answered for 60 s"
    return worker.recv()


def times(workers: list[Connection]) -> dict[str, tuple[float, float]]:
    """Of each side the fastest round by the clock on the wall, and the least processor time of a worker's (ns)."""
    best = dict.fromkeys(SIDES, (float("inf"), float("inf")))
    for number in range(ROUNDS + 1):
        for side, (who, what) in SIDES.items():
            start = time.monotonic_ns() + AHEAD_NS
            for worker in who:
                workers[worker].send((what, start))
            took = [answer(workers[worker]) for worker in who]
            if number:
                # Together they are as slow as the slower one.
                wall, used = (max(each[kind] for each in took) for kind in (0, 1))
                best[side] = min(best[side][0], wall), min(best[side][1], used)
    return best


def gain(best: dict[str, tuple[float, float]], both: str, first: str, second: str, kind: int) -> float:
    """How many times the work of one is done by two in the same time, whichever of them is the one."""
    return (best[first][kind] + best[second][kind]) / best[both][kind]


def test_two_processes(floors: Any, tmp_path: Path, judge: Callable[..., None], benchmark: Any) -> None:
    """One process alone, two at once and two bare loops in turn: the Python loop, the clock and all counts included.

    By the clock on the wall, from a start both wait for; and by the processor time the slower one used, which
    is what they cost each other by lines of memory that move between cores.
    """
    with working(tmp_path, floors.bare_bucket) as workers:
        best = times(workers)
    benchmark.pedantic(lambda: None, rounds=1)
    apart = gain(best, "apart both", "apart first", "apart second", 0)
    bare = gain(best, "bare both", "bare first", "bare second", 0)
    wall, used = (gain(best, "both", "first", "second", kind) for kind in (0, 1))
    same = gain(best, "same", "first", "second", 0)
    benchmark.extra_info.update({"bare": bare, "wall": wall, "used": used, "same": same})
    shares_nothing = f"{apart:.2f} times with a block each, {bare:.2f} times bare loops in C"
    if min(apart, bare) < FLOORS["two_processes"]["at_least"]:
        pytest.skip(
            f"no two idle cores: two processes that share nothing do the work of one {shares_nothing}; on one block "
            f"{wall:.2f} times, {used:.2f} by processor time, {same:.2f} on one User"
        )
    alone = (best["first"][0] + best["second"][0]) / 2 / DECISIONS
    judge(
        "two_processes", "two processes on different Users", wall, f"{wall:.2f} times one alone",
        f"one alone {alone:.0f} ns a decision; {shares_nothing}",
    )  # fmt: skip
    judge(
        "two_processes_used", "two processes on different Users, by processor time", used,
        f"{used:.2f} times one alone", "the processor time of the slower one",
    )  # fmt: skip
    judge(
        "two_processes_one_user", "two processes on one User", same, f"{same:.2f} times one alone",
        "both charge one bucket: its line moves between the cores at every decision",
    )  # fmt: skip
