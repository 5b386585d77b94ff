"""New allocations under real workers, edited or at midnight: all follow at one moment, and buckets survive."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from gateway.servers import free_port, module, need, post, post_many, running

from tmm_core import Config

pytestmark = pytest.mark.timeout(90)

TOML = """\
[capacity]
system_capacity = 20000
operating_threshold = 10000
[files]
allocations = "allocations.csv"
[state]
shared = "./block"
"""
ROW = "user,category,user_ids,allocation\nNorthern Energy,large-supplier,,{rate}\n"
WORKERS = 2


class Servers:
    """Workers that follow the files of a folder, and what they tell."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str = "/version") -> dict[str, Any]:
        """Ask one worker, whichever it is."""
        found: dict[str, Any] = json.loads(post(self.port, b"", path=path).body)
        return found

    def workers(self) -> dict[int, dict[str, Any]]:
        """What each worker tells; several asked at once, lest one answers all."""
        replies = [json.loads(reply.body) for reply in post_many(self.port, [b""] * 16, path="/version")]
        return {told["worker"]: told for told in replies}

    def versions(self) -> set[str]:
        return {told["version"] for told in self.workers().values()}

    def await_all(self, is_so: Callable[[dict[str, Any]], bool]) -> None:
        """Ask until every worker has told that it is so."""
        so: set[int] = set()
        deadline = time.monotonic() + 40
        while len(so) < WORKERS:
            assert time.monotonic() < deadline, f"{len(so)} of {WORKERS} workers"
            so |= {worker for worker, told in self.workers().items() if is_so(told)}

    def await_version(self, old: str, new: str) -> None:
        """Ask until all workers tell the new version: what one worker has put in force, all have at that moment."""
        seen: list[str] = []
        told: set[int] = set()
        deadline = time.monotonic() + 40
        while len(told) < WORKERS:
            assert time.monotonic() < deadline, seen[-5:]
            # One request after the other: were one worker later than another, an old version would follow a new one.
            seen.append(self.ask()["version"])
            if seen[-1] == new:
                workers = self.workers()
                assert {each["version"] for each in workers.values()} == {new}, (
                    "once one worker tells the new version, none tells the old one"
                )
                told |= set(workers)
        assert seen == sorted(seen, key=[old, new].index)


@contextmanager
def servers(toml: Path, **env: str) -> Iterator[Servers]:
    need("gunicorn")
    port, log = free_port(), toml.with_name("log")
    command = f"gunicorn --workers {WORKERS} --bind 127.0.0.1:{port} --no-control-socket shared.followed:wsgi"
    with running(module(*command.split()), port, log=log, env={"TMM_TEST_TOML": str(toml), **env}):
        yield Servers(port)


def put(path: Path, text: str) -> None:
    """Put a file in its place whole."""
    draft = path.with_name("draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def test_all_workers_follow_an_edited_file_and_buckets_survive(tmp_path: Path) -> None:
    toml, allocations = tmp_path / "tmm.toml", tmp_path / "allocations.csv"
    put(toml, TOML)
    put(allocations, ROW.format(rate=10))
    old = Config.load(toml).version
    with servers(toml) as gateway:
        # A burst of 1 s of 10 units per second, and one: 11 are inside the allocation.
        assert [gateway.ask("/")["decision"] for _ in range(12)] == ["WITHIN_ALLOCATION"] * 11 + [
            "SPARE_CAPACITY"
        ]
        assert gateway.versions() == {old}
        put(allocations, ROW.format(rate=20))
        gateway.await_version(old, Config.load(toml).version)
        # The bucket is 1.1 s ahead, above 1 s of burst, as it was; a new one would admit 21.
        assert gateway.ask("/")["decision"] == "SPARE_CAPACITY"


def test_f8_a_dated_file_comes_into_force_at_midnight_in_all_workers_at_one_moment(tmp_path: Path) -> None:
    toml, clock, folder = tmp_path / "tmm.toml", tmp_path / "clock", tmp_path / "allocations"
    put(toml, TOML.replace("allocations.csv", "allocations"))
    folder.mkdir()
    # A worker starts with what is in force on the real day; the days that follow are the test's.
    put(folder / "2000-01-01.csv", ROW.format(rate=10))
    put(folder / "2999-12-01.csv", ROW.format(rate=20))
    put(clock, "2999-11-30T23:59:58+00:00")
    old, new = (Config.load(toml, on=date.fromisoformat(day)).version for day in ("2999-11-30", "2999-12-01"))
    assert old != new
    with servers(toml, TMM_TEST_CLOCK=str(clock)) as gateway:
        assert [gateway.ask("/")["decision"] for _ in range(12)] == ["WITHIN_ALLOCATION"] * 11 + [
            "SPARE_CAPACITY"
        ]
        gateway.await_all(lambda told: told["reloads"] == ["scheduled"])  # read and checked ahead of time
        generation = gateway.ask()["generation"]
        put(clock, "2999-11-30T23:59:59.999999+00:00")
        assert gateway.versions() == {old}
        put(clock, "2999-12-01T00:00:00+00:00")
        gateway.await_version(old, new)
        generations = {told["generation"] for told in gateway.workers().values()}
        assert generations == {generation + 1}, "one worker applies, the others find it done"
        # 20 units per second now; the bucket is 1.1 s ahead as it was.
        assert gateway.ask("/")["decision"] == "SPARE_CAPACITY"
