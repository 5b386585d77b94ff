"""`tmm replay` of an event log, and two configurations side by side on the same traffic."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tmm_core.errors import ConfigError, EventLogError, TMMError
from tmm_core.mechanism import Decision
from tmm_core.operations.cli import main
from tmm_core.operations.replay import Requests, run_replay
from tmm_core.operations.traffic.logged_traffic import LoggedTraffic
from tmm_core.operations.traffic.request_log import RequestLog
from tmm_core.operations.traffic.summary import what_if
from tmm_core.policy.config import Config

from .conftest import MakeWorld
from .report_logs import HARBOUR, NORTHERN, WORKS, Host, config

START = 1796083200  # 2026-12-01 00:00:00 UTC
BASE = Config(150, 100, allocations={"Alpha": 60.0, "Beta": 20.0}, unknown_allocation=10.0, hold_s=2)
TMM = (
    "[capacity]\nsystem_capacity = 150\noperating_threshold = 100\n[mechanism]\nhold_s = 2\n"
    '[files]\nallocations = "allocations.csv"\n[unknown_users]\nallocation = 10\n'
)
NEXT = "user,category,user_ids,allocation\nAlpha,large-supplier,,30\nBeta,small-supplier,,50\n"


# ---- A configuration with changes


def test_a_changed_threshold_keeps_the_share_of_the_release_threshold() -> None:
    changed = what_if(replace(BASE, release_threshold=80.0), threshold=120.0)
    assert (changed.operating_threshold, changed.release_threshold) == (120.0, 96.0)
    assert dict(changed.allocations) == dict(BASE.allocations)


def test_users_of_the_file_keep_their_identifiers_where_it_names_none(tmp_path: Path) -> None:
    now = replace(BASE, user_ids={"90-B3-D5-1F-30-01-00-00": "Alpha", "90-B3-D5-1F-30-02-00-00": "Beta"})
    path = tmp_path / "next.csv"
    path.write_text(NEXT.replace("Beta,small-supplier,,", "Beta,small-supplier,90-B3-D5-1F-30-09-00-00,"))
    changed = what_if(now, allocations=path)
    assert dict(changed.allocations) == {"Alpha": 30.0, "Beta": 50.0}
    assert dict(changed.user_ids) == {"90-B3-D5-1F-30-01-00-00": "Alpha", "90-B3-D5-1F-30-09-00-00": "Beta"}
    assert changed.version != now.version and changed.allocations_file == str(path)


@pytest.mark.parametrize(
    ("text", "threshold", "fault"),
    [
        (NEXT.replace(",30", ",-3"), None, "next.csv:2:23: allocation -3"),
        (NEXT.replace(",50", ",70"), None, "next.csv:3:22: allocations add up to 110"),
        (NEXT, 85.0, "next.csv:3:22: allocations add up to 90"),
        (None, 85.0, "--threshold: allocations add up to 90"),
        (None, 151.0, "--threshold: operating_threshold 151 is above system_capacity 150"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(
    text: str | None, threshold: float | None, fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "next.csv"
    path.write_text(text or "")
    with pytest.raises(ConfigError) as error:
        what_if(BASE, threshold=threshold, allocations=path if text else None)
    assert fault in str(error.value)


# ---- Side by side


@pytest.fixture
def tmm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``tmm replay`` in a folder with a configuration and the allocations to come."""
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "tmm.toml").write_text(TMM)
    (tmp_path / "allocations.csv").write_text(NEXT.replace(",30", ",60").replace(",50", ",20"))
    (tmp_path / "next.csv").write_text(NEXT)
    return lambda *arguments: main(
        ["replay", *map(str, arguments), "-c", str(tmp_path / "tmm.toml"), "--out", str(tmp_path / "out")]
    )


def requests(folder: Path) -> Path:
    """Ten seconds: Alpha 70 a second and Beta 60, evenly: 130 against a threshold of 100; one unknown a second."""
    lines = [
        (START * 1000 + second * 1000 + at * 1000 // n, user)
        for second in range(10)
        for user, n in (("Alpha", 70), ("Beta", 60), ("Gamma", 1))
        for at in range(n)
    ]
    path = folder / "requests.csv"
    path.write_text("\n".join(["time,user_id,srv", *[f"{at},{user},4.1.1" for at, user in sorted(lines)]]))
    return path


def test_both_configurations_get_the_same_traffic_and_each_gives_what_it_gives_alone(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = requests(tmp_path)
    assert tmm(log, "--threshold", "90", "--allocations", tmp_path / "next.csv", "--json") == 0
    both = json.loads(capsys.readouterr().out)
    changed = what_if(Config.load(tmp_path / "tmm.toml"), threshold=90, allocations=tmp_path / "next.csv")
    with RequestLog(log) as opened:
        alone = run_replay(Requests(opened), changed, tmp_path / "alone")
    throttled = alone.outcome.counts[:, Decision.THROTTLED].tolist()
    assert both["offered"] == both["what_if"]["offered"] == 1310
    assert [user["throttled"] for user in both["what_if"]["users"]] == throttled
    assert (tmp_path / "out" / "what-if.csv").read_bytes() == (tmp_path / "alone" / "replay.csv").read_bytes()
    # Beta, at 60 a second, is far above 20 and a little above 50; Alpha, at 70, the other way round.
    users = {each["user"]: each for each in both["side_by_side"]["users"]}
    assert users["Alpha"]["allocation"] == [60.0, 30.0] and users["Beta"]["allocation"] == [20.0, 50.0]
    assert users["Alpha"]["throttled"][1] > users["Alpha"]["throttled"][0]
    assert users["Beta"]["throttled"][1] < users["Beta"]["throttled"][0]
    assert both["throttled"] < both["what_if"]["throttled"], "the threshold is lower too"
    names = {"replay.csv", "users.csv", "replay.svg", "what-if.csv", "what-if-users.csv", "what-if.svg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_an_identifier_may_be_a_user_of_one_configuration_only(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.csv"
    new.write_text("user,category,user_ids,allocation\nAlpha,large-supplier,,60\nGamma,other,,20\n")
    assert tmm(requests(tmp_path), "--allocations", new, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    users = {each["user"]: each for each in found["side_by_side"]["users"]}
    assert users["Gamma"]["allocation"] == [None, 20.0] and users["Gamma"]["offered"] == [0, 10]
    assert users["Beta"]["allocation"] == [20.0, None] and users["Beta"]["offered"] == [600, 0]
    assert found["unknown_users"] == 10 and found["what_if"]["unknown_users"] == 600


def test_the_table_says_both_and_the_difference(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tmm(requests(tmp_path), "--threshold", "90") == 0
    said = capsys.readouterr().out
    rows = {line[2:26].strip(): line[26:].split() for line in said.splitlines()}
    with (tmp_path / "out" / "users.csv").open() as file:
        now = sum(int(row["throttled"]) for row in csv.DictReader(file))
    with (tmp_path / "out" / "what-if-users.csv").open() as file:
        then = sum(int(row["throttled"]) for row in csv.DictReader(file))
    assert rows["operating threshold"] == ["100", "90", "-10"]
    assert rows["throttled"] == [str(now), str(then), f"+{then - now}"] and then > now > 0
    assert rows["Users"] == ["2", "2", "="]
    assert max(len(line) for line in said.splitlines() if "/" not in line) <= 100


def test_the_table_of_users_fits_a_narrow_terminal(
    tmm: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = "user,category,user_ids,allocation\nElectricity Network 05,other,,{}\nAlpha,large-supplier,,30\n"
    (tmp_path / "next.csv").write_text(names.format("0.125"))
    (tmp_path / "allocations.csv").write_text(names.format("1.125"))
    log = requests(tmp_path)
    for width, offered in ((80, False), (90, True)):
        monkeypatch.setenv("COLUMNS", str(width))
        assert tmm(log, "--threshold", "90", "--allocations", tmp_path / "next.csv") == 0
        said = capsys.readouterr().out
        head = next(line for line in said.splitlines() if "Service User" in line)
        assert ("offered" in head) is offered and "throttled" in head and len(head) <= width


@pytest.mark.parametrize("arguments", [["--threshold", "0"], ["--threshold", "x"], ["--since", "soon"]])
def test_a_wrong_option_is_refused(arguments: list[str], tmm: Callable[..., int], tmp_path: Path) -> None:
    assert tmm(requests(tmp_path), *arguments) == 2
    assert not (tmp_path / "out").exists()


def test_a_request_log_cannot_be_cut(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tmm(requests(tmp_path), "--since", "2026-12-01") == 2
    assert "are for event logs" in capsys.readouterr().err


# ---- An event log


def test_a_minute_is_spread_evenly_and_keeps_every_request(tmp_path: Path) -> None:
    counts = {
        ("2026-11-10T12:00", NORTHERN, "4.1.1"): (1, 2, 100, 17),
        ("2026-11-10T12:00", HARBOUR, "7.4"): (0, 0, 0, 7),
    }
    Host(tmp_path, at="2026-11-10T12:00:00").write("2026-11-10T12:01:00", counts).close()
    with LoggedTraffic([tmp_path]) as traffic:
        seconds = list(
            traffic.seconds({NORTHERN: 1, HARBOUR: 2}.__getitem__, {"4.1.1": 3, "7.4": 4}.__getitem__)
        )
        notes = traffic.notes
    assert len(seconds) == 60
    # 120 in 60 seconds are 2 in each, half a second apart; 7 are one in every eight or nine.
    assert {int((each.users == 1).sum()) for each in seconds} == {2}
    assert all(np.diff(each.steps[each.users == 1]).tolist() == [100] for each in seconds)
    few = [each.second for each in seconds if (each.users == 2).any()]
    assert len(few) == 7 and set(np.diff(few)) <= {8, 9}
    assert {int(each.srvs[each.users == 2][0]) for each in seconds if (each.users == 2).any()} == {4}
    assert (notes.by_minute, notes.by_second, notes.bad, notes.hosts) == (127, 0, 0, 1)


def test_what_is_known_by_the_second_stays_there_and_only_the_rest_is_spread(tmp_path: Path) -> None:
    minutes = {("2026-11-10T12:00", NORTHERN, "4.1.1"): (50, 0, 350, 0)}
    seconds = {
        ("2026-11-10T12:00:10", NORTHERN, "4.1.1"): (20, 0, 100, 0),
        ("2026-11-10T12:00:11", NORTHERN, "4.1.1"): (30, 0, 134, 0),
    }
    Host(tmp_path, at="2026-11-10T12:00:00").write("2026-11-10T12:01:00", minutes, seconds).close()
    with LoggedTraffic([tmp_path]) as traffic:
        sizes = {each.second: each.users.size for each in traffic.seconds(lambda _: 1, lambda _: 1)}
        notes = traffic.notes
    # 400 less 284 leaves 116 for 58 seconds.
    assert sizes == {second: {10: 120, 11: 164}.get(second, 2) for second in range(60)}
    assert (notes.by_second, notes.by_minute) == (284, 116)


def test_a_log_that_begins_within_a_minute_is_not_thinned_out(tmp_path: Path) -> None:
    counts = {("2026-11-10T12:00", NORTHERN, "4.1.1"): (0, 0, 30, 0)}
    Host(tmp_path, at="2026-11-10T12:00:45").write("2026-11-10T12:01:00", counts).close()
    with LoggedTraffic([tmp_path]) as traffic:
        sizes = [each.users.size for each in traffic.seconds(lambda _: 1, lambda _: 1)]
    assert sizes == [2] * 15
    assert traffic.notes.start is not None and traffic.notes.start % 60 == 45


def test_hosts_add_up_and_a_time_can_be_chosen(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        counts = {(f"2026-11-10T12:0{minute}", NORTHERN, "4.1.1"): (0, 0, 60, 0) for minute in range(5)}
        Host(tmp_path, name, at="2026-11-10T12:00:00").write("2026-11-10T12:05:00", counts).close()
    begin = 1_794_312_060  # 2026-11-10T12:01:00Z
    with LoggedTraffic([tmp_path], since_s=begin, until_s=begin + 120) as traffic:
        sizes = [each.users.size for each in traffic.seconds(lambda _: 1, lambda _: 1)]
        assert traffic.done() == traffic.size == 2
    assert sizes == [2] * 120
    assert (traffic.notes.start, traffic.notes.hosts) == (begin, 2)


def test_a_log_of_the_engine_replayed_offers_what_was_offered(make_world: MakeWorld, tmp_path: Path) -> None:
    """Also what was throttled then, which was offered too; and active then, active again."""
    world = make_world()
    watcher = world.watch()
    world.quiet(30, watcher)
    world.overload(30, watcher)
    world.quiet(60, watcher)
    watcher.close()
    counts = world.mechanism.snapshot(world.now).counts
    with LoggedTraffic([world.path]) as traffic:
        found = run_replay(traffic, world.mechanism.config, tmp_path / "out")
    assert (found.outcome.counts.sum(axis=1) == counts.sum(axis=(1, 2))).all()
    assert found.outcome.activations == world.mechanism.snapshot(world.now).activations == 1
    assert found.outcome.of(Decision.THROTTLED) == pytest.approx(counts[..., 0].sum(), rel=0.05)


def small_log(folder: Path, **amounts: int) -> Path:
    counts = {
        ("2026-11-10T12:00", NORTHERN, "4.1.1"): (0, 0, 6000, 0),
        ("2026-11-10T12:00", WORKS, "4.1.1"): (0, 0, 1200, 0),
        ("2026-11-10T12:00", "Gone Energy", "4.1.1"): (0, 0, 6, 0),
    }
    return Host(folder / "log", at="2026-11-10T12:00:00").write("2026-11-10T12:01:00", counts).close()


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    names = config()
    rows = "\n".join(f"{user},other,,{rate}" for user, rate in names.allocations.items())
    (tmp_path / "tmm.toml").write_text(TMM.replace("= 10\n", "= 1\n"))
    (tmp_path / "allocations.csv").write_text(f"user,category,user_ids,allocation\n{rows}\n")
    return tmp_path / "tmm.toml"


def test_the_command_takes_an_event_log_and_says_how_it_is_spread(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = small_log(tmp_path)
    arguments = ["replay", str(log), "-c", str(toml), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "7,206 Service Requests from 2026-11-10T12:00:00Z to 2026-11-10T12:00:59Z" in said
    assert "counts, not requests: by the second 0 (0.0 %)" in said and "by the minute 7,206" in said
    assert "bursts shorter than a minute do not show" in said
    assert "Unknown identifiers: Gone Energy" in said
    assert main([*arguments, "--threshold", "110", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["log"]["by_minute"] == 7206
    # 120 a second against 100, and against 110.
    assert found["throttled"] > found["what_if"]["throttled"] > 0


def test_rows_that_cannot_be_used_are_counted_and_told(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = small_log(tmp_path)
    (file,) = log.glob("*.db")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE minute_counts SET within = -5 WHERE within = 6")
        connection.execute("DELETE FROM users WHERE name = ?", (WORKS,))
    connection.close()
    arguments = ["replay", str(file), "-c", str(toml), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--strict"]) == 1
    said, errors = capsys.readouterr()
    assert "Rows that could not be used: 2 of 3" in said and "count -5" in said and "without a name" in said
    assert "2 bad: left out of 3 rows" in errors
    assert main(arguments) == 0


def test_what_is_no_event_log_is_an_error_of_one_line(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (x)").connection.close()
    (tmp_path / "empty").mkdir()
    for log, fault in (("other.db", "not an event log"), ("empty", "there is no such event log")):
        assert main(["replay", str(tmp_path / log), "-c", str(toml), "--out", str(tmp_path / "x")]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and fault in said


@pytest.mark.parametrize("part", [0.5, 0.75])
def test_a_damaged_log_leaves_no_files(part: float, toml: Path, tmp_path: Path) -> None:
    counts = {
        (f"2026-11-{day:02d}T{hour:02d}:{minute:02d}", NORTHERN, "4.1.1"): (0, 0, 60, 0)
        for day in (10, 11) for hour in range(24) for minute in range(60)
    }  # fmt: skip
    log = Host(tmp_path / "log", at="2026-11-10T00:00:00").write("2026-11-12T00:00:00", counts).close()
    (file,) = log.glob("*.db")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    first = int(len(data) // size * part)
    for number in range(first, min(first + 12, len(data) // size)):
        data[number * size : (number + 1) * size] = b"\xff" * size
    file.write_bytes(data)
    with (
        pytest.raises(EventLogError, match="cannot be read as an event log"),
        LoggedTraffic([file]) as traffic,
    ):
        run_replay(traffic, Config.load(toml), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_an_event_log_without_requests_in_the_time_is_an_error(toml: Path, tmp_path: Path) -> None:
    late = LoggedTraffic([small_log(tmp_path)], since_s=2_000_000_000)
    with late, pytest.raises(TMMError, match="has no Service Request in this time"):
        run_replay(late, Config.load(toml), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
