"""The reserve a block grows in: how large it is, and that nothing at all happens where it is used up."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Config, Mechanism, MemoryLayoutError, engines
from tmm_core.operations.cli import main

from .configured import configured
from .written import written

pytestmark = pytest.mark.skipif(
    not hasattr(os, "SEEK_DATA"), reason="needs a shared block and holes in files"
)
#: The clock of all processes stands still here.
FROZEN = 10**12
RESERVE = 16_384


def config(path: Path, users: int, **changes: Any) -> Config:
    """Users "User 0", "User 1" and so on."""
    many = {f"User {number}": 1.0 for number in range(users)}
    return Config(
        200_000, 100_000, **{"allocations": many, "shared": str(path / "block"), "sharing": "none", **changes}
    )


def seen(mechanism: Mechanism) -> tuple[Any, ...]:
    """What a worker knows and holds: names, terms, counts, buckets."""
    snapshot = mechanism.snapshot(FROZEN)
    return (
        snapshot.version, snapshot.generation, snapshot.users, snapshot.counts.tolist(),
        [mechanism.engine.words(slot) for slot in range(len(snapshot.users))],
        mechanism.user("User 0"), mechanism.user(f"User {RESERVE}"),
    )  # fmt: skip


def work(path: Path, answer: Connection) -> None:
    """Be a worker: decide when asked to, and tell what is seen."""
    with Mechanism.open(config(path, 3), start=FROZEN) as mechanism:
        while True:
            for _ in range(answer.recv()):
                mechanism.admit_at(mechanism.user("User 0"), 5, FROZEN)
            answer.send(seen(mechanism))


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Connection]]:
    """Two workers in processes of their own; send a number of decisions, and they tell what they see."""
    context = multiprocessing.get_context("fork")
    ends, processes = [], []
    for _ in range(2):
        here, there = context.Pipe()
        processes.append(context.Process(target=work, args=(tmp_path, there), daemon=True))
        processes[-1].start()
        ends.append(here)
        here.send(10)
        here.recv()
    yield ends
    for process in processes:
        process.kill()
        process.join(30)


def told(workers: list[Connection], decisions: int = 0) -> list[Any]:
    for worker in workers:
        worker.send(decisions)
    return [worker.recv() for worker in workers]


def said(mechanism_path: Path, found: str, expected: str) -> str:
    """The whole message: what was found, what was expected, and what to do."""
    return re.escape(
        f"{mechanism_path / 'block'}: found slots for {found} Users, expected {expected} (a User that was ever named "
        "keeps its slot): stop the processes that use it, all at one time, and start them again: the first makes the "
        "block larger; nothing has to be removed, and nothing is lost"
    )


@pytest.mark.parametrize(
    ("users", "max_users", "reserve"),
    [(3, 0, 16_384), (2048, 0, 16_384), (3000, 0, 24_000), (3, 20_000, 20_000), (3, 5, 16_384)],
    ids=["few", "2048", "3000", "max-users", "small-max-users"],
)
def test_the_reserve_is_16384_or_eight_times_the_users_or_max_users(
    tmp_path: Path, users: int, max_users: int, reserve: int
) -> None:
    with Mechanism.open(config(tmp_path, users, max_users=max_users)) as mechanism:
        assert mechanism.block is not None
        assert mechanism.block.header.user_slots == reserve + 1, "and one slot for all unknown Users"


def test_more_users_than_the_reserve_holds_change_nothing_in_any_worker(
    tmp_path: Path, workers: list[Connection]
) -> None:
    with Mechanism.open(config(tmp_path, 3), start=FROZEN) as mechanism:
        before, here = told(workers), seen(mechanism)
        assert [worker[1] for worker in before] == [1, 1]
        block = written(tmp_path / "block")
        with pytest.raises(MemoryLayoutError, match=said(tmp_path, "16,384", "16,385")):
            mechanism.apply(config(tmp_path, RESERVE + 1))
        assert written(tmp_path / "block") == block, "no byte, no file and no memory"
        assert told(workers) == before
        assert seen(mechanism) == here
        # They go on: counts exact, and terms that do fit are put in force.
        told(workers, 5)
        assert mechanism.snapshot(FROZEN).counts.sum() == 2 * 10 + 2 * 5
        mechanism.apply(config(tmp_path, 4))
        assert [worker[1] for worker in told(workers)] == [2, 2]


def test_the_last_slot_of_the_reserve_is_given_away_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_SHARED_USERS", 300)
    with Mechanism.open(config(tmp_path, 3), start=FROZEN) as one, Mechanism.open(config(tmp_path, 3)) as two:
        one.apply(config(tmp_path, 300))
        assert two.user("User 299") == 300
        assert two.admit_at(300, 5, FROZEN)
        # None of the 300 is named any more, and still they keep their slots, with their counts.
        with pytest.raises(MemoryLayoutError, match=said(tmp_path, "300", "301")):
            two.apply(config(tmp_path, 0, allocations={"New Ltd": 1.0}))
        assert one.snapshot(FROZEN).generation == 2
        assert one.user("New Ltd") == 0
        assert one.snapshot(FROZEN).counts[300].sum() == 1


def test_a_new_worker_with_too_many_users_is_refused_and_leaves_no_slab(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = config(tmp_path, RESERVE + 1)
    with Mechanism.open(config(tmp_path, 3), start=FROZEN) as mechanism:
        assert mechanism.block is not None
        with pytest.raises(MemoryLayoutError, match=said(tmp_path, "16,384", "16,385")) as error:
            Mechanism.open(many, start=FROZEN)
        # While the error is kept, nothing has been collected: the slab was given back.
        assert error.value is not None
        assert not mechanism.block.is_alive(2)
        with (
            caplog.at_level(logging.ERROR),
            Mechanism.open(many, on_block_error="private", start=FROZEN) as alone,
        ):
            assert alone.block is None
            assert alone.user(f"User {RESERVE}") == RESERVE + 1
        assert "NOT SHARED" in caplog.text
        assert mechanism.snapshot(FROZEN).generation == 1


def test_tmm_apply_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allocate = configured(tmp_path)
    allocate(3)
    with Mechanism.open(tmp_path / "tmm.toml") as gateway:
        allocate(RESERVE + 1)
        assert main(["apply", str(tmp_path / "tmm.toml")]) == 1
        assert re.search(said(tmp_path, "16,384", "16,385"), capsys.readouterr().err)
        assert gateway.snapshot().generation == 1
        assert len(gateway.config.allocations) == 3
