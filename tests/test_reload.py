"""Following the configuration files: whole or not at all, at the right moment, and never a dead gateway."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tmm_core import Config, Decision, Mechanism
from tmm_core.errors import ConfigError, MemoryLayoutError
from tmm_core.policy import config_files
from tmm_core.reload import KINDS, Reload, Reloader

SECOND = 1_000_000_000
TOML = """\
[capacity]
system_capacity = 250
operating_threshold = 200
[files]
allocations = "allocations"
priority_list = "priority-list.toml"
"""
LIST = 'version = "1"\napproved_by = "SEC Panel"\nsrvs = ["7.4"]\n'
HEADER = "user,category,user_ids,allocation\n"


class World:
    """A folder of configuration files, a wall clock, a Mechanism on a clock of its own, and its Reloader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
        self.stamp = 1_000_000
        self.told: list[Reload] = []
        (folder / "allocations").mkdir()
        self.write("tmm.toml", TOML)
        self.write("priority-list.toml", LIST)
        self.allocations("2026-11-01", 20)
        self.mechanism = Mechanism(Config.load(folder / "tmm.toml", on=self.at.date()), start=0)
        self.reloader = self.another()

    def another(self, mechanism: Mechanism | None = None) -> Reloader:
        """Return a Reloader, as another worker has it."""
        return Reloader(mechanism or self.mechanism, tell=self.told.append, clock=lambda: self.at)

    def write(self, name: str, text: str) -> None:
        """Put a file in its place, with a time of its own: a test is faster than a file system's clock."""
        part = self.folder / "part"
        part.write_text(text, encoding="utf-8")
        self.stamp += 1
        os.utime(part, (self.stamp, self.stamp))
        os.replace(part, self.folder / name)

    def allocations(self, day: str, north: float) -> None:
        self.write(f"allocations/{day}.csv", f"{HEADER}North,other,,{north}\nSouth,other,,10\n")

    def look(self, after_s: float = 1.0) -> list[str]:
        """Let time pass and look; returns the kinds of what came of it."""
        self.at += timedelta(seconds=after_s)
        return [each.kind for each in self.reloader.look()]

    @property
    def north(self) -> float:
        return self.mechanism.config.allocations["North"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_files_that_do_not_change_do_nothing(world: World) -> None:
    assert [world.look() for _ in range(5)] == [[]] * 5
    assert world.told == []


def test_an_edit_is_applied_when_it_has_been_still_for_one_look(world: World) -> None:
    world.look()
    world.allocations("2026-11-01", 30)
    assert world.look() == []  # perhaps still being written
    world.allocations("2026-11-01", 35)
    assert world.look() == []  # it was
    assert world.look() == ["applied"]
    assert world.north == 35
    assert world.look() == []


@pytest.mark.parametrize("name", ["tmm.toml", "priority-list.toml"])
def test_every_file_is_followed(world: World, name: str) -> None:
    world.look()
    text = (world.folder / name).read_text()
    world.write(name, text.replace("250", "300").replace('"7.4"', '"7.4", "2.2"'))
    world.look()
    assert world.look() == ["applied"]


def test_f8_a_dated_file_comes_into_force_at_midnight_utc_of_its_first_day(world: World) -> None:
    world.look()
    world.allocations("2026-12-01", 50)
    world.look()
    assert world.look() == ["scheduled"]
    assert world.reloader.ready is not None
    assert world.reloader.ready[0].isoformat() == "2026-12-01"
    world.at = datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    assert world.look(after_s=0) == []
    assert world.north == 20
    assert world.look(after_s=0.000_001) == ["applied"]
    assert world.north == 50
    assert world.told[-1].message.endswith("allocations of 2026-12-01")


def test_at_midnight_nothing_is_read_any_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.allocations("2026-12-01", 50)
    world.look()
    world.at = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    order: list[str] = []
    load, apply = Config.load.__func__, Mechanism.apply  # type: ignore[attr-defined]

    def loading(cls: type[Config], *args: Any, **options: Any) -> Config:
        order.append(f"load {options['on']}")
        return load(cls, *args, **options)

    def applying(self: Mechanism, *args: Any, **options: Any) -> None:
        order.append("apply")
        apply(self, *args, **options)

    monkeypatch.setattr(Config, "load", classmethod(loading))
    monkeypatch.setattr(Mechanism, "apply", applying)
    assert world.look() == ["applied"]
    assert order == ["apply", "load 2026-12-02"]  # the day after only when the work is done


def test_all_workers_change_at_the_same_moment_and_the_second_one_finds_it_done(world: World) -> None:
    world.allocations("2026-12-01", 50)
    second = world.another()
    world.look()
    second.look()
    world.at = datetime(2026, 12, 1, tzinfo=UTC)
    assert [each.kind for each in world.reloader.look()] == ["applied"]
    version = world.mechanism.config.version
    assert second.look() == []  # told once a Mechanism, not once a worker
    assert world.mechanism.config.version == version


@pytest.mark.skipif(sys.platform == "win32", reason="no shared block on Windows")
def test_over_a_shared_block_one_worker_applies_and_all_have_it_at_that_moment(world: World) -> None:
    block = world.folder / "block"
    world.write("tmm.toml", TOML + f"[state]\nshared = '{block}'\n")
    # Mechanism.open reads the real day, so the days here lie about it on both sides.
    (world.folder / "allocations" / "2026-11-01.csv").rename(world.folder / "allocations" / "2000-01-01.csv")
    world.allocations("2999-12-01", 50)
    world.at = datetime(2999, 11, 30, 12, tzinfo=UTC)
    with Mechanism.open(world.folder / "tmm.toml") as one, Mechanism.open(world.folder / "tmm.toml") as two:
        assert one.block is not None and two.block is not None
        first, second = world.another(one), world.another(two)
        first.look()
        second.look()
        world.told.clear()
        world.at = datetime(2999, 12, 1, tzinfo=UTC)
        assert [each.kind for each in first.look()] == ["applied"]
        assert two.config.allocations["North"] == 50  # before its own thread woke
        generation = two.engine.generation
        assert second.look() == []
        assert two.engine.generation == generation
        assert [each.kind for each in world.told] == ["applied"]


@pytest.mark.parametrize(
    ("at", "wait_s"),
    [("12:00:00", 1.0), ("23:59:59.750", 0.25), ("23:59:58.999", 1.0), ("00:00:00", 1.0)],
)
def test_the_thread_wakes_at_midnight(world: World, at: str, wait_s: float) -> None:
    world.at = datetime.fromisoformat(f"2026-11-30T{at}+00:00")
    assert world.reloader.wait_s() == pytest.approx(wait_s, abs=1e-9)


def test_buckets_and_counts_survive_a_change(world: World) -> None:
    mechanism = world.mechanism
    north, srv = mechanism.user("North"), mechanism.srv("4.1.1")
    outcomes = [mechanism.admit_at(north, srv, 0) for _ in range(25)]
    # 20 a second with a burst of one second: the bucket at rest admits 21, then none
    assert outcomes.count(Decision.WITHIN_ALLOCATION) == 21
    world.look()
    world.allocations("2026-11-01", 40)
    world.look()
    assert world.look() == ["applied"]
    counts = mechanism.snapshot().counts
    assert counts[north].sum() == 25
    # The bucket is a second ahead as before, and not full: at 40 a second it admits none at this instant more
    # than the one its tolerance leaves.
    again = [mechanism.admit_at(north, srv, 0) for _ in range(25)]
    assert again.count(Decision.WITHIN_ALLOCATION) <= 1
    assert mechanism.admit_at(north, srv, SECOND) is Decision.WITHIN_ALLOCATION


def test_a_bad_file_keeps_the_last_good_one_and_is_told_with_every_mistake(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.look()
    version = world.mechanism.config.version
    world.write("allocations/2026-11-01.csv", f"{HEADER}North,others,,-1\nSouth,other,,x\n")
    world.look()
    with caplog.at_level(logging.INFO, "tmm_core.reload"):
        assert world.look() == ["refused"]
    [refused] = world.told
    assert world.mechanism.config.version == version == refused.version
    assert len(refused.mistakes) == 3
    assert "2026-11-01.csv:2" in refused.message
    assert refused.message.endswith("(and 2 more)")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert [world.look() for _ in range(3)] == [[]] * 3  # told once, not each second
    world.allocations("2026-11-01", 25)
    world.look()
    assert world.look() == ["applied"]
    assert world.north == 25


@pytest.mark.parametrize("error", [MemoryLayoutError("no room"), OSError("no files left"), MemoryError()])
def test_what_could_not_be_put_in_force_at_midnight_is_tried_again_within_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world.allocations("2026-12-01", 50)
    world.look()
    world.at = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    with monkeypatch.context() as patch:
        patch.setattr(Mechanism, "apply", Mock(side_effect=error))
        if isinstance(error, MemoryError):
            with pytest.raises(MemoryError):
                world.look()  # the thread logs it and goes on
        else:
            assert world.look()[0] == "refused"
            assert [world.look() for _ in range(130)] == [[]] * 130, "told once, tried twice more"
    assert [kind for _ in range(60) for kind in world.look()] == ["applied"]
    assert world.north == 50


def test_a_file_that_could_not_be_read_is_read_again_within_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.look()
    world.allocations("2026-11-01", 30)
    world.look()
    with monkeypatch.context() as patch:
        fault = ConfigError("2026-11-01.csv: cannot be read: Too many open files")
        patch.setattr(config_files, "read_file", Mock(side_effect=fault))
        assert world.look() == ["refused"]
    assert [kind for _ in range(60) for kind in world.look()] == ["applied"] and world.north == 30


def test_a_mistake_is_told_once_an_edit(world: World) -> None:
    world.look()
    for _ in range(2):
        world.allocations("2026-11-01", -1)
        assert [kind for _ in range(300) for kind in world.look()] == ["refused"]
    assert [each.kind for each in world.reloader.reload()] == ["refused"], "who asks is told"


@pytest.mark.parametrize("day", ["2026-11-01", "2026-12-01"])
def test_a_file_half_written_at_the_first_look_is_read_again_and_not_told(world: World, day: str) -> None:
    world.write(f"allocations/{day}.csv", f"{HEADER}North,other")
    assert world.look() == []
    world.allocations(day, 33)
    assert world.look() == []
    assert world.look() == ["applied" if day == "2026-11-01" else "scheduled"]
    assert [each.kind for each in world.told].count("refused") == 0


def test_a_file_wrong_at_the_first_look_is_told_when_it_has_been_still_for_one(world: World) -> None:
    world.write("allocations/2026-11-01.csv", f"{HEADER}North,other")
    assert [world.look() for _ in range(4)] == [[], ["refused"], [], []]
    assert world.north == 20


def test_a_file_half_written_at_midnight_is_read_again_and_not_told(world: World) -> None:
    world.allocations("2026-12-01", 50)
    world.look()
    world.at = datetime(2026, 11, 30, 23, 59, 59, 500_000, tzinfo=UTC)
    assert world.look(after_s=0) == []
    world.write("allocations/2026-12-01.csv", f"{HEADER}North,other")
    assert world.look(after_s=0.5) == []
    assert world.north == 20
    world.allocations("2026-12-01", 60)
    assert world.look() == []
    assert world.look() == ["applied"]
    assert world.north == 60


def write_during_the_next_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the allocations be 35 before the next read of the files returns, once."""
    load = Config.load.__func__  # type: ignore[attr-defined]

    def load_and_be_late(cls: type[Config], *args: Any, **options: Any) -> Config:
        try:
            config: Config = load(cls, *args, **options)
        finally:
            monkeypatch.undo()
            world.allocations("2026-11-01", 35)
        return config

    monkeypatch.setattr(Config, "load", classmethod(load_and_be_late))


def test_a_file_that_is_completed_while_it_is_read_is_not_told_as_wrong(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.look()
    world.write("allocations/2026-11-01.csv", f"{HEADER}North,other")
    world.look()
    write_during_the_next_read(world, monkeypatch)
    assert [world.look() for _ in range(3)] == [[], [], ["applied"]]
    assert world.north == 35


@pytest.mark.parametrize("name", ["tmm.toml", "priority-list.toml", "allocations/2026-11-01.csv"])
def test_a_file_that_vanishes_changes_nothing(world: World, name: str) -> None:
    world.look()
    before = world.mechanism.config
    (world.folder / name).rename(world.folder / "elsewhere")
    world.look()
    assert world.look() == ["refused"]
    assert world.mechanism.config is before
    (world.folder / "elsewhere").rename(world.folder / name)
    world.look()
    assert world.look() == []  # back, and what it says is in force


def test_a_mistake_in_the_file_of_the_next_day_is_told_the_day_before(world: World) -> None:
    world.look()
    world.write("allocations/2026-12-01.csv", f"{HEADER}North,other,,500\n")  # above the threshold of 200
    world.look()
    assert world.look() == ["refused"]
    assert "from 2026-12-01 on is refused" in world.told[-1].message
    world.at = datetime(2026, 12, 1, tzinfo=UTC)
    assert world.look(after_s=0) == ["refused"]
    assert world.north == 20
    world.allocations("2026-12-01", 60)
    world.look()
    assert world.look() == ["applied"]
    assert world.north == 60


def test_too_many_new_users_are_refused_and_the_old_ones_stay(world: World) -> None:
    slots = world.mechanism.engine.user_slots
    rows = "".join(f"User {number},other,,0.01\n" for number in range(slots + 1))
    world.look()
    world.write("allocations/2026-11-01.csv", HEADER + rows)
    world.look()
    assert "refused" in world.look()
    assert world.north == 20


def test_a_file_that_changes_while_it_is_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.look()
    write_during_the_next_read(world, monkeypatch)
    world.allocations("2026-11-01", 30)
    world.look()
    assert world.look() == []
    assert world.north == 20
    kinds = [kind for _ in range(2) for kind in world.look()]
    assert kinds == ["applied"]
    assert world.north == 35


def test_a_reload_that_is_asked_for_does_not_wait_and_says_if_nothing_changed(world: World) -> None:
    world.look()
    world.allocations("2026-11-01", 30)
    assert [each.kind for each in world.reloader.reload()] == ["applied"]
    assert [each.kind for each in world.reloader.reload()] == ["unchanged"]
    assert {each.kind for each in world.told} <= set(KINDS)


def test_a_clock_set_back_over_midnight_does_not_bring_yesterday_back(world: World) -> None:
    world.allocations("2026-12-01", 50)
    world.at = datetime(2026, 12, 1, tzinfo=UTC)
    assert world.look(after_s=0) == ["applied"]
    world.at = datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC)
    assert [world.look(after_s=1) for _ in range(3)] == [[]] * 3
    assert world.north == 50
    world.at = datetime(2026, 11, 20, tzinfo=UTC)  # set right, by days
    world.look(after_s=0)
    assert world.north == 20


def test_days_that_nobody_looked_on_are_caught_up_with(world: World) -> None:
    world.look()
    for month in (12, 1, 2):
        world.allocations(f"{2026 if month == 12 else 2027}-{month:02d}-01", 20 + month)
    world.at = datetime(2027, 2, 14, tzinfo=UTC)
    world.look(after_s=0)
    assert world.north == 22


def test_what_only_counts_at_the_start_is_said(world: World) -> None:
    world.look()
    world.write("tmm.toml", TOML + '[cluster]\nurl = "redis://127.0.0.1:6379/0"\n')
    world.look()
    assert world.look() == ["applied"]
    assert world.told[-1].message.endswith("; not before the next start: cluster_url")


def test_who_is_told_and_fails_does_no_harm(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail(reload: Reload) -> None:
        raise RuntimeError("the pager is broken")

    reloader = Reloader(world.mechanism, tell=fail, clock=lambda: world.at)
    reloader.look()
    world.allocations("2026-11-01", 30)
    assert [each.kind for each in reloader.reload()] == ["applied"]
    assert world.north == 30
    assert "the reload could not be told" in caplog.text


def test_a_configuration_made_in_memory_has_no_file_to_follow() -> None:
    with pytest.raises(ConfigError, match="there is no file to follow"):
        Reloader(Mechanism(Config(10, 5), start=0))


def test_it_follows_from_a_thread_and_stops(world: World) -> None:
    applied = threading.Event()
    told: list[str] = []

    def tell(each: Reload) -> None:
        told.append(each.kind)
        if each.kind == "applied":
            applied.set()

    reloader = Reloader(world.mechanism, clock=lambda: world.at, poll_s=0.005, tell=tell)
    with reloader:
        reloader.start()  # once is enough
        assert sum(thread.name == "tmm-reload" for thread in threading.enumerate()) == 1
        world.allocations("2026-11-01", 33)
        assert applied.wait(20)
    assert world.north == 33
    assert told == ["applied"]
    assert not any(thread.name == "tmm-reload" for thread in threading.enumerate())
    reloader.stop()


def test_a_thread_that_meets_a_defect_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    enough = threading.Event()

    def broken(self: Reloader) -> list[Reload]:
        looks.append(1)
        if len(looks) > 2:
            enough.set()
        raise ZeroDivisionError

    monkeypatch.setattr(Reloader, "look", broken)
    with Reloader(world.mechanism, clock=lambda: world.at, poll_s=0.001):
        assert enough.wait(20)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this platform")
def test_sighup_asks_for_a_reload_and_reaches_who_was_there_before(world: World) -> None:
    heard: list[int] = []
    told = threading.Event()
    previous = signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    try:
        reloader = Reloader(
            world.mechanism, clock=lambda: world.at, poll_s=0.005, tell=lambda each: told.set()
        )
        reloader.on_sighup()
        with reloader:
            signal.raise_signal(signal.SIGHUP)
            assert told.wait(20)  # "unchanged" is only told if it was asked for
        assert heard == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_candidate_is_followed_and_changes_no_version(world: World) -> None:
    world.look()
    version = world.mechanism.config.version
    world.write("next.csv", f"{HEADER}North,other,,5\nSouth,other,,10\n")
    world.write("tmm.toml", TOML.replace("[files]\n", '[files]\ncandidate_allocations = "next.csv"\n'))
    assert world.look() == []
    assert world.look() == ["applied"]
    first = world.mechanism.config.candidate_version
    assert first
    assert first in world.told[-1].message
    world.write("next.csv", f"{HEADER}North,other,,6\nSouth,other,,10\n")
    assert world.look() == []
    assert world.look() == ["applied"]
    assert world.mechanism.config.candidate_version not in ("", first)
    world.write("next.csv", f"{HEADER}North,other,,x\n")
    world.look()
    assert world.look() == ["refused"]
    assert world.mechanism.config.candidate_allocations == {"North": 6.0, "South": 10.0}
    assert world.mechanism.config.version == version
