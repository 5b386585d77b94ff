"""The event log: what is written is found again, whole or not at all, and gaps can be seen."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tmm_core import Config, PriorityList
from tmm_core.errors import EventLogError
from tmm_core.operations.event_log.event_records import (
    Batch,
    ConfigurationApplied,
    Event,
    EventUser,
    Fault,
    Loss,
    Notification,
    PriorityExcess,
    Source,
    SystemMinute,
    ThrottleRecord,
    config_record,
)
from tmm_core.operations.event_log.files import LogSet, connect, files_of
from tmm_core.operations.event_log.schema import SCHEMA_VERSION
from tmm_core.operations.events import EventLog


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = ms("2026-11-25T12:00:00")
SOURCE = Source("f00d", "shared", NOON, 1)


def batch(at_ms: int, **rows: object) -> Batch:
    return Batch(SOURCE, at_ms - 1000, at_ms, at_ms * 1_000_000, polls=1, **rows)  # type: ignore[arg-type]


def counted(at_ms: int, amounts: list[int], user: str = "Northern Energy", srv: str = "4.1.1") -> Batch:
    """One User, one SRV, a cost of 2 units."""
    minute = at_ms // 60_000 * 60
    units = [2 * each for each in amounts]
    return batch(
        at_ms,
        counts={(user, srv): amounts},
        units={(user,): units},
        minute_counts={(minute, user, srv): amounts},
        user_minutes={(minute, user): [*amounts, *units]},
    )


def event(number: int = 1, began_ms: int = NOON) -> Event:
    return Event(
        f"f00d/{number}", number, began_ms, began_ms * 1_000_000, True, "enforce", "0123456789ab", 400.0, 380.0,
        450.0, 600.0, 0.26, 450.0, 600.0, 0.26, 1.0,
    )  # fmt: skip


def query(file: Path, text: str) -> list[tuple[object, ...]]:
    connection = connect(file)
    try:
        return [tuple(row) for row in connection.execute(text)]
    finally:
        connection.close()


def test_counts_add_up_by_minute_day_and_in_total(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        log.append(counted(NOON, [1, 2, 3, 4]))
        log.append(counted(NOON + 1000, [10, 20, 30, 40]))
        log.append(counted(NOON + 60_000, [100, 200, 300, 400]))
        file = log.file
        assert log.totals("f00d") == (
            {("Northern Energy", "4.1.1"): [111, 222, 333, 444]},
            {"Northern Energy": [222, 444, 666, 888]},
        )
    assert file.name == "events-2026-11.db"
    columns = "throttled, spare, within, priority"
    assert query(file, f"SELECT {columns} FROM minute_counts ORDER BY minute") == [
        (11, 22, 33, 44),
        (100, 200, 300, 400),
    ]
    assert query(file, f"SELECT datetime(day, 'unixepoch'), {columns} FROM day_counts") == [
        ("2026-11-25 00:00:00", 111, 222, 333, 444)
    ]
    assert query(file, f"SELECT {columns}, throttled_units, priority_units FROM user_days") == [
        (111, 222, 333, 444, 222, 888)
    ]


def test_every_kind_of_row_is_found_again(tmp_path: Path) -> None:
    config = Config(
        500, 400, allocations={"Northern Energy": 300.0}, categories={"Northern Energy": "large-supplier"},
        priority=PriorityList(("7.4",), "3", date(2026, 11, 1), "SEC Panel", "minutes"), costs={"4.8.1": 4},
        cluster_url="redis://:secret@host/0",
    )  # fmt: skip
    rows = batch(
        NOON,
        system_minutes={NOON // 1000: SystemMinute(2, 1, 700.0, 400.0, 900.0, 500.0, 0.3, 1.5)},
        system_seconds={NOON // 1000: (400.0, 500.0, 0.3, 1.5)},
        configurations=[ConfigurationApplied(NOON, config.version, config_record(config))],
        events={"f00d/1": event()},
        event_users={("f00d/1", "Northern Energy"): EventUser(300.0, 512.5, True, [1] * 8, 1, NOON, NOON)},
        event_counts={("f00d/1", "Northern Energy", "4.1.1"): [1, 1, 1, 1]},
        faults=[
            Fault(NOON, 5, "fail-open", "the block is gone", 3),
            Fault(NOON, 5, "healed", "", user="(unknown)"),
        ],
        priority_excesses={
            (NOON // 1000, None): PriorityExcess(300.0, 200.0, 1),
            (NOON // 1000, "Northern Energy"): PriorityExcess(310.0, 300.0, 1),
        },
        throttle_records=[
            ThrottleRecord(
                NOON, 7, config.version, "Northern Energy", "4.1.1", -(1 << 63), 2, 3, 65_536, True
            )
        ],
        losses=[Loss("counts", 3, NOON, NOON, "disk full")],
        notifications=[Notification("f00d/1", "Northern Energy", "began", "file", "sent", 1, NOON, "")],
    )
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        log.append(rows)
        assert log.last_configuration() == (config.version, "")
        assert [each.event for each in log.open_events("f00d")] == ["f00d/1"]
        # Once more: what has a key adds up or is replaced, what is a list grows.
        log.append(rows)
        file = log.file
    numbers = {
        table: query(file, f"SELECT count(*) FROM {table}")[0][0]
        for table in ("system_minutes", "system_seconds", "configurations", "traffic_management_events",
                      "event_users", "event_counts", "faults", "priority_excesses", "throttle_records", "losses",
                      "notifications")
    }  # fmt: skip
    assert list(numbers.values()) == [1, 1, 1, 1, 1, 1, 4, 2, 2, 2, 1], numbers
    assert query(file, "SELECT load_mean, offered_max, polls FROM system_minute_means") == [(350.0, 500.0, 4)]
    assert query(file, "SELECT seconds FROM priority_excesses WHERE user IS NULL") == [(2,)]
    assert query(file, "SELECT tat FROM throttle_records")[0] == (-(1 << 63),)
    description = query(file, "SELECT description FROM configurations")[0][0]
    assert isinstance(description, str)
    assert "SEC Panel" in description
    assert "large-supplier" in description
    assert "secret" not in description


def test_a_batch_that_fails_leaves_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        log.append(counted(NOON, [1, 0, 0, 0]))
        bad = counted(NOON, [5, 0, 0, 0], user="Southern Energy")
        bad.faults.append(Fault(NOON, 0, "no such kind", ""))
        with pytest.raises(EventLogError, match=r"events-2026-11\.db: cannot be written"):
            log.append(bad)
        # Southern Energy was given a number in the transaction that failed: it must be given one again.
        assert log.append(counted(NOON, [2, 0, 0, 0], user="Southern Energy")) == 2
        assert log.totals("f00d")[0] == {
            ("Northern Energy", "4.1.1"): [1, 0, 0, 0],
            ("Southern Energy", "4.1.1"): [2, 0, 0, 0],
        }


def test_a_log_goes_on_in_the_next_month_and_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    turn = ms("2026-12-01T00:00:00")
    with EventLog(path, at_ms=turn - 5000) as log:
        log.append(counted(turn - 2000, [1, 0, 0, 0]))
        began = batch(turn - 1000, events={"f00d/1": event(1, turn - 1500)})
        log.append(began)
        log.append(counted(turn + 1000, [2, 0, 0, 0]))
        assert log.seq == 3
    # Restarted with the clock a minute slow: the newest file is written, never an older one.
    with EventLog(path, at_ms=turn - 60_000) as log:
        assert log.file.name == "events-2026-12.db"
        assert log.totals("f00d")[0] == {("Northern Energy", "4.1.1"): [3, 0, 0, 0]}
        (still_open,) = log.open_events("f00d")
        still_open.ended_ms, still_open.duration_ms = turn + 8500, 10_000
        log.append(batch(turn + 9000, events={still_open.event: still_open}))
        assert log.seq == 4
    november, december = files_of(path)
    assert query(november, "SELECT seq FROM commits") == [(1,), (2,)]
    assert query(december, "SELECT seq FROM commits") == [(3,), (4,)]
    assert query(december, "SELECT throttled FROM bases") == [(1,)]
    assert query(december, "SELECT sum(throttled) FROM minute_counts") == [(2,)]
    host_ids = {
        query(each, "SELECT value FROM meta WHERE key = 'host_id'")[0] for each in (november, december)
    }
    assert len(host_ids) == 1
    with LogSet([path]) as logs:
        (found,) = logs.events()
        assert (found["began_ms"], found["ended_ms"], found["duration_ms"]) == (
            turn - 1500,
            turn + 8500,
            10_000,
        )
        assert [each["event"] for each in logs.events(until_ms=turn)] == ["f00d/1"], "it began in November"
        assert logs.events(since_ms=turn + 8501) == []


def test_hosts_are_read_side_by_side(tmp_path: Path) -> None:
    for host in ("a", "b"):
        (tmp_path / host).mkdir()
        with EventLog(tmp_path / host / "events.db", at_ms=NOON, host=host) as log:
            log.append(counted(NOON, [1, 0, 0, 0]))
    with LogSet([tmp_path / "a" / "events.db", tmp_path / "b"]) as logs:
        found = [
            (file.host, file.month, row["throttled"])
            for file, row in logs.rows("SELECT throttled FROM user_days")
        ]
    assert found == [("a", "2026-11", 1), ("b", "2026-11", 1)]


def test_copies_of_a_file_are_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    early, late, other = tmp_path / "early.db", tmp_path / "late.db", tmp_path / "other"
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        log.append(counted(NOON, [1, 0, 0, 0]))
        for name in ("", "-wal"):
            shutil.copy(f"{log.file}{name}", f"{early}{name}")
        log.append(counted(NOON + 1000, [2, 0, 0, 0]))
    shutil.copy(log.file, late)
    other.mkdir()
    with EventLog(other / "events.db", at_ms=NOON) as another:  # a host of the same name, and no copy
        another.append(counted(NOON, [4, 0, 0, 0]))
    with LogSet([tmp_path, other]) as logs:
        assert [row["throttled"] for _, row in logs.rows("SELECT throttled FROM user_days")].count(3) == 1
        assert sum(row["throttled"] for _, row in logs.rows("SELECT throttled FROM user_days")) == 3 + 4
    assert [f"{early}: left out, it is a copy of" in caplog.text, caplog.text.count("left out")] == [True, 2]


def test_a_file_begun_anew_after_one_was_moved_away_is_no_copy(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", at_ms=ms("2026-10-25T12:00:00")) as log:
        log.append(counted(ms("2026-10-25T12:00:00"), [1, 0, 0, 0]))
    for at_ms in (NOON, NOON + 60_000):
        with EventLog(tmp_path / "events.db", at_ms=at_ms) as log:
            log.append(counted(at_ms, [2, 0, 0, 0]))
        log.file.rename(tmp_path / f"moved-{at_ms}.db")
    with LogSet([tmp_path]) as logs:
        assert len({file.host_id for file in logs.files}) == 1
        assert sum(row["throttled"] for _, row in logs.rows("SELECT throttled FROM user_days")) == 5


def test_what_is_no_event_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with pytest.raises(EventLogError, match="there is no such event log"):
        connect(path)
    with pytest.raises(EventLogError, match="there is no such event log"):
        LogSet([path])
    other = tmp_path / "events-2026-11.db"
    other.write_bytes(b"not a database at all, but long enough to look at" * 20)
    with pytest.raises(EventLogError, match="file is not a database"):
        connect(other)
    with pytest.raises(EventLogError, match="file is not a database"):
        EventLog(path, at_ms=NOON)
    other.unlink()
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(EventLogError, match="not an event log: application_id 0x0"):
        EventLog(path, at_ms=NOON)


def test_a_log_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        file = log.file
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for opened in (lambda: connect(file), lambda: EventLog(tmp_path / "events.db", at_ms=NOON)):
        with pytest.raises(
            EventLogError, match=f"schema version {SCHEMA_VERSION + 1}, expected 1 to {SCHEMA_VERSION}"
        ):
            opened()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        connection = connect(log.file)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM meta")
        connection.close()


def test_a_log_that_is_finished_can_be_read_where_nothing_may_be_written(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        log.append(batch(NOON))
        unfinished = shutil.copy(log.file, tmp_path / "copy.db")
        shutil.copy(f"{log.file}-wal", tmp_path / "copy.db-wal")
    # No file for its readers can be made beside it: a link stands there, to nowhere. (Permissions do not stop root.)
    for file in (log.file, unfinished):
        Path(f"{file}-shm").symlink_to(tmp_path / "nowhere" / "shm")
    with LogSet([log.file]) as logs:
        assert [tuple(row) for _, row in logs.rows("SELECT seq FROM commits")] == [(1,)]
    with pytest.raises(EventLogError, match="not finished: copy it with its -wal to where you may write"):
        LogSet([unfinished])


_MANY = """
import resource, sys
from tmm_core.operations.event_log.files import LogSet
resource.setrlimit(resource.RLIMIT_NOFILE, (40, int(sys.argv[2])))
with LogSet([sys.argv[1]]) as logs:
    print(sum(row[0] for _, row in logs.rows("SELECT count(*) FROM commits")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files there")
@pytest.mark.parametrize(
    ("hard", "said"), [(400, "60\n"), (60, "60 files of event logs need 280 open files, found a limit of 60")]
)
def test_more_logs_than_a_process_may_open_at_first_are_read_or_refused_in_words(
    tmp_path: Path, hard: int, said: str
) -> None:
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        log.append(batch(NOON))
    for number in range(59):
        file = shutil.copy(log.file, tmp_path / f"host{number}.db")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'host_id'", (str(number),))
    command = [sys.executable, "-c", _MANY, str(tmp_path), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert said in done.stdout + done.stderr


def test_names_are_kept_to_the_letter(tmp_path: Path) -> None:
    names = [
        "=cmd|'/C calc'!A0",
        "<script>alert(1)</script>",
        "Robert'); DROP TABLE users;--",
        "a\u202eb",
        "x\ny",
        "é",
    ]
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        for name in names:
            log.append(counted(NOON, [1, 0, 0, 0], user=name))
        assert query(log.file, "SELECT name FROM users ORDER BY user") == [(name,) for name in names]


def test_every_table_is_explained_in_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "event-log.md").read_text(encoding="utf-8")
    with EventLog(tmp_path / "events.db", at_ms=NOON) as log:
        tables = query(
            log.file,
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'",
        )
    missing = [name for (name,) in tables if f"`{name}`" not in text]
    assert not missing
