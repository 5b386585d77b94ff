"""Who only looks at a block when a larger one succeeds it: told, and led on; nothing is booked twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Mechanism, MemoryLayoutError, engines
from tmm_core import mechanism as hall
from tmm_core.operations.cli import main
from tmm_core.operations.events import EventLog
from tmm_core.operations.watch import Watcher, source_of

from .configured import configured
from .larger import FEW, MANY, RESERVE, config, forked, lets_go, lived, seen

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked here")


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_SHARED_USERS", RESERVE)


def test_who_looks_at_the_old_block_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = lived(tmp_path, 3)
    with Mechanism.look(str(tmp_path / "block")) as eye:
        assert eye.block is not None
        assert not eye.block.succeeded
        before, source = seen(eye, now), source_of(eye, 0)
        assert caplog.messages == []
        with Mechanism.open(config(tmp_path, MANY), start=now) as mechanism:
            assert mechanism.admit_at(1, 5, now) is not None
            assert eye.block.succeeded
            assert int(eye.block._words[2]), "the word in its header, whatever became of the name"
            assert seen(eye, now) == before
            told = [
                message
                for message in caplog.messages
                if "has been succeeded by another of its name" in message
            ]
            assert len(told) == 1, "once"
            # For the event log it is one life: what was booked is not booked again.
            assert replace(source_of(mechanism, 0), pid=0) == replace(source, pid=0)
            with Mechanism.look(str(tmp_path / "block")) as anew:
                assert anew.snapshot(now).counts.sum() == mechanism.snapshot(now).counts.sum()
                assert anew.block is not None
                assert not anew.block.succeeded


def test_the_event_log_goes_on_where_the_old_block_ended(tmp_path: Path) -> None:
    now, log, block = lived(tmp_path, 4), tmp_path / "events.db", str(tmp_path / "block")

    def watched() -> tuple[int, int]:
        """Book what is new; returns the requests in the log, and those counted."""
        with Mechanism.look(block) as eye:
            watcher = Watcher(eye, log)
            watcher.step()
            watcher.flush()
            watcher.close()
            with EventLog(log, at_ms=int(time.time() * 1000)) as events:
                booked, _ = events.totals(source_of(eye, 0).source_id)
            return sum(map(sum, booked.values())), int(eye.snapshot(now).counts.sum())

    booked, counted = watched()
    assert booked == counted > 5000
    with Mechanism.open(config(tmp_path, MANY), start=now) as mechanism:
        for _ in range(7):
            mechanism.admit_at(MANY, 5, now)
    assert watched() == (counted + 7, counted + 7), "nothing twice"


def test_tmm_status_live_follows_to_the_larger_block(tmp_path: Path) -> None:
    now = lived(tmp_path, 5)
    command = [
        sys.executable,
        "-m",
        "tmm_core",
        "status",
        "--block",
        str(tmp_path / "block"),
        "--live",
        "--json",
    ]
    with subprocess.Popen([*command, "--every", "0.05"], stdout=subprocess.PIPE, text=True) as live:
        ends = threading.Timer(30, live.kill)
        ends.start()
        try:
            assert live.stdout is not None
            first = json.loads(live.stdout.readline())
            with Mechanism.open(config(tmp_path, MANY), start=now) as mechanism:
                mechanism.admit_at(MANY, mechanism.srv("7.4"), now)
                wanted, later = (MANY, first["counts"]["PRIORITY"] + 1), first
                while (later["users"], later["counts"]["PRIORITY"]) != wanted:
                    later = json.loads(live.stdout.readline())
                assert later["workers"]["slabs_alive"] == 1
        finally:
            ends.cancel()
            live.kill()


@pytest.mark.parametrize("users", [FEW + 1, MANY + 1], ids=["that-fits-the-old-one", "that-does-not"])
def test_a_change_of_who_looks_goes_to_the_larger_block(tmp_path: Path, users: int) -> None:
    now = lived(tmp_path, 3)
    with Mechanism.look(str(tmp_path / "block"), change=True) as operator:
        forked(lambda: Mechanism.open(config(tmp_path, MANY), start=now))
        operator.apply(config(tmp_path, users), now=now)
        assert operator.block is not None
        assert not operator.block.succeeded
        with Mechanism.look(str(tmp_path / "block")) as eye:
            assert eye.user(f"User {users - 1}") == users
            assert eye.snapshot(now).generation == operator.snapshot(now).generation


def test_a_change_is_refused_where_a_larger_block_succeeds_in_between(tmp_path: Path) -> None:
    now = lived(tmp_path, 3)
    with (
        Mechanism.look(str(tmp_path / "block"), change=True) as operator,
        pytest.MonkeyPatch.context() as patch,
    ):
        generation = operator.engine.generation

        def late(*_: Any) -> bool:
            patch.undo()
            forked(lambda: Mechanism.open(config(tmp_path, MANY), start=now))
            return False

        patch.setattr(hall, "enlarge", late)
        with pytest.raises(MemoryLayoutError, match="has succeeded this one just now: apply again"):
            operator.apply(config(tmp_path, FEW + 1), now=now)
        assert operator.engine.generation == generation, "the old one stays as it was"


@lets_go
def test_tmm_apply_makes_the_block_larger_where_no_gateway_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allocate = configured(tmp_path)
    allocate(FEW)
    with Mechanism.open(tmp_path / "tmm.toml") as gateway:
        gateway.admit(1, 5)
        allocate(MANY)
        assert main(["apply", str(tmp_path / "tmm.toml")]) == 1
        assert "the first makes the block larger" in capsys.readouterr().err
    assert main(["apply", str(tmp_path / "tmm.toml")]) == 0
    assert "(generation 2)" in capsys.readouterr().out
    with Mechanism.open(tmp_path / "tmm.toml") as gateway:
        assert gateway.user(f"User {MANY - 1}") == MANY
        assert gateway.snapshot().counts.sum() == 1
