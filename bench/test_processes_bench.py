"""Two processes on one block: how much more they decide together than one alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tmm_core import Config, Mechanism

DECISIONS = 400_000
ROUNDS = 7


def _worker(path: Path, name: str, ready: int, go: int, done: int) -> None:
    config = _config(path)
    with Mechanism.open(config) as mechanism:
        user, srv, admit = mechanism.user(name), mechanism.srv("4.1.1"), mechanism.admit
        for _ in range(20_000):
            admit(user, srv)
        while True:
            os.write(ready, b"r")
            if os.read(go, 1) != b"g":
                return
            began = time.process_time_ns()
            for _ in range(DECISIONS):
                admit(user, srv)
            os.write(done, (time.process_time_ns() - began).to_bytes(8, "little"))


def _config(path: Path) -> Config:
    return Config(
        2e8,
        1e8,
        allocations={"Northern Energy": 1e6, "Hydra Ltd": 1e6},
        burst_s=3600,
        shared=str(path / "block"),
    )


def _rate(path: Path, names: list[str]) -> float:
    """Decisions per second of all workers together: the median of the rounds."""
    pipes, children = [], []
    for name in names:
        ready, go, done = os.pipe(), os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _worker(path, name, ready[1], go[0], done[1])
            finally:
                os._exit(0)
        pipes.append((ready[0], go[1], done[0]))
        children.append(child)
    rates = []
    for _ in range(ROUNDS):
        for ready, _, _ in pipes:
            os.read(ready, 1)
        for _, go, _ in pipes:
            os.write(go, b"g")
        took = [int.from_bytes(os.read(done, 8), "little") for _, _, done in pipes]
        rates.append(sum(DECISIONS / ns * 1e9 for ns in took))
    for (_, go, _), child in zip(pipes, children, strict=True):
        os.write(go, b"e")
        os.waitpid(child, 0)
    return float(np.median(rates))


@pytest.mark.skipif(not hasattr(os, "fork") or (os.cpu_count() or 1) < 2, reason="needs fork and two cores")
def test_two_processes_on_different_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Includes the Python loop, the clock and all counts.

    Rates are per second of a process's own processor time: what others do on the machine is not in them, and on
    idle cores it is the time of the clock on the wall. What two processes cost each other, by lines of memory
    that move between cores, is in them as far as both do run at once.
    """
    alone = _rate(tmp_path, ["Northern Energy"])
    both = _rate(tmp_path, ["Northern Energy", "Hydra Ltd"])
    same = _rate(tmp_path, ["Northern Energy", "Northern Energy"])
    with capsys.disabled():
        print(
            f"\none process {alone / 1e6:.1f} million a second; two on different Users {both / alone:.2f} times, "
            f"two on one User {same / alone:.2f} times ({same / 1e6:.1f} million a second)"
        )
    assert both / alone >= 1.9 or os.getloadavg()[0] > 2
