"""Real processes: workers that share a block, and `tmm watch`, killed at any moment; the log is exact in the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tmm_core import EventLogError, Mechanism
from tmm_core.operations.event_log.files import LogSet, files_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no block shared by processes")

_TOML = """\
[capacity]
system_capacity = 2500
operating_threshold = 2000
[mechanism]
hold_s = 0.2
[files]
allocations = "allocations.csv"
event_log = "{log}"
[state]
shared = "{block}"
"""
_ALLOCATIONS = """\
user,category,user_ids,allocation
Northern Energy,large-supplier,90-B3-D5-1F-30-01-00-00,900
Southern Energy,small-supplier,90-B3-D5-1F-30-02-00-00,500
"""
#: A worker: bursts of three times the threshold, and pauses.
_WORKER = """\
import random, sys, time
from tmm_core import Mechanism
mechanism = Mechanism.open(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
users = [mechanism.user(name) for name in ("Northern Energy", "Southern Energy", "nobody")]
srvs = [mechanism.srv(code) for code in ("4.1.1", "4.8.1", "7.4", "9.9")]
print("ready", flush=True)
while True:
    until = time.monotonic() + rng.uniform(0.2, 1.0)
    while time.monotonic() < until:
        for _ in range(30):
            mechanism.admit(rng.choice(users), rng.choice(srvs))
        time.sleep(0.005)
    time.sleep(rng.uniform(0.1, 1.0))
"""


class Host:
    """A host's configuration, workers and watcher."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.toml, self.log, self.block = folder / "tmm.toml", folder / "events.db", str(folder / "block")
        (folder / "allocations.csv").write_text(_ALLOCATIONS)
        self.toml.write_text(_TOML.format(log=self.log, block=self.block))
        self.rng = random.Random(seed)
        self.running: list[subprocess.Popen[str]] = []

    def _start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def worker(self) -> subprocess.Popen[str]:
        process = self._start("-c", _WORKER, str(self.toml), str(self.rng.randrange(10**6)))
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        return process

    def watcher(self) -> subprocess.Popen[str]:
        process = self._start("-m", "tmm_core", "watch", str(self.toml))
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "watching" in line, line + process.stderr.read()
        return process

    def end(self, process: subprocess.Popen[str], number: int) -> str:
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
        self.running.remove(process)
        return said

    def close(self) -> None:
        for process in list(self.running):
            with contextlib.suppress(Exception):
                self.end(process, signal.SIGKILL)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with LogSet([self.log]) as logs:
            return [tuple(row) for _, row in logs.rows(query)]

    def wait_for_a_commit(self) -> None:
        """Wait until the watcher has written something; it fails the test after half a minute."""
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            with contextlib.suppress(EventLogError):  # a file that is being made
                if files_of(self.log) and self.rows("SELECT count(*) FROM commits")[0][0]:
                    return
            time.sleep(0.05)
        raise AssertionError("the watcher has written nothing")

    def counted(self) -> dict[tuple[str, str], list[int]]:
        """What is in the block, as the engine says."""
        with Mechanism.look(self.block) as mechanism:
            snapshot = mechanism.snapshot()
        return {
            (user, srv): row
            for user, rows in zip(snapshot.users, snapshot.counts.tolist(), strict=True)
            for srv, row in zip(snapshot.srvs, rows, strict=True)
            if any(row)
        }


@pytest.fixture
def host(tmp_path: Path, seed: int) -> Iterator[Host]:
    made = Host(tmp_path, seed)
    yield made
    made.close()


@pytest.mark.timeout(170)
@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_a_soak_with_kills_leaves_the_log_equal_to_the_engine(host: Host, kills: int) -> None:
    workers = [host.worker(), host.worker()]
    for turn in range(kills):
        watcher = host.watcher()
        if turn == 0:
            host.wait_for_a_commit()
        time.sleep(host.rng.uniform(0.3, 2.5))
        host.end(watcher, signal.SIGKILL)
        if turn % 3 == 1:
            host.end(workers.pop(0), signal.SIGKILL)
            workers.append(host.worker())
    last = host.watcher()
    time.sleep(1.5)
    for worker in workers:
        host.end(worker, signal.SIGKILL)
    assert "all is flushed" in host.end(last, signal.SIGTERM)
    counted = host.counted()
    throttled = sum(row[0] for row in counted.values())
    assert throttled > 50, "there was overload"
    for table in ("minute_counts", "day_counts"):
        query = (
            f"SELECT name, code, sum(throttled), sum(spare), sum(within), sum(priority) FROM {table}"
            " JOIN users USING (user) JOIN srvs USING (srv) GROUP BY name, code"
        )
        assert {(row[0], row[1]): list(row[2:]) for row in host.rows(query)} == counted, table
    assert host.rows("SELECT sum(throttled) FROM event_users") == [(throttled,)]
    with LogSet([host.log]) as logs:
        events = logs.events()
    with Mechanism.look(host.block) as mechanism:
        snapshot = mechanism.snapshot()
    assert [event["number"] for event in events] == list(range(1, snapshot.activations + 1))
    still_open = [event["number"] for event in events if event["ended_ms"] is None]
    assert still_open in ([], [snapshot.activations]) and len(still_open) == int(snapshot.active)
    numbers = [row[0] for row in host.rows("SELECT seq FROM commits ORDER BY seq")]
    assert numbers == list(range(1, len(numbers) + 1))
    ends = host.rows("SELECT count(*) FROM faults WHERE kind = 'unclean-end'")
    # The first was killed after a commit; one killed before its first leaves no trace, and needs none.
    assert 1 <= ends[0][0] <= kills
    with sqlite3.connect(files_of(host.log)[0]) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_two_watchers_of_one_host_write_one_log(host: Host) -> None:
    worker = host.worker()
    first, second = host.watcher(), host.watcher()
    time.sleep(1.5)
    host.end(first, signal.SIGKILL)
    time.sleep(2.5)
    host.end(worker, signal.SIGKILL)
    assert "all is flushed" in host.end(second, signal.SIGTERM)
    total = sum(sum(row) for row in host.counted().values())
    assert host.rows("SELECT sum(throttled + spare + within + priority) FROM day_counts") == [(total,)]
    assert len(host.rows("SELECT DISTINCT source_id FROM sources")) == 1
    gone = host.rows("SELECT detail FROM faults WHERE kind = 'worker-died'")
    assert [f"process {worker.pid} " in row[0] for row in gone] in ([], [True]), (
        "told if it was looked at in between"
    )


def test_what_a_watcher_needs_is_told(tmp_path: Path) -> None:
    toml = tmp_path / "tmm.toml"
    toml.write_text("[capacity]\nsystem_capacity = 2\noperating_threshold = 1\n")
    command = [sys.executable, "-m", "tmm_core", "watch", str(toml)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "[state] shared" in done.stderr
    assert os.listdir(tmp_path) == ["tmm.toml"], "nothing was made"


@pytest.mark.timeout(60)
def test_the_live_page_looks_at_the_block_of_the_workers(host: Host) -> None:
    worker = host.worker()
    page = host._start("-m", "tmm_core", "serve", str(host.toml), "--port", "0")
    assert page.stderr is not None
    line = page.stderr.readline()
    assert "live page at http://127.0.0.1:" in line, line
    address = line.split()[-1]
    reading: dict[str, Any] = {}
    for _ in range(100):
        with urllib.request.urlopen(f"{address}state.json", timeout=10) as answer:
            reading = json.loads(answer.read() or b"{}")
        if reading.get("offered"):
            break
        time.sleep(0.1)
    assert reading["threshold"] == 2000 and reading["offered"] > 0
    assert {"Northern Energy", "Southern Energy"} <= {row["user"] for row in reading["users"]}
    host.end(page, signal.SIGTERM)
    assert page.returncode == 0
    host.end(worker, signal.SIGKILL)
