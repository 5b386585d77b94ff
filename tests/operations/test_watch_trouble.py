"""The watcher in trouble: kills, full disks, locks, other processes; nothing is lost that is not counted."""

from __future__ import annotations

import json
import logging
import os
import random
import sqlite3

import pytest

from tmm_core import Mechanism
from tmm_core.operations.event_log import observe
from tmm_core.operations.event_log import records as inbox_module
from tmm_core.operations.event_log.event_records import Notification, ThrottleRecord
from tmm_core.operations.event_log.files import file_of
from tmm_core.operations.watch import Watcher

from .world import NOON, NORTH, World, small_config


def test_a_killed_watcher_loses_nothing_that_is_in_the_block(world: World, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        watcher = world.watch()
        for _ in range(rng.randrange(4)):
            (world.overload if rng.random() < 0.5 else world.quiet)(rng.choice((0.5, 3.0)), watcher)
            watcher.step()
        watcher.close()  # without a word, as the kernel would
        world.overload(rng.choice((0.0, 2.0)))
    watcher = world.watch()
    watcher.flush()
    world.assert_log_equals_engine()
    numbers = [event["number"] for event in world.events()]
    assert numbers == list(range(1, world.mechanism.snapshot(world.now).activations + 1))
    kinds = {kind for (kind,) in world.rows("SELECT DISTINCT kind FROM faults")}
    assert kinds >= {"gap", "unclean-end"}


def test_a_private_block_that_died_is_reported(world: World) -> None:
    first = world.watch(private=True)
    world.overload(3, first)
    first.close()
    second = Watcher(Mechanism(small_config(), start=world.now), world.path, clock=world)
    second.step()
    second.flush()
    second.close()
    ((detail,),) = world.rows("SELECT detail FROM faults WHERE kind = 'unclean-end'")
    assert f"process {os.getpid()}" in detail and "its last seconds are lost" in detail
    (event,) = world.events()
    assert event["ended_ms"] is None, "reported as open: nobody knows when it ended"
    sources = world.rows("SELECT kind, ended_ms IS NULL FROM sources")
    assert sources == [("private", 1), ("private", 0)]


def test_an_event_open_when_a_private_block_ends_in_good_order_ends_with_it(world: World) -> None:
    watcher = world.watch(private=True)
    world.overload(3, watcher)
    watcher.flush()
    (event,) = world.events()
    assert event["ended_ms"] == world.at_ms() and event["ended_exact"] == 0


def full(watcher: Watcher, *, pages: int | None = None) -> None:
    connection = watcher._log._connection  # type: ignore[union-attr]
    assert connection is not None
    used = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {used if pages is None else pages}")


def test_a_full_disk_loses_no_count_and_is_reported_afterwards(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = world.watch()
    world.quiet(3, watcher)
    full(watcher)
    with caplog.at_level(logging.ERROR, logger="tmm_core.watch"):
        for _ in range(70):
            world.traffic(1, {(NORTH, f"{n}.1"): 10.0 for n in range(1, 12)}, watcher)
            world.overload(1, watcher)
    assert watcher.failures > 50
    assert 1 <= len(caplog.records) <= 4, "a storm must not become a storm of logging"
    assert "disk is full" in caplog.text
    full(watcher, pages=1_000_000)
    world.quiet(3, watcher)
    watcher.flush()
    assert watcher.failures == 0
    world.assert_log_equals_engine()
    ((count, detail),) = world.rows("SELECT count, detail FROM faults WHERE kind = 'log-unwritable'")
    assert count > 50 and "disk is full" in detail
    assert world.rows("SELECT count(*) FROM losses") == [(0,)]


def test_a_locked_log_is_written_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmm_core.operations.events.BUSY_MS", 1)
    watcher = world.watch()
    world.quiet(3, watcher)
    other = sqlite3.connect(file_of(world.path, "2026-11"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    world.overload(5, watcher)
    assert watcher.failures >= 5
    other.execute("ROLLBACK")
    other.close()
    world.quiet(20, watcher)
    watcher.flush()
    world.assert_log_equals_engine()
    assert [event["number"] for event in world.events()] == [1]
    assert world.rows("SELECT count(*) FROM faults WHERE kind = 'log-unwritable'") == [(1,)]


def test_a_log_that_cannot_be_opened_is_opened_later(world: World) -> None:
    world.path = world.path.parent / "later" / "events.db"
    watcher = world.watch(private=True)
    world.overload(3, watcher)
    assert watcher.failures == 3 and not watcher.elected
    world.path.parent.mkdir()
    file_of(world.path, "2026-11").write_text("no database, but long enough to be looked at" * 30)
    world.quiet(5, watcher)
    assert watcher.elected and watcher.failures > 3
    file_of(world.path, "2026-11").unlink()
    world.quiet(20, watcher)
    watcher.flush()
    world.assert_log_equals_engine()
    assert len(world.events()) == 1


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_is_removed_while_it_is_written_is_begun_anew_and_told(
    world: World, caplog: pytest.LogCaptureFixture, moved: bool
) -> None:
    watcher = world.watch()
    world.overload(3, watcher)
    before = world.mechanism.snapshot(world.now).counts.sum()
    file = file_of(world.path, "2026-11")
    for each in file.parent.glob(f"{file.name}*"):
        each.rename(each.with_name(f"old-{each.name}")) if moved else each.unlink()
    world.overload(5, watcher)
    watcher.flush()
    grown = int(world.mechanism.snapshot(world.now).counts.sum() - before)
    assert world.rows("SELECT sum(throttled + spare + within + priority) FROM minute_counts") == [(grown,)]
    assert [event["number"] for event in world.events()] == [1]
    ((detail,),) = world.rows("SELECT detail FROM faults WHERE kind = 'log-unwritable'")
    assert "removed or replaced while it was written" in detail and "removed or replaced" in caplog.text


def test_what_is_kept_while_the_log_cannot_be_written_is_bounded_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmm_core.operations.events.BUSY_MS", 1)
    monkeypatch.setattr(observe, "_MOST_CELLS", 50)
    monkeypatch.setattr(observe, "_MOST_LIST", 3)
    watcher = world.watch()
    world.quiet(3, watcher)
    other = sqlite3.connect(file_of(world.path, "2026-11"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(5):
        watcher.fault("store-state", "isolated")
    world.overload(180, watcher)
    assert len(watcher._observer.batch.second_counts) <= 50  # type: ignore[union-attr]
    other.close()
    watcher.flush()
    snapshot = world.mechanism.snapshot(world.now)
    assert world.rows("SELECT sum(throttled + spare + within + priority) FROM minute_counts") == [
        (int(snapshot.counts.sum()),)
    ]
    losses = dict(world.rows("SELECT what, records FROM losses"))
    assert losses["fault"] == 2 and losses["second-detail"] > 100


def test_a_storm_of_faults_is_counted_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "_MOST", 10)
    watcher = world.watch()
    for _ in range(25):
        watcher.fault("fail-open", "the block is gone")
    watcher.step()
    watcher.flush()
    assert world.rows("SELECT count(*) FROM faults WHERE kind = 'fail-open'") == [(10,)]
    assert world.rows("SELECT what, records FROM losses") == [("fault", 15)]


def test_one_process_is_elected_and_the_others_tell_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = world.watch(), world.watch()
    assert first.step() and not second.step()
    second.fault("fail-open", "no decision", count=7, user=NORTH)
    second.put(ThrottleRecord(NOON, 1, "v", NORTH, "4.1.1", 1, 2, 3, 4, True))
    second.put(Notification("block-1/1", NORTH, "began", "file", "sent", 1, NOON, ""))
    assert not second.step()
    first.step()
    assert world.rows("SELECT kind, count, name FROM faults LEFT JOIN users USING (user)") == [
        ("fail-open", 7, NORTH)
    ]
    assert world.rows("SELECT count(*) FROM throttle_records") == [(1,)]
    assert world.rows("SELECT count(*) FROM notifications") == [(1,)]
    first.step()
    assert world.rows("SELECT count(*) FROM faults") == [(1,)]
    assert list((world.path.parent / "events.db.inbox").iterdir()) == []
    first.close()
    assert second.step(), "it takes over"
    assert not caplog.records, "workers that share a block need no warning"


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_lock_that_is_removed_leaves_one_writer_and_every_count_once(
    world: World, order: tuple[int, int]
) -> None:
    watchers = world.watch(), world.watch()
    assert watchers[0].step() and not watchers[1].step()
    world.overload(3, watchers[0])
    world.path.with_name("events.db.lock").unlink()
    now = world.at_ms(), world.mono_ns()
    assert watchers[1]._elect(*now) and watchers[1]._open(*now), "it meets no lock"
    # What the first one had begun to write before it looks for its lock again.
    watchers[0]._observer.poll(*now)  # type: ignore[union-attr]
    watchers[0]._commit(watchers[0]._observer, *now)  # type: ignore[arg-type]
    for _ in range(8):
        world.overload(0.5)
        world.quiet(0.5)
        for place in order:
            watchers[place].step()
    assert sum(watcher.elected for watcher in watchers) == 1
    for watcher in watchers:
        watcher.flush()
    world.assert_log_equals_engine()


def test_a_private_block_that_is_not_in_the_log_is_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = world.watch(private=True), world.watch(private=True)
    assert first.step()
    for _ in range(3):
        assert not second.step()
    assert [
        record.message for record in caplog.records if "its counts are not in the log" in record.message
    ] == [caplog.records[0].message]


def test_a_letter_is_taken_in_once_even_if_its_reader_is_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.watch(), world.watch()
    first.step()
    second.fault("worker-died", "it is gone")
    second.step()
    # Killed between the commit and the deletion of the letter.
    monkeypatch.setattr(first._inbox, "written", lambda: None)
    first.step()
    first.close()
    assert len(list((world.path.parent / "events.db.inbox").iterdir())) == 1
    second.step()
    second.flush()
    assert world.rows("SELECT count(*) FROM faults WHERE kind = 'worker-died'") == [(1,)]
    assert list((world.path.parent / "events.db.inbox").iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '["fault",{"at_ms":1}]', '["no such",{}]', "\u00e9", "null"])
def test_an_unreadable_letter_is_set_aside_and_counted(world: World, text: str) -> None:
    folder = world.path.parent / "events.db.inbox"
    folder.mkdir()
    (folder / "1.jsonl").write_text(text + "\n", encoding="utf-8")
    watcher = world.watch()
    watcher.step()
    watcher.flush()
    if text:
        assert world.rows("SELECT what, records FROM losses") == [("fault", 1)]
        assert [file.name for file in folder.iterdir()] == ["1.unreadable"]


def letter(**changes: object) -> str:
    fault = {"at_ms": NOON, "mono_ns": 1, "kind": "fail-open", "detail": "", "count": 1, "user": None}
    return json.dumps(["fault", {**fault, **changes}]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        letter(kind="of-a-later-version"),
        letter(at_ms="noon"),
        letter(count=1 << 70),
        letter(detail={"no": "text"}),
        letter(user=["a", "list"]),
        letter(user="zz\udce9"),
    ],
)
def test_a_letter_the_log_does_not_take_is_counted_and_does_not_stop_it(world: World, text: str) -> None:
    folder = world.path.parent / "events.db.inbox"
    folder.mkdir()
    (folder / "1.jsonl").write_text(text, encoding="ascii")
    watcher = world.watch()
    world.overload(5, watcher)
    watcher.flush()
    assert watcher.failures == 0
    world.assert_log_equals_engine()
    assert world.rows("SELECT what, records FROM losses") == [("fault", 1)]
    assert list(folder.iterdir()) == []


def test_a_fault_in_the_name_of_a_file_that_is_not_utf8_is_written(world: World) -> None:
    watcher = world.watch()
    watcher.fault("configuration-refused", os.fsdecode(b"allocations/zz\xe9.csv: its name is no day"))
    world.quiet(2, watcher)
    watcher.flush()
    assert watcher.failures == 0
    ((detail,),) = world.rows("SELECT detail FROM faults WHERE kind = 'configuration-refused'")
    assert detail == r"allocations/zz\udce9.csv: its name is no day"


def test_a_fault_of_an_unknown_kind_is_refused_where_it_is_told(world: World) -> None:
    with pytest.raises(ValueError, match="kind 'fail_open' must be one of fail-open, "):
        world.watch().fault("fail_open", "nobody could decide")
