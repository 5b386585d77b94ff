"""The watcher: what the engine counted is in the log to the unit, whatever happens to clock, log and process."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tmm_core import Mechanism, PriorityList
from tmm_core.errors import EventLogError
from tmm_core.gateway import desk
from tmm_core.operations import watch
from tmm_core.operations.cli import main
from tmm_core.operations.event_log.files import files_of, keep_within, months_between
from tmm_core.operations.watch import Watcher, WatchSettings

from .conftest import MakeWorld
from .world import NORTH, SOUTH, World, ms, small_config


def test_counts_in_the_log_are_the_engines_to_the_unit(world: World, seed: int) -> None:
    rng = random.Random(seed)
    watcher = world.watch()
    pairs = [(user, srv) for user in (NORTH, SOUTH, "nobody") for srv in ("4.1.1", "4.8.1", "7.4", "9.9")]
    for _ in range(60):
        rates = {pair: rng.choice((0.0, 3.0, 40.0, 150.0)) for pair in rng.sample(pairs, 4)}
        world.traffic(rng.choice((0.1, 1.0, 7.0)), rates)
        watcher.step()
    watcher.flush()
    world.assert_log_equals_engine()
    assert world.rows("SELECT * FROM faults WHERE kind NOT IN ('gap', 'healed')") == []
    assert world.rows("SELECT code FROM srvs WHERE code = '(unknown)'")
    assert world.rows("SELECT name FROM users WHERE name = 'nobody'") == [], "unknown Users share one name"


def test_an_event_is_logged_with_its_times_its_reason_and_its_users(world: World) -> None:
    watcher = world.watch()
    world.quiet(5, watcher)
    began_after = world.at_ms()
    world.overload(10, watcher)
    ended_after = world.at_ms()
    world.quiet(20, watcher)
    watcher.flush()
    (event,) = world.events()
    assert event["number"] == 1 and event["mode"] == "enforce"
    assert event["version"] == world.mechanism.config.version
    # 208 units per second into 100: the backlog passes 25 units after 0.23 s, less a charge block.
    assert began_after < event["began_ms"] < began_after + 500
    assert event["began_exact"] == 1 and event["ended_exact"] == 1
    assert ended_after < event["ended_ms"] < ended_after + 10_000
    assert event["duration_ms"] == event["ended_ms"] - event["began_ms"]
    assert (event["operating_threshold"], event["release_threshold"]) == (100.0, 95.0)
    assert event["began_backlog_s"] > 0.05, (
        "0.25 s when it began; when it was seen the brake had held it down"
    )
    assert event["began_offered_load"] > 100 and event["offered_max"] > 190
    users = {
        row[0]: row[1:]
        for row in world.rows(
            "SELECT name, allocation, over_at_beginning, throttled, throttled_seconds, began_offered"
            " FROM event_users JOIN users USING (user)"
        )
    }
    assert users[NORTH][:2] == (30.0, 1) and users[NORTH][2] > 500 and users[NORTH][3] in (10, 11)
    assert 190 < users[NORTH][4] < 210
    assert users[SOUTH][:4] == (20.0, 0, 0, 0)
    assert users[SOUTH][4] == pytest.approx(8.0), "2 requests of 4 units a second"
    throttled = world.rows("SELECT sum(throttled) FROM event_counts")[0][0]
    assert throttled == world.mechanism.snapshot(world.now).counts[:, :, 0].sum() == users[NORTH][2]
    seconds = world.rows("SELECT count(DISTINCT second), min(second), max(second) FROM second_counts")[0]
    assert 10 < seconds[0] < 25 and seconds[1] == began_after // 1000
    world.assert_log_equals_engine()


def test_nothing_is_logged_per_request(world: World) -> None:
    watcher = world.watch()
    world.traffic(10, {(NORTH, "4.1.1"): 5000.0}, watcher)
    watcher.flush()
    rows = sum(
        world.rows(f"SELECT count(*) FROM {table}")[0][0]
        for (table,) in world.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    )
    assert world.mechanism.snapshot(world.now).counts.sum() == 50_000
    assert rows < 150


def test_events_between_two_looks_are_not_missed(world: World) -> None:
    watcher = world.watch()
    world.quiet(2, watcher)
    before = world.at_ms()
    for _ in range(3):
        world.overload(2)
        world.quiet(10)
    assert world.mechanism.snapshot(world.now).activations == 3
    watcher.step()
    after = world.at_ms()
    watcher.flush()
    found = world.events()
    assert [event["number"] for event in found] == [1, 2, 3]
    for event in found:
        assert before <= event["began_ms"] <= event["ended_ms"] <= after
    assert [event["began_exact"] for event in found] == [0, 0, 0]
    assert [event["ended_exact"] for event in found] == [0, 0, 1], "the engine knows when it last changed"
    world.assert_log_equals_engine()


def test_an_end_and_a_new_beginning_between_two_looks_are_two_events(world: World) -> None:
    watcher = world.watch()
    world.overload(3, watcher)
    world.quiet(10)
    world.overload(3)
    watcher.step()
    world.quiet(10, watcher)
    watcher.flush()
    first, second = world.events()
    assert (first["ended_exact"], second["began_exact"], second["ended_exact"]) == (0, 1, 1)
    assert first["ended_ms"] <= second["began_ms"]
    world.assert_log_equals_engine()


@pytest.mark.parametrize("restart", [False, True])
def test_an_event_across_a_months_end_is_counted_once(make_world: MakeWorld, restart: bool) -> None:
    turn = ms("2026-12-01T00:00:00")
    world = make_world(at_ms=turn - 5000)
    watcher = world.watch()
    world.overload(10, watcher)
    if restart:
        watcher.flush()
        watcher.close()
        watcher = world.watch()
    world.quiet(20, watcher)
    watcher.flush()
    assert [file.name for file in files_of(world.path)] == ["events-2026-11.db", "events-2026-12.db"]
    (event,) = world.events()
    assert event["began_ms"] < turn < event["ended_ms"]
    assert event["duration_ms"] == event["ended_ms"] - event["began_ms"]
    world.assert_log_equals_engine()
    days = world.rows("SELECT DISTINCT datetime(day, 'unixepoch') FROM day_counts")
    assert days == [("2026-11-30 00:00:00",), ("2026-12-01 00:00:00",)], "each file holds its own month"
    assert [row[0] for row in world.rows("SELECT seq FROM commits")] == list(
        range(1, 1 + len(world.rows("SELECT seq FROM commits")))
    )


def test_a_restart_in_a_new_month_remembers_the_events_of_the_old_one(make_world: MakeWorld) -> None:
    world = make_world(at_ms=ms("2026-11-30T23:59:00"))
    watcher = world.watch()
    world.overload(5, watcher)
    world.quiet(20, watcher)
    watcher.flush()
    watcher.close()
    world.quiet(60)
    watcher = world.watch()
    world.quiet(3, watcher)
    watcher.close()
    watcher = world.watch()  # once more: now the newest file knows of no event
    world.overload(3, watcher)
    watcher.flush()
    assert [event["number"] for event in world.events()] == [1, 2]
    world.assert_log_equals_engine()


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000])
def test_a_step_of_the_wall_clock_changes_no_duration_and_no_count(world: World, step_ms: int) -> None:
    watcher = world.watch()
    world.overload(5, watcher)
    world.offset_ms += step_ms
    world.overload(5, watcher)
    world.quiet(20, watcher)
    watcher.flush()
    (event,) = world.events()
    began, ended = event["began_mono_ns"], event["ended_mono_ns"]
    assert event["duration_ms"] == (ended - began) // 1_000_000
    assert 9_000 < event["duration_ms"] < 25_000
    ((detail,),) = world.rows("SELECT detail FROM faults WHERE kind = 'clock-step'")
    assert detail == f"the wall clock moved by {step_ms / 1000:+.3f} s"
    world.assert_log_equals_engine()


def test_a_new_configuration_is_logged_with_who_approved_its_list(world: World) -> None:
    watcher = world.watch()
    world.quiet(2, watcher)
    world.mechanism.apply(
        small_config(
            priority=PriorityList(("7.4", "2.2"), "4", None, "Sub-Committee", ""), operating_threshold=110
        ),
        now=world.now,
    )
    world.quiet(2, watcher)
    watcher.flush()
    found = world.rows(
        "SELECT version, json_extract(description, '$.priority_list.approved_by'),"
        " json_extract(description, '$.operating_threshold') FROM configurations ORDER BY from_ms"
    )
    assert [row[1:] for row in found] == [("SEC Panel", 100.0), ("Sub-Committee", 110.0)]
    watcher.close()
    again = world.watch()
    again.step()
    again.flush()
    assert len(world.rows("SELECT * FROM configurations")) == 2, "a restart puts nothing in force"


def test_a_candidate_is_logged_with_the_configuration_it_is_tried_beside(world: World) -> None:
    watcher = world.watch()
    config = world.mechanism.config
    tried = replace(config, candidate_allocations={NORTH: 25.0})
    for each in (tried, replace(tried, candidate_allocations={NORTH: 26.0}), config):
        world.quiet(1, watcher)
        world.mechanism.apply(each, now=world.mono_ns())
    world.quiet(1, watcher)
    watcher.flush()
    rows = world.rows("SELECT version, description FROM configurations ORDER BY from_ms")
    assert {version for version, _ in rows} == {config.version}, "it decides nothing"
    candidates = [json.loads(description)["candidate"] for _, description in rows]
    assert [None if each is None else each["allocations"] for each in candidates] == [
        None, {NORTH: 25.0}, {NORTH: 26.0}, None,
    ]  # fmt: skip
    assert candidates[1]["version"] == tried.candidate_version


def test_priority_traffic_above_its_plan_is_logged(world: World) -> None:
    watcher = world.watch()
    # The allocations leave 40 of 100 units per second: 50 are above the plan, and above Southern Energy's 20.
    world.traffic(5, {(SOUTH, "7.4"): 50.0}, watcher)
    world.quiet(2, watcher)
    watcher.flush()
    found = {
        row[0]: row[1:]
        for row in world.rows(
            "SELECT name, priority_rate, plan, seconds FROM priority_excesses LEFT JOIN users USING (user)"
        )
    }
    assert set(found) == {None, SOUTH}
    assert found[None][:2] == (pytest.approx(50.0), 40.0) and found[SOUTH][1] == 20.0
    assert found[None][2] in (4, 5), "of the first look nobody knows the time"


def test_a_gap_is_told(world: World) -> None:
    watcher = world.watch()
    world.quiet(2, watcher)
    world.quiet(30)
    world.quiet(2, watcher)
    watcher.flush()
    ((detail,),) = world.rows("SELECT detail FROM faults WHERE kind = 'gap'")
    assert detail.startswith("nobody looked for 31.0 s")


def test_a_gateways_events_are_counted_by_their_increase(world: World) -> None:
    watcher = world.watch()
    listen = watcher.gateway_listener()
    for kind, count in [("fail_open", 1), ("fail_open", 41), ("identity_disagrees", 2), ("not_duis", 9)]:
        listen(SimpleNamespace(kind=kind, message="m", count=count))
    watcher.step()
    watcher.flush()
    assert world.rows("SELECT kind, sum(count) FROM faults GROUP BY kind ORDER BY kind") == [
        ("fail-open", 41),
        ("identity-mismatch", 2),
    ]


def test_the_last_of_a_burst_that_a_gateway_told_nobody_of_are_in_the_log(world: World) -> None:
    watcher, standby = world.watch(), world.watch()
    for watching in (watcher, standby):
        front = desk.Desk(world.mechanism, on_event=watching.gateway_listener())
        for _ in range(500):
            front.note("fail_open", "nobody could decide")
        front.note("not_duis", "no DUIS")
    watcher.step()
    assert not standby.step(), "it posts what it has"
    watcher.step()
    watcher.flush()
    found = world.rows("SELECT kind, sum(count), max(detail) FROM faults GROUP BY kind")
    assert found == [("fail-open", 1000, "nobody could decide")]


def test_names_that_would_do_harm_are_only_names(make_world: MakeWorld) -> None:
    names = ["=1+2", "<script>", "Robert'); DROP TABLE users;--", "\u00c5ngstr\u00f6m \U0001f4a1"]
    world = make_world(config=small_config(allocations=dict.fromkeys(names, 10.0)))
    watcher = world.watch()
    world.traffic(2, {(name, "4.1.1"): 5.0 for name in names}, watcher)
    watcher.flush()
    world.assert_log_equals_engine()
    assert {row[0] for row in world.rows("SELECT name FROM users")} == set(names)


def test_a_listener_that_fails_delays_nothing(world: World) -> None:
    got: list[int] = []

    def broken(batch: object) -> None:
        got.append(1)
        raise RuntimeError("broken")

    watcher = world.watch(listeners=[broken])
    world.overload(3, watcher)
    watcher.flush()
    assert got
    world.assert_log_equals_engine()


def test_a_watcher_without_a_log_says_what_to_configure(world: World) -> None:
    with pytest.raises(EventLogError, match="event_log"):
        Watcher(world.mechanism)


def test_old_files_are_made_smaller_and_then_deleted(make_world: MakeWorld) -> None:
    for month in ("2026-01", "2026-07", "2026-11"):
        world = make_world(at_ms=ms(f"{month}-15T00:00:00"))
        world.source = type(world.source)(month, "private", 0, 1)
        watcher = world.watch()
        world.overload(5, watcher)
        watcher.flush()
        watcher.close()
    before = world.rows("SELECT sum(throttled) FROM day_counts")
    done = keep_within(world.path, "2026-11", keep_months=9, detail_months=3)
    assert [file.name for file in done] == ["events-2026-01.db", "events-2026-07.db"]
    assert [file.name for file in files_of(world.path)] == ["events-2026-07.db", "events-2026-11.db"]
    assert world.rows("SELECT count(*) FROM minute_counts")[0] == (0,)
    assert world.rows("SELECT sum(throttled) FROM day_counts") == before[1:]
    assert keep_within(world.path, "2026-11", keep_months=9, detail_months=3) == [], "once is enough"
    assert keep_within(world.path, "2036-11", keep_months=0, detail_months=0) == [], "0 is never"
    assert (months_between("2026-11", "2027-01"), months_between("2026-12", "2026-11")) == (2, -1)


def test_a_clock_that_leaps_years_ahead_deletes_nothing_before_the_next_month(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(at_ms=ms("2026-11-15T00:00:00"))
    watcher = world.watch(settings=WatchSettings(keep_months=9, detail_months=3))
    world.overload(5, watcher)
    world.offset_ms += ms("2036-11-15T00:00:00") - ms("2026-11-15T00:00:00")
    world.quiet(15, watcher)
    assert [file.name for file in files_of(world.path)] == ["events-2026-11.db", "events-2036-11.db"]
    assert "from 2026-11 to 2036-11: nothing is deleted" in caplog.text
    assert world.rows("SELECT count(*) FROM minute_counts")[0] != (0,)
    world.offset_ms += 30 * 86_400_000  # by now somebody has read it
    world.quiet(15, watcher)
    assert [file.name for file in files_of(world.path)] == ["events-2036-11.db", "events-2036-12.db"]


@pytest.mark.parametrize("months", [{"keep_months": -1}, {"detail_months": -1}])
def test_less_than_no_months_are_refused(months: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"_months -1 must be 0 \(never\) or more"):
        WatchSettings(**months)


@pytest.mark.parametrize("option", ["--keep-months", "--detail-months"])
def test_watch_refuses_less_than_no_months(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "tmm.toml", option, "-1"]) == 2
    assert "'-1' is not a number of months, 0 (never) or more" in capsys.readouterr().err


def test_the_thread_stops_and_flushes(tmp_path: Path) -> None:
    mechanism = Mechanism(small_config(event_log=str(tmp_path / "events.db")))
    watcher = watch.start(mechanism, settings=WatchSettings(poll_s=0.01, commit_s=0.01))
    for _ in range(1000):
        mechanism.admit(mechanism.user(NORTH), mechanism.srv("4.1.1"))
    watcher.stop()
    watcher.stop()
    with sqlite3.connect(files_of(tmp_path / "events.db")[0]) as connection:
        assert connection.execute(
            "SELECT sum(throttled + spare + within + priority) FROM totals"
        ).fetchone() == (1000,)
        assert connection.execute("SELECT count(*) FROM sources WHERE ended_ms IS NOT NULL").fetchone() == (
            1,
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_does_not_keep_its_parents_seat(world: World) -> None:
    first, second = world.watch(), world.watch()
    assert first.step()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # only waits
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        first.close()
        assert second.step(), "the child holds the lock of its parent"
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *go):
            os.close(end)
