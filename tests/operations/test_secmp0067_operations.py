"""SECMP0067, F11: events are logged in the Technical Operations Centre, Users are notified of throttling and kept
informed of its frequency and duration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tmm_core.operations.cli import main
from tmm_core.operations.notify import Notifier
from tmm_core.operations.senders import FileDrop, folder_name

from .world import NORTH, SOUTH, World


def test_f11_events_are_logged_and_users_are_told_of_frequency_and_duration(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop = FileDrop(tmp_path / "notices")
    watcher = world.watch()
    watcher.step()
    notifier = Notifier(world.path, drop, watcher.put)
    # Two overloads by one User, with quiet in between; the other User is inside its allocation.
    for _ in range(2):
        world.overload(5, watcher)
        notifier.step(world.at_ms())
        world.quiet(30, watcher)
        notifier.step(world.at_ms())
    watcher.flush()

    # The events are in the log, with beginning, end, reason and Users: what the TOC reads.
    assert main(["events", str(world.path), "--kind", "began", "--kind", "ended", "--json"]) == 0
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["kind"] for each in logged] == ["began", "ended"] * 2
    for began in logged[::2]:
        assert [each["user"] for each in began["data"]["over_allocation"]] == [NORTH]
        assert began["data"]["began_offered_load"] > began["data"]["operating_threshold"]

    # The User that was throttled has been told of each event, its duration and its own figures, and the log says so.
    folder = tmp_path / "notices" / folder_name(NORTH)
    ended = [json.loads(file.read_text()) for file in sorted(folder.glob("*-ended-*.json"))]
    assert len(ended) == len(list(folder.glob("*-began-*.json"))) == 2, "frequency: a notice for each event"
    assert [each["duration_s"] * 1000 for each in ended] == [
        each["data"]["duration_ms"] for each in logged[1::2]
    ]
    slot = world.mechanism.user(NORTH)
    throttled = int(world.mechanism.snapshot(world.now).counts[slot, :, 0].sum())
    assert sum(each["service_requests"]["throttled"] for each in ended) == throttled > 0
    assert world.rows("SELECT DISTINCT state FROM notifications") == [("sent",)]
    # The one that was not throttled has not been bothered.
    assert not (tmp_path / "notices" / folder_name(SOUTH)).exists()
