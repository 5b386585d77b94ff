"""A block is succeeded by a larger one: every word carried over, nobody left behind, nothing where it may not be."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import HELD_BACK

from tmm_core import Config, ConfigError, Decision, Mechanism, MemoryLayoutError, engines, in_force
from tmm_core import mechanism as hall
from tmm_core.memory import SharedBlock
from tmm_core.policy.service_requests import srv_codes

from .larger import (
    FEW,
    FROZEN,
    MANY,
    PAIRS,
    RESERVE,
    SECOND,
    SIZES,
    config,
    decide,
    forked,
    lets_go,
    lived,
    seen,
    words_of,
)
from .written import written

pytestmark = [
    pytest.mark.skipif(
        not hasattr(os, "fork") or not hasattr(os, "SEEK_DATA"), reason="needs fork and a shared block"
    ),
]
OLDER = tuple(srv_codes())[:-3]


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_SHARED_USERS", RESERVE)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A package that knows three SRVs less; `undo` upgrades it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hall, "srv_codes", lambda: OLDER)
        patch.setattr(in_force, "srv_codes", lambda: OLDER)
        yield patch


# ---- what is carried over


def test_every_word_is_carried_over(tmp_path: Path, seed: int) -> None:
    now = lived(tmp_path, seed)
    with Mechanism.look(str(tmp_path / "block")) as before:
        assert before.block is not None
        old, told = words_of(before.block), seen(before, now)
        assert before.block.ready[1] >= 4
        # There is something of everything, or this shows nothing.
        assert old["Control.state"][0] > 1, "it was active"
        assert old["Control.backlog"] > [FROZEN * 128]
        pending = sum(old[f"slab {slab} head"][1] for slab in range(4))
        assert (pending > 0) == HELD_BACK, "units of the dead"
        assert all(
            any(units and any(by_srv) for units, *by_srv in old[f"slab {slab} counters {outcome}"])
            for slab in (1, 2, 3)
            for outcome in range(4)
        )
        assert all(any(old[f"slab {slab} head"][8:]) for slab in (1, 2, 3)), "differences"
        assert all(all(row[:2]) for row in old["Words"][1 : FEW + 1]), "both buckets"
        assert all(row[0] and row[5] for row in old["Aside"][1 : FEW + 1]), "retry slots, and candidates"
        with Mechanism.open(config(tmp_path, MANY), start=now) as mechanism:
            block = mechanism.block
            assert block is not None
            assert block.header.user_slots == 8 * MANY + 1
            assert block.header.block_id != before.block.header.block_id
            assert block.slabs == {1}, "the first dead worker's, adopted in the new block"
            new = words_of(block)
            adopted = new["slab 1 head"]
            assert adopted[0] != old["slab 1 head"][0]
            assert adopted[3] == old["slab 1 head"][3] + 1
            adopted[0], adopted[3] = (old["slab 1 head"][at] for at in (0, 3))
            half = new["Control.generation"][0] & 1
            assert new["Control.generation"][0] == old["Control.generation"][0] + 1
            for name in old:
                if name == "Control.generation" or name.removeprefix("Control.") in SIZES:
                    continue
                if name == "Control.settings":  # those of the generation before are as they were
                    words = len(old[name]) // 2
                    other = slice((1 - half) * words, (2 - half) * words)
                    assert new[name][other] == old[name][other]
                elif name == "services":
                    assert new[name][1 - half] == old[name][1 - half]
                elif name in PAIRS:
                    # What is there once, and of each pair the half of the generation before.
                    kept = [at for at in range(8) if at not in {pair + half for pair in PAIRS[name]}]
                    for was, now_is in zip(old[name][: FEW + 1], new[name], strict=False):
                        assert [now_is[at] for at in kept] == [was[at] for at in kept], name
                elif name.startswith("slab"):
                    assert new[name][: len(old[name])] == old[name], name
                else:
                    assert new[name] == old[name], name
            with Mechanism.look(str(tmp_path / "block")) as after:
                assert seen(after, now) == told
            assert mechanism.user(f"User {MANY - 1}") == MANY
        assert seen(before, now) == told, "the old mapping stays valid for who reads"
        assert len(list(tmp_path.iterdir())) == 2, "the block and the names of its terms"


@lets_go
def test_counters_of_many_users_are_carried_over(tmp_path: Path, seed: int) -> None:
    """They lie in tiles, and those of a larger block are for more Users."""
    drawn, rates = np.random.default_rng(seed), {f"User {number}": 0.01 for number in range(6000)}
    few = dict(list(rates.items())[:700])
    with Mechanism.open(
        config(tmp_path, allocations=few, candidate_allocations={}), start=FROZEN
    ) as mechanism:
        assert mechanism.block is not None
        fewer = mechanism.block.layout.tile_users(mechanism.block.header.user_slots)
        assert 2 * fewer < 700, "several tiles"
        for _ in range(40):
            users = drawn.integers(0, 701, 1000).astype(np.uint32)
            mechanism.admit_many(users, drawn.integers(0, 129, 1000).astype(np.uint16), now=FROZEN)
        before = mechanism.snapshot(FROZEN)
    with Mechanism.open(
        config(tmp_path, allocations=rates, candidate_allocations={}), start=FROZEN
    ) as mechanism:
        assert mechanism.block is not None
        assert mechanism.block.layout.tile_users(mechanism.block.header.user_slots) > fewer
        after = mechanism.snapshot(FROZEN)
        assert after.users[:701] == before.users
        assert (after.counts[:701] == before.counts).all()
        assert after.counts.sum() == before.counts.sum() == 40_000


@pytest.mark.parametrize("turn", range(3))
@lets_go
def test_a_run_with_a_larger_block_in_it_decides_as_one_on_a_large_block(
    tmp_path: Path, turn: int, seed: int
) -> None:
    answers = []
    for place, max_users in (("grows", 0), ("large", 8 * MANY)):
        path = tmp_path / place
        path.mkdir()
        source, now, told = random.Random(seed + turn), FROZEN, []
        for users in (FEW, FEW, MANY, MANY, FEW):
            with Mechanism.open(config(path, users, max_users=max_users), start=now) as mechanism:
                got, now = decide(mechanism, source, now, 1500)
                told.append((got, seen(mechanism, now)))
            now += source.choice((0, SECOND, 20 * SECOND))
        answers.append(told)
    assert answers[0] == answers[1]
    kinds = {answer for part, _ in answers[0] for answer in part if isinstance(answer, Decision)}
    assert kinds == set(Decision)


@lets_go
def test_a_package_with_more_srvs_has_them_in_the_block_when_nobody_counts(
    tmp_path: Path, older: pytest.MonkeyPatch, seed: int
) -> None:
    with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        _, now = decide(mechanism, random.Random(seed), FROZEN)
        assert mechanism.srv(srv_codes()[-1]) == 0
        before, names = seen(mechanism, now), mechanism.snapshot(now).srvs
    older.undo()
    new = srv_codes()[-1]
    wanted = config(tmp_path, priority=["7.4", new], costs={"4.8.1": 4, srv_codes()[-2]: 3})
    with Mechanism.open(wanted, start=now) as mechanism:
        assert mechanism.snapshot(now).srvs == [*names, *srv_codes()[-3:]], (
            "old numbers stay, new ones are behind"
        )
        assert seen(mechanism, now) == before
        assert mechanism.admit_at(mechanism.user("User 1"), mechanism.srv(new), now) is Decision.PRIORITY
        assert mechanism.explain("User 1", srv_codes()[-2], now=now).user == "User 1"
        assert mechanism.engine.peek(1, mechanism.srv(srv_codes()[-2]), now)["cost"] == 3
        assert mechanism.snapshot(now).counts[mechanism.user("User 1"), mechanism.srv(new)].tolist() == [
            0,
            0,
            0,
            1,
        ]
        assert mechanism.block is not None
        assert mechanism.block.header.user_slots == RESERVE + 1, "no more Users, no larger reserve"


@lets_go
def test_srvs_stay_unknown_while_an_older_worker_counts_and_the_log_says_so(
    tmp_path: Path, older: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Mechanism.open(config(tmp_path), start=FROZEN) as old:
        assert old.block is not None
        older.undo()
        with caplog.at_level(logging.WARNING), Mechanism.open(config(tmp_path), start=FROZEN) as new:
            assert new.block is not None
            assert new.block.header.block_id == old.block.header.block_id
            assert new.srv(srv_codes()[-1]) == 0
        assert caplog.messages == [
            (
                f"{tmp_path / 'block'}: 3 SRVs of this package are unknown to the block, and count as unknown ones, "
                "until all workers have been stopped once"
            )
        ]
        with pytest.raises(
            ConfigError, match=r"not known to the processes that share the block: stop them all"
        ):
            Mechanism.open(config(tmp_path, priority=[srv_codes()[-1]]), start=FROZEN)
    with Mechanism.open(config(tmp_path, priority=[srv_codes()[-1]]), start=FROZEN) as new:
        assert new.srv(srv_codes()[-1]) == len(srv_codes())


# ---- where somebody counts


@lets_go
def test_a_worker_prevents_it_and_nothing_changes(tmp_path: Path) -> None:
    with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        mechanism.admit_at(1, 5, FROZEN)
        before = written(tmp_path / "block")
        with pytest.raises(
            MemoryLayoutError, match=r"all at one time, and start them again.*nothing is lost"
        ):
            Mechanism.open(config(tmp_path, MANY), start=FROZEN)
        with pytest.raises(MemoryLayoutError, match="found slots for 300 Users, expected 350"):
            mechanism.apply(config(tmp_path, MANY))
        assert written(tmp_path / "block") == before, "no byte, no file and no memory"
    with Mechanism.open(config(tmp_path, MANY), start=FROZEN) as mechanism:
        assert mechanism.snapshot(FROZEN).counts.sum() == 1, "nothing was lost, and nothing removed"


def test_a_worker_without_a_slab_of_its_own_prevents_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_SHARED_SLABS", (2, 2))
    first = Mechanism.open(config(tmp_path), start=FROZEN)
    with Mechanism.open(config(tmp_path), start=FROZEN) as second:
        first.close()
        assert second.block is not None
        assert second.block.slabs == frozenset(), "it counts in the common slab"
        with pytest.raises(MemoryLayoutError, match="found slots for 300 Users"):
            Mechanism.open(config(tmp_path, MANY), start=FROZEN)


def test_a_slab_with_an_owner_prevents_it_whatever_else_it_holds(tmp_path: Path) -> None:
    Mechanism.open(config(tmp_path), start=FROZEN).close()
    owner = SharedBlock.join(str(tmp_path / "block"), engines.layout())
    assert owner.claim() == 1
    with pytest.raises(MemoryLayoutError, match="found slots for 300 Users"):
        Mechanism.open(config(tmp_path, MANY), start=FROZEN)
    owner.release()
    Mechanism.open(config(tmp_path, MANY), start=FROZEN).close()


def test_a_forked_child_that_has_not_decided_yet_prevents_it(tmp_path: Path) -> None:
    """Its parent has gone, and it has no slab: but it may decide at any time, in the block it has."""
    (here, there), (ready, go) = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        mechanism = Mechanism.open(config(tmp_path), start=FROZEN)
        child = os.fork()
        if child == 0:
            os.write(there, b"%10d" % os.getpid())
            os.read(ready, 1)
            mechanism.admit_at(1, 5, FROZEN)
            os.write(there, b"%10d" % mechanism.snapshot(FROZEN).counts.sum())
            signal.pause()
        os._exit(0)
    os.waitpid(parent, 0)
    child = int(os.read(here, 10))
    try:
        with pytest.raises(MemoryLayoutError, match="found slots for 300 Users"):
            Mechanism.open(config(tmp_path, MANY), start=FROZEN)
        os.write(go, b"!")
        assert int(os.read(here, 10)) == 1
        with pytest.raises(MemoryLayoutError, match="found slots for 300 Users"):
            Mechanism.open(config(tmp_path, MANY), start=FROZEN)
    finally:
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
    with Mechanism.open(config(tmp_path, MANY), start=FROZEN) as mechanism:
        assert mechanism.snapshot(FROZEN).counts.sum() == 1


def test_children_of_a_worker_in_the_larger_block_count_there(tmp_path: Path) -> None:
    lived(tmp_path, 1)
    with Mechanism.open(config(tmp_path, MANY), start=FROZEN) as mechanism:
        before = mechanism.snapshot(FROZEN).counts.sum()
        for _ in range(3):
            forked(lambda: [mechanism.admit_at(MANY, 5, FROZEN) for _ in range(5)])
        assert mechanism.snapshot(FROZEN).counts.sum() == before + 15


@pytest.mark.parametrize("turn", range(5))
def test_processes_that_start_at_once_end_in_one_block(tmp_path: Path, turn: int) -> None:
    """One makes it larger, the others wait for it, those whose configuration would have fitted among them."""
    lived(tmp_path, turn)
    with Mechanism.look(str(tmp_path / "block")) as before:
        counted = before.snapshot(FROZEN).counts.sum()

    def work(wanted: Config) -> None:
        for _ in range(2000):
            with suppress(MemoryLayoutError), Mechanism.open(wanted, start=FROZEN) as mechanism:
                for _ in range(10):
                    mechanism.admit_at(1, 5, FROZEN)
                return
            time.sleep(0.01)  # one that fitted was there first, and ends soon
        raise AssertionError("others count for ever")

    go, start = os.pipe()
    children = []
    for k in range(6):
        child = os.fork()
        if child == 0:
            try:
                os.close(start)
                os.read(go, 1)
                work(config(tmp_path, MANY if k < 4 else FEW))
                os._exit(0)
            finally:
                os._exit(70)
        children.append(child)
    os.close(start)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(go)
    with Mechanism.look(str(tmp_path / "block")) as after:
        assert after.block is not None
        assert after.snapshot(FROZEN).counts.sum() == counted + 60
        assert after.block.header.user_slots == 8 * MANY + 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_opened_the_path_before_the_rename_joins_the_larger_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(tmp_path, 2)
    enter, turns = SharedBlock.enter, []

    def late(block: Any) -> bool:
        if not turns:
            turns.append(block.header.block_id)
            forked(lambda: Mechanism.open(config(tmp_path, MANY), start=FROZEN))
        turns.append(block.header.block_id)
        return enter(block)

    monkeypatch.setattr(SharedBlock, "enter", late)
    with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        assert mechanism.block is not None
        assert mechanism.block.header.block_id != turns[0]
        assert mechanism.block.header.user_slots == 8 * MANY + 1
        assert mechanism.block.has_its_name


# ---- where it cannot be


@lets_go
def test_a_full_disk_leaves_the_old_block_in_force(tmp_path: Path) -> None:
    folder, mount = tmp_path / "disk", shutil.which("mount")
    folder.mkdir()
    if mount is None or os.geteuid():
        pytest.skip("mounting a small disk needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no small disk")
    try:
        with Mechanism.open(config(folder), start=FROZEN) as mechanism:
            mechanism.admit_at(1, 5, FROZEN)
        before = written(folder / "block")
        (folder / "fill").write_bytes(bytes(shutil.disk_usage(folder).free - 1_000_000))
        with pytest.raises(MemoryLayoutError, match=r"no room for .* bytes more: .* are free: give it more"):
            Mechanism.open(config(folder, MANY), start=FROZEN)
        assert written(folder / "block") == before
        with Mechanism.open(config(folder), start=FROZEN) as mechanism:
            assert mechanism.snapshot(FROZEN).counts.sum() == 1
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@lets_go
def test_a_folder_that_may_not_be_written_to_leaves_the_old_block_in_force() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Mechanism.open(config(folder), start=FROZEN) as mechanism:
            mechanism.admit_at(1, 5, FROZEN)
        nobody = 65534 if os.geteuid() == 0 else os.geteuid()
        if os.geteuid() == 0:
            for each in folder.iterdir():
                os.chown(each, nobody, -1)
        folder.chmod(0o555)
        before = written(folder / "block")

        def without_rights() -> None:
            os.setresuid(nobody, nobody, nobody)
            with pytest.raises(MemoryLayoutError, match=r"block: cannot be made in .*: Permission denied"):
                Mechanism.open(config(folder, MANY), start=FROZEN)
            with Mechanism.open(config(folder), start=FROZEN) as mechanism:
                assert mechanism.snapshot(FROZEN).counts.sum() == 1

        child = os.fork()
        if child == 0:
            try:
                without_rights()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(70)
        try:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert written(folder / "block").keys() == before.keys()
        finally:
            folder.chmod(0o755)


@lets_go
def test_srvs_that_find_no_room_do_not_keep_a_worker_from_starting(
    tmp_path: Path,
    older: pytest.MonkeyPatch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Mechanism.open(config(tmp_path), start=FROZEN).close()
    older.undo()

    def full(*_: Any) -> None:
        raise MemoryLayoutError("no room")

    monkeypatch.setattr("tmm_core.memory.files.allocate", full)
    with caplog.at_level(logging.WARNING), Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        assert mechanism.srv(srv_codes()[-1]) == 0
        assert "3 SRVs of this package are unknown to the block" in caplog.text
        assert "until it can be made larger: no room" in caplog.text
    with pytest.raises(MemoryLayoutError, match="no room"):
        Mechanism.open(config(tmp_path, MANY), start=FROZEN)
