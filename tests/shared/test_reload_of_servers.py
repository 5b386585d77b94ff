"""Editing the allocations under real workers: they all follow, none goes back, and buckets survive."""

from __future__ import annotations

import json
import os
import time
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


def test_all_workers_follow_an_edited_file_and_buckets_survive(tmp_path: Path) -> None:
    need("gunicorn")
    toml, allocations, port = tmp_path / "tmm.toml", tmp_path / "allocations.csv", free_port()
    toml.write_text(TOML, encoding="utf-8")
    allocations.write_text(ROW.format(rate=10), encoding="utf-8")
    old = Config.load(toml).version
    command = f"gunicorn --workers {WORKERS} --bind 127.0.0.1:{port} --no-control-socket shared.followed:wsgi"

    def ask(path: str = "/version") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(post(port, b"", path=path).body)
        return found

    def workers() -> dict[int, str]:
        """The version each worker tells; several asked at once, lest one answers all."""
        replies = [json.loads(reply.body) for reply in post_many(port, [b""] * 16, path="/version")]
        return {told["worker"]: told["version"] for told in replies}

    with running(module(*command.split()), port, log=tmp_path / "log", env={"TMM_TEST_TOML": str(toml)}):
        # A burst of 1 s of 10 units per second, and one: 11 are inside the allocation.
        assert [ask("/")["decision"] for _ in range(12)] == ["WITHIN_ALLOCATION"] * 11 + ["SPARE_CAPACITY"]
        assert set(workers().values()) == {old}
        draft = tmp_path / "draft"
        draft.write_text(ROW.format(rate=20), encoding="utf-8")
        os.replace(draft, allocations)
        new = Config.load(toml).version
        told: dict[int, str] = {}
        seen: list[str] = []
        deadline = time.monotonic() + 20
        while len(told) < WORKERS and time.monotonic() < deadline:
            # One request after the other: what one worker has put in force, all have.
            seen.append(ask()["version"])
            if seen[-1] == new:
                told |= workers()
                assert set(told.values()) == {new}, (
                    "once one worker tells the new version, none tells the old one"
                )
        assert len(told) == WORKERS, (tmp_path / "log").read_text(errors="replace")[-2000:]
        assert seen == sorted(seen, key=[old, new].index)
        # The bucket is 1.1 s ahead, above 1 s of burst, as it was; a new one would admit 21.
        assert ask("/")["decision"] == "SPARE_CAPACITY"
