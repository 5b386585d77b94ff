"""Past traffic in a scenario: a CSV file, or an event log as `tmm replay` reads it."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tmm_core import Mechanism
from tmm_core.errors import ConfigError, EventLogError, TMMError
from tmm_core.operations.simulate import simulate
from tmm_core.operations.simulation import BORN, users_of
from tmm_core.operations.simulation.arrivals import Arrivals
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.scenario_files import load_scenario
from tmm_core.operations.simulation.summary import about
from tmm_core.operations.traffic.drive import STEP_NS
from tmm_core.operations.traffic.logged_traffic import LoggedTraffic

from .report_logs import HARBOUR, NORTHERN, Host

EXAMPLE = Path(__file__).parents[2] / "examples" / "simulation" / "event-log.toml"
SCENARIO = f"""\
seconds = 90
step_ms = 20
[capacity]
system_capacity = 250
operating_threshold = 200
[[users]]
name = "{NORTHERN}"
allocation = 60
[[traffic]]
kind = "replay"
file = "log.csv"
"""
LINE = SCENARIO.splitlines().index('file = "log.csv"') + 1
CSV = f"second,user,srv\n0.105,{NORTHERN},4.1.1\n0.105,nobody,4.1.1\n3.999,{NORTHERN},7.4\n"


def events(folder: Path, user: str = NORTHERN) -> Path:
    """Three minutes, the last after a gap: 60 a second of one User, 1 of another; one second with its own counts."""
    minutes = {
        (f"2026-11-10T12:0{minute}", name, "4.1.1"): (0, 0, 60 * rate, 0)
        for minute in (0, 1, 3)
        for name, rate in ((user, 60), (HARBOUR, 1))
    }
    seconds = {("2026-11-10T12:01:10", user, "4.1.1"): (0, 0, 119, 0)}
    Host(folder, "events", at="2026-11-10T12:00:00").write("2026-11-10T12:04:00", minutes, seconds).close()
    return folder / "events.db"


def scenario_of(folder: Path, text: str = SCENARIO) -> Scenario:
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return load_scenario(str(folder / "mine.toml"))


def fresh_of(scenario: Scenario, seconds: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    with Mechanism(scenario.config, start=0) as mechanism:
        arrivals = Arrivals(scenario, mechanism.user, mechanism.srv)
        found = []
        for first in range(0, seconds, 7):  # some at once
            fresh = arrivals.seconds(first, min(7, seconds - first))
            found += [fresh.in_time(place).words for place in range(fresh.seconds)]
        arrivals.close()
    return found


def test_a_csv_is_replayed_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(CSV, encoding="utf-8")
    scenario = scenario_of(tmp_path)
    words = np.concatenate(fresh_of(scenario, 5))
    assert users_of(words).tolist() == [1, 0, 1]
    assert (words >> BORN).tolist() == [5, 5, 199], "steps of 20 ms"
    (tmp_path / "log.csv").write_text(f"second,user,srv\n2,{NORTHERN},7.4\n1,x,7.4\n", encoding="utf-8")
    with pytest.raises(TMMError, match=r"log\.csv:3:1: second '1' must be"):
        fresh_of(scenario, 5)


def test_an_event_log_is_replayed_as_the_replay_spreads_it(tmp_path: Path) -> None:
    path = events(tmp_path)
    scenario = scenario_of(tmp_path, SCENARIO.replace("log.csv", "events.db"))
    with Mechanism(scenario.config, start=0) as mechanism, LoggedTraffic([path]) as traffic:
        logged = {each.second: each for each in traffic.seconds(mechanism.user, mechanism.srv)}
    words = fresh_of(scenario, 240)
    # 60 a second, and 1 of a User that is unknown here, but in the second that has its own; a minute without any.
    assert words[0].size == 61 and words[70].size == 119
    assert [each.size for each in words[120:180]] == [0] * 60 and logged.keys() == {
        *range(120),
        *range(180, 240),
    }
    step_ns = scenario.step_ms * 1_000_000
    for second, its in logged.items():
        mine = words[second]
        assert users_of(mine).tolist() == its.users.tolist()
        at = its.steps * STEP_NS // step_ns
        assert ((mine >> BORN) - second * scenario.steps_per_s).tolist() == at.tolist()


def test_a_time_of_the_log_is_chosen_and_a_scenario_may_end_before_it(tmp_path: Path) -> None:
    events(tmp_path)
    text = SCENARIO.replace(
        '"log.csv"', '"events.db"\nsince = 2026-11-10T12:01:00Z\nuntil = 2026-11-10T13:02:00+01:00'
    )
    scenario = scenario_of(tmp_path, text)
    sizes = [each.size for each in fresh_of(scenario, 90)]
    assert sizes[10] == 119 and sum(sizes) == 61 * 60 and sizes[60:] == [0] * 30
    assert [each.size for each in fresh_of(replace(scenario, seconds=5), 5)] == sizes[:5]


@pytest.mark.parametrize(
    ("lines", "at", "fault"),
    [
        ('file = "gone.db"', 0, "there is no such file or event log"),
        ('file = "other.db"', 0, "other.db: not an event log: application_id 0x0, expected"),
        ('file = "empty"', 0, "there is no such event log"),
        ('file = "events.db"\nsince = 2027-01-01', 0, "events.db': no Service Request in this time"),
        ('file = "events.db"\nsince = "2026-11-10"', 1, "since '2026-11-10' is no time: expected a date"),
        ('file = "log.csv"\nsince = 2026-11-10', -1, "since and until are for event logs"),
        ('file = ""', -1, "file must be given for kind 'replay'"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_told_with_its_line(
    lines: str, at: int, fault: str, tmp_path: Path
) -> None:
    events(tmp_path)
    (tmp_path / "log.csv").write_text(CSV, encoding="utf-8")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (x)").connection.close()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        scenario_of(tmp_path, SCENARIO.replace('file = "log.csv"', lines))
    (mistake,) = caught.value.mistakes
    expected = LINE + at if at >= 0 else LINE - 2  # the header of the table
    assert mistake.line == expected and fault in str(mistake)


def test_a_log_of_others_and_a_log_with_bad_rows_are_errors(tmp_path: Path) -> None:
    scenario = scenario_of(events(tmp_path, "Gone Energy").parent, SCENARIO.replace("log.csv", "events.db"))
    with pytest.raises(
        TMMError, match=r"events\.db: no User of the event log is one of the scenario: .*Gone"
    ):
        simulate(scenario, ["fair"])
    (file,) = tmp_path.glob("events-*.db")
    file.unlink()
    events(tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE minute_counts SET within = -5 WHERE within = 60")
    connection.close()
    with pytest.raises(TMMError, match=r"events\.db: .*count -5: tmm replay leaves such rows out"):
        simulate(scenario, ["fair"])


def test_a_log_that_is_damaged_is_an_error_and_no_half_result(tmp_path: Path) -> None:
    events(tmp_path)
    scenario = scenario_of(tmp_path, SCENARIO.replace("log.csv", "events.db"))
    (file,) = tmp_path.glob("events-*.db")
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(EventLogError, match="cannot be read as an event log"):
        simulate(scenario, ["fair"])


def test_the_example_plays_a_log_with_clients_and_something_on_top(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    events(tmp_path)
    simulation = simulate(load_scenario(str(tmp_path / EXAMPLE.name)))
    fair = simulation.of("fair")
    assert fair is not None
    # 60 and 1 a second of the log for a minute, and up to 120 a second of the campaign for 20 s.
    assert fair.fresh[fair.users.index(NORTHERN)] == 60 * 60
    assert fair.fresh[fair.users.index(HARBOUR)] == pytest.approx(60 + 20 * 120, rel=0.05)
    assert len(fair.activations) == 1 and fair.attempts > fair.requests
    assert simulation.inside == [NORTHERN]
    said = about(simulation)
    assert " from 2 Users in " in said, "a log's are not invented"
    assert "1 User stays inside its allocation by its own doing" in said
